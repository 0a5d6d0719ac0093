"""A test harness for collectives over NCCL symmetric memory. See README.md and docs/decisions/.

What is listed here is imported when it is first asked for: pytest loads the plugin of this package in every run of an
environment that has it, and the process that ranks are forked from needs a part of it alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.errors import MachineError, PluginError, UsageError
    from harness.oracle.findings import Finding
    from harness.oracle.judge import is_vacuous, judge
    from harness.plugin.tested_world import TestedWorld
    from harness.scenario.scenario import Scenario
    from harness.scenario.system import System
    from harness.scenario.topology import Topology
    from harness.strategies.flows import flows
    from harness.strategies.programs import programs, scenarios
    from harness.strategies.schedules import scheduled
    from harness.strategies.topologies import layouts, topologies
    from harness.trace.draw import Draw
    from harness.world.world import World

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
    "scheduled",
    "topologies",
]

_HOMES = {
    "errors": ("MachineError", "PluginError", "UsageError"),
    "oracle.findings": ("Finding",),
    "oracle.judge": ("is_vacuous", "judge"),
    "plugin.tested_world": ("TestedWorld",),
    "scenario.scenario": ("Scenario",),
    "scenario.system": ("System",),
    "scenario.topology": ("Topology",),
    "strategies.flows": ("flows",),
    "strategies.programs": ("programs", "scenarios"),
    "strategies.schedules": ("scheduled",),
    "strategies.topologies": ("layouts", "topologies"),
    "trace.draw": ("Draw",),
    "world.world": ("World",),
}
"""The module that each name is defined in. None may bear a listed name itself, or it would hide it."""


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
