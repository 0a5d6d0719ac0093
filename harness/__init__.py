"""A test harness for collectives over NCCL symmetric memory. See README.md and docs/decisions.md."""

from harness.draw import Draw
from harness.errors import MachineError, PluginError, UsageError
from harness.findings import Finding
from harness.oracle import is_vacuous, judge
from harness.program import Scenario, System
from harness.strategies import flows, layouts, programs, scenarios, topologies
from harness.topology import Topology
from harness.world import World

__all__ = [
    "Draw",
    "Finding",
    "MachineError",
    "PluginError",
    "Scenario",
    "System",
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
