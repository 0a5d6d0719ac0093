"""A test harness for collectives over NCCL symmetric memory. See README.md and docs/decisions.md.

What is listed here is imported when it is first asked for: pytest loads the plugin of this package in every run of an
environment that has it, and the process that ranks are forked from needs a part of it alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.draw import Draw
    from harness.errors import MachineError, PluginError, UsageError
    from harness.findings import Finding
    from harness.oracle import is_vacuous, judge
    from harness.program import Scenario, System
    from harness.strategies.flows import flows
    from harness.strategies.programs import programs, scenarios
    from harness.strategies.topologies import layouts, topologies
    from harness.tested import TestedWorld
    from harness.topology import Topology
    from harness.world import World

__all__ = [
    "Draw",
    "Finding",
    "MachineError",
    "PluginError",
    "Scenario",
    "System",
    "TestedWorld",
    "Topology",
    "UsageError",
    "World",
    "flows",
    "is_vacuous",
    "judge",
    "layouts",
    "programs",
    "scenarios",
    "topologies",
]

_HOMES = {
    "draw": ("Draw",),
    "errors": ("MachineError", "PluginError", "UsageError"),
    "findings": ("Finding",),
    "oracle": ("is_vacuous", "judge"),
    "program": ("Scenario", "System"),
    "strategies.flows": ("flows",),
    "strategies.programs": ("programs", "scenarios"),
    "strategies.topologies": ("layouts", "topologies"),
    "tested": ("TestedWorld",),
    "topology": ("Topology",),
    "world": ("World",),
}
"""The module that each name is defined in. None may bear a listed name itself, or it would hide it."""


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
