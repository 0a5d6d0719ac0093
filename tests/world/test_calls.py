"""A call of every rank: its results in rank order, or the first thing that went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import MachineError
from harness.ipc.messages import Done, Failed, Returned
from harness.world.calls import returned
from tests.world.test_watch import PlayedRank


def played(*replies: Any) -> Any:
    ranks = [PlayedRank(number) for number in range(len(replies))]
    for rank, reply in zip(ranks, replies, strict=True):
        rank.answer(reply)
    return ranks


def test_results_come_in_the_order_of_ranks() -> None:
    assert returned(played(Returned("a"), Returned("b")), "f") == ["a", "b"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [(Failed("KeyError", ""), "f failed on rank 1: KeyError"), (Done(), "rank 1 answered a call of f")],
)
def test_any_other_reply_is_the_machines_error(reply: Any, said: str) -> None:
    with pytest.raises(MachineError, match=said):
        returned(played(Returned("a"), reply), "f")


def test_a_rank_that_closes_its_connection_has_died() -> None:
    ranks = played(Returned("a"))
    ranks[0].receive()
    ranks[0].die()
    with pytest.raises(MachineError, match="rank 0 died in f: printed by 0"):
        returned(ranks, "f")
