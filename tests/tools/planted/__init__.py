"""Systems under test with one planted fault each, named `tests.tools.planted:Name` in a scenario's `System`.

Invariant: a class differs from the sound one it derives from in its fault alone, and its docstring
names the rule that it must break and the fault of the catalogue that it resembles.
"""

from harness.system.planted.kernels import (
    AddsInBfloat16,
    LosesLastPeer,
    MissesTail,
    NoFirstBarrier,
    Overruns,
    SoundKernels,
)
from harness.system.planted.pools import (
    AlwaysRegisters,
    FirstGroupOnly,
    ForgetsToDeregister,
    IgnoresNull,
    KeepsATensor,
    OppositeOrder,
    OutsideThePool,
    RegistersAlone,
    RemembersAddresses,
    RemembersSegments,
    ShortWindow,
)
from harness.system.planted.sound import EveryGroup, Sound
from tests.tools.planted.collectives import (
    CrashesInKernel,
    Dawdles,
    FallsBackAlone,
    LeavesEarly,
    LosesASignal,
    NoLastBarrier,
    OwnBarrier,
    OwnCount,
    SkipsACall,
    WritesBesidePads,
    WritesBesidePadsAndLeaves,
)
from tests.tools.planted.ends import Dies, Exits, Sleeps, WritesToNull
from tests.tools.planted.pools import (
    CollectsGarbage,
    DeregistersAlone,
    HandsOutTwice,
    KeepsEverything,
    KeepsTheCommunicator,
    LongWindow,
    NeverRegisters,
    RegistersLate,
    ReversedOrder,
)

__all__ = [
    "AddsInBfloat16",
    "AlwaysRegisters",
    "CollectsGarbage",
    "CrashesInKernel",
    "Dawdles",
    "DeregistersAlone",
    "Dies",
    "EveryGroup",
    "Exits",
    "FallsBackAlone",
    "FirstGroupOnly",
    "ForgetsToDeregister",
    "HandsOutTwice",
    "IgnoresNull",
    "KeepsATensor",
    "KeepsEverything",
    "KeepsTheCommunicator",
    "LeavesEarly",
    "LongWindow",
    "LosesASignal",
    "LosesLastPeer",
    "MissesTail",
    "NeverRegisters",
    "NoFirstBarrier",
    "NoLastBarrier",
    "OppositeOrder",
    "OutsideThePool",
    "Overruns",
    "OwnBarrier",
    "OwnCount",
    "RegistersAlone",
    "RegistersLate",
    "RemembersAddresses",
    "RemembersSegments",
    "ReversedOrder",
    "ShortWindow",
    "SkipsACall",
    "Sleeps",
    "Sound",
    "SoundKernels",
    "WritesBesidePads",
    "WritesBesidePadsAndLeaves",
    "WritesToNull",
]
