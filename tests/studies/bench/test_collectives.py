"""The bench of collectives: bytes, ratios, and what a row says of a contender that is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.studies.bench.collectives import (
    Measured,
    Row,
    bench_collectives,
    contenders,
    received,
    series,
)
from harness.world.world import World


def measured(*rows: Row) -> Measured:
    return Measured(2, "bfloat16", {"substrate": "nccl"}, "", [*rows])


def test_bandwidth_counts_what_a_rank_receives() -> None:
    assert received("all_gather", 10, 4) == received("reduce_scatter", 10, 4) == 30
    assert received("all_reduce", 10, 4) == 15


def test_times_are_compared_with_the_library_at_its_best() -> None:
    rows = [
        Row("all_gather", 1024, "nccl", seconds=(4.0, 4.0)),
        Row("all_gather", 1024, "nccl best", seconds=(1.0, 3.0)),
        Row("all_gather", 1024, "triton", seconds=(6.0, 6.0)),
        Row("all_gather", 4096, "nccl", seconds=(1e-9, 1e-9)),
    ]
    found = measured(*rows)
    assert [found.ratio(row) for row in rows] == [2.0, 1.0, 3.0, 1.0]
    assert [row.spread for row in rows] == [0.0, 1.0, 0.0, 0.0]
    assert found.bandwidth(rows[2]) == 1024 / 6


def test_a_wrong_contender_has_no_time_and_no_point() -> None:
    found = measured(Row("all_gather", 1024, "mine:Wrong", state="wrong", seconds=(1e-6,)))
    (row,) = found.rows
    assert (row.time, found.bandwidth(row), found.ratio(row), [*series(found, "all_gather")]) == (None,) * 3 + ([],)
    assert not found.is_right


def test_a_contender_that_refuses_is_not_wrong() -> None:
    assert measured(Row("all_reduce", 1024, "mine", state="refused", reason="no")).is_right


def test_copies_to_all_are_measured_where_there_is_more_than_one_peer() -> None:
    assert contenders("sim", 2, ["mine:It"]) == ["library", "torch", "mine:It", "copy"]
    assert contenders("nccl", 3, []) == ["nccl", "nccl best", "torch", "copy", "copy to all"]


class Ranks:
    """A world of two whose calls take a second each, and which is interrupted at call number `last`."""

    restarts, platform = 0, SimpleNamespace(name="sim", gpus=0)

    def __init__(self, last: int = 0, size: int = 2) -> None:
        self.calls, self._last, self.size = 0, last, size
        self.made: list[tuple[object, ...]] = []

    def call(self, function: str, *arguments: object) -> list[dict[str, Any]]:
        self.calls += 1
        self.made.append(arguments[:4])
        if self.calls == self._last:
            raise KeyboardInterrupt
        found = {"variant": "", "right": True, "eager": True, "blocks": None, "host": None}
        return [{"variants": [found | {"seconds": each}], "workspace": 0, "how": ""} for each in (1.0, 2.0)]


def test_what_was_measured_stays_when_it_is_interrupted_and_the_slowest_rank_counts() -> None:
    found, ranks = measured(), Ranks(last=6)
    with pytest.raises(KeyboardInterrupt):
        bench_collectives(cast(World, ranks), ["all_gather"], [1024], "bfloat16", ["triton"], found)
    assert [(row.contender, row.seconds) for row in found.rows] == [
        ("library", (2.0, 2.0)), ("torch", (2.0,)), ("triton", (2.0,)), ("copy", (2.0,)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "elements", "to_each"),
    [("all_gather", 3 * 512, 512), ("reduce_scatter", 3 * 512, 512), ("all_reduce", 3 * 256, 256)],
)
def test_copies_move_what_a_rank_receives_at_once_or_in_equal_parts(op: str, elements: int, to_each: int) -> None:
    ranks = Ranks(size=4)
    bench_collectives(cast(World, ranks), [op], [1024], "bfloat16", [], Measured(4, "bfloat16", {}))
    made = dict.fromkeys(ranks.made)
    assert [each for each in made if "copy" in str(each[0])] == [
        ("copy", "copy", "bfloat16", elements),
        ("copy to all", "copy to all", "bfloat16", to_each),
    ]
