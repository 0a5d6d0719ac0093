"""What a bench of collectives is asked for: sizes and numbers of ranks, and the errors that name what is wrong."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.studies.bench.asked import shown_size, sizes_of, worlds_of


def test_sizes_are_a_list_or_a_range_by_powers() -> None:
    assert sizes_of("1K,3K", "bfloat16") == [1024, 3072]
    assert sizes_of("1K:64K", "bfloat16") == [1024, 4096, 16384, 65536]
    assert sizes_of("1K:4K:2,1M", "bfloat16") == [1024, 2048, 4096, 1 << 20]


@pytest.mark.parametrize("text", ["", "1X", "0", "1K:", "4K:1K", "1K:4K:3", "8G", "³", "3", "1K:2K:2:2", "9" * 5000])
def test_a_wrong_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="sizes"):
        sizes_of(text, "bfloat16")


def test_sizes_are_shown_in_the_unit_in_which_they_are_whole() -> None:
    assert [shown_size(size) for size in (1000, 1024, 3 << 20, 1 << 30)] == ["1000", "1K", "3M", "1G"]


def test_one_number_of_ranks_or_several_are_asked_for_and_the_smallest_is_the_first() -> None:
    assert worlds_of("4") == [4]
    assert worlds_of("8, 2,16,4") == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("text", "offender"),
    [
        ("1", "'1' is no number of ranks from 2 to 16"),
        ("2,17", "'17' is no number of ranks from 2 to 16"),
        ("", "'' is no number"),
        ("2,,4", "'' is no number"),
        ("2,four", "'four' is no number"),
        ("2,-4", "'-4' is no number"),
        ("2,4.0", "'4.0' is no number"),
        ("³", "'³' is no number"),
        ("9" * 5000, "9' is no number"),
        ("4,2,4", "4 ranks are named twice"),
    ],
)
def test_a_wrong_number_of_ranks_is_named(text: str, offender: str) -> None:
    with pytest.raises(UsageError, match=r"^world '") as raised:
        worlds_of(text)
    assert offender in str(raised.value)
