"""A rank in a process of its own, behind the observer and a library under NCCL's name: programs that call NCCL as a
policy does, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tools.fake_libnccl import observed, python, run

RANK = """
import json
from harness.ipc.memory import SharedMemory
from harness.machine.observer.control import Observer
from harness.substrate.sim.substrate import SimSubstrate
from tests.tools.one_rank import Rank
from tests.tools.overheard import Heard, Waits

nccl, observer = Nccl(), Observer.find()
with observer.muted():
    comm = nccl.world()

class Ours(Waits):
    ptr = comm.value

shared = SharedMemory.create(1)
rank = Rank(SimSubstrate(0, shared), shared)
rank.substrate.start_recording(rank.events.append)
heard = Heard(rank, observer, Ours)
observer.listen(heard.overheard.hear)
said = []
def register(address):
    window = POINTER()
    said.append(nccl.call("CommWindowRegister", comm, address, SIZED, ctypes.byref(window), 1))
    return window
def allocate():
    address = POINTER()
    said.append(nccl.call("MemAlloc", ctypes.byref(address), SIZED))
    return address
SIZED = 2 << 20
"""
END = """
heard.overheard.raise_pending()
print(json.dumps([said, [type(event).__name__ for event in rank.events], heard.substrate.denial.is_due]))
"""


def ran(program: str, folder: Path, more: Mapping[str, str] | None = None) -> Any:
    """The results of the program's own calls, the names of the events, and whether a segment is still to be denied."""
    return json.loads(run(python(RANK + program + END), observed(folder, None, more)).splitlines()[-1])
