"""The bench of collectives: sizes, bytes, ratios, and what a row says of a contender that is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import UsageError
from harness.studies.bench.collectives import (
    Measured,
    Row,
    bench_collectives,
    received,
    series,
    shown_size,
    sizes_of,
)
from harness.world.world import World


def measured(*rows: Row) -> Measured:
    return Measured(2, "bfloat16", {"substrate": "nccl"}, "", [*rows])


def test_sizes_are_a_list_or_a_range_by_powers() -> None:
    assert sizes_of("1K,3K", "bfloat16") == [1024, 3072]
    assert sizes_of("1K:64K", "bfloat16") == [1024, 4096, 16384, 65536]
    assert sizes_of("1K:4K:2,1M", "bfloat16") == [1024, 2048, 4096, 1 << 20]


@pytest.mark.parametrize("text", ["", "1X", "0", "1K:", "4K:1K", "1K:4K:3", "8G", "³", "3", "1K:2K:2:2"])
def test_a_wrong_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="sizes"):
        sizes_of(text, "bfloat16")


def test_sizes_are_shown_in_the_unit_in_which_they_are_whole() -> None:
    assert [shown_size(size) for size in (1000, 1024, 3 << 20, 1 << 30)] == ["1000", "1K", "3M", "1G"]


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


class Ranks:
    """A world of two whose calls take a second each, and which is interrupted at call number `last`."""

    size, restarts, platform = 2, 0, SimpleNamespace(name="sim", gpus=0)

    def __init__(self, last: int) -> None:
        self.calls, self._last = 0, last

    def call(self, function: str, *arguments: object) -> list[dict[str, Any]]:
        self.calls += 1
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
