"""A world of one rank in this process, at the start of a draw."""

from __future__ import annotations

import pytest

from harness.scenario.layouts.groups import GroupId
from tests.tools.one_rank import Rank, memory, rank

__all__ = ["memory", "rank"]


@pytest.fixture
def alone(rank: Rank) -> Rank:
    """Its one communicator has number 0 and group (0,)."""
    rank.substrate.begin([(GroupId((0,)),)], [0], {GroupId((0,)): 0})
    return rank
