"""Hypothesis strategies: topologies, programs, flows and whole scenarios.

Invariant: everything random is drawn here, in the parent, and what is drawn can be executed.
Deleting a choice or lowering a number always leaves a scenario, so shrinking works towards small
worlds, few steps, small sizes and plain dtypes.
"""

from harness.strategies.batches import PATIENCE, batch, distinct, sample
from harness.strategies.common import common, is_common
from harness.strategies.flows import TOKENS, Tokens, applies, check_world, flows
from harness.strategies.placements import check_nodes, on_nodes
from harness.strategies.programs import HAZARDS, LARGE_COUNTS, WITH_GRAPHS, Via, programs, scenarios
from harness.strategies.topologies import layouts, topologies

__all__ = [
    "HAZARDS",
    "LARGE_COUNTS",
    "PATIENCE",
    "TOKENS",
    "WITH_GRAPHS",
    "Tokens",
    "Via",
    "applies",
    "batch",
    "check_nodes",
    "check_world",
    "common",
    "distinct",
    "flows",
    "is_common",
    "layouts",
    "on_nodes",
    "programs",
    "sample",
    "scenarios",
    "topologies",
]
