"""Groups and communicators that engines' own code made, against what the conventions say of the same degrees.

`engine_tables.json` was made by running the released code that each table names, once for every rank. It lists the
communicators by their ranks, and for each family the numbers of its communicators. `refused` are degrees that the code
refused. Degrees that are left out were passed as 1, `etp` too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.scenario.layouts.conventions import build_families, shared_families
from harness.scenario.layouts.groups import Group, GroupId, LayoutError, number_groups

TABLES: dict[str, Any] = json.loads(Path(__file__).with_name("engine_tables.json").read_text())
LAYOUTS = [(name, row) for name, table in TABLES.items() for row in table["layouts"]]
REFUSED = [(name, degrees) for name, table in TABLES.items() for degrees in table["refused"]]
OURS_ALONE = {"sglang": {"dcp"}}
"""Families of width one that the engine does not make and that the convention has always had."""


def numbers(text: str) -> Iterator[int]:
    """`0..2 5` is 0, 1, 2, 5."""
    for span in text.split():
        first, _, last = span.partition("..")
        yield from range(int(first), int(last or first) + 1)


def made(row: Any) -> dict[str, dict[Group, int]]:
    """By family: the communicator of each group."""
    ranks = [tuple(map(int, each.split("-"))) for each in row["communicators"].split()]
    return {family: {ranks[number]: number for number in numbers(text)} for family, text in row["families"].items()}


def is_wide(groups: dict[Group, int]) -> bool:
    return any(len(group) > 1 for group in groups)


def test_every_convention_that_is_drawn_has_a_table_of_sixty_layouts() -> None:
    found = {name: len(table["layouts"]) for name, table in TABLES.items()}
    assert found == dict.fromkeys(("sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan"), 60)


@pytest.mark.parametrize(("convention", "row"), LAYOUTS, ids=lambda value: str(value)[:60])
def test_families_are_those_of_the_engine(convention: str, row: Any) -> None:
    ours = {name: sorted(groups) for name, groups in build_families(convention, row["degrees"]).items()}
    theirs = {name: sorted(groups) for name, groups in made(row).items()}
    for name in OURS_ALONE.get(convention, set()) - theirs.keys():
        assert all(len(group) == 1 for group in ours.pop(name))
    assert ours == theirs


@pytest.mark.parametrize(("convention", "row"), LAYOUTS, ids=lambda value: str(value)[:60])
def test_groups_share_a_communicator_where_they_do_in_the_engine(convention: str, row: Any) -> None:
    families, theirs = build_families(convention, row["degrees"]), made(row)
    pairs: set[tuple[GroupId, int]] = {
        (group, theirs[name][group.ranks])
        for name, ids in number_groups(families, shared_families(convention, row["degrees"])).items()
        for group in ids
        if name in theirs and len(group.ranks) > 1
    }
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({number for _, number in pairs})


def test_the_tables_have_groups_over_equal_ranks_that_share_and_others_that_do_not() -> None:
    shared = dict.fromkeys(TABLES, 0)
    apart = dict.fromkeys(TABLES, 0)
    for name, row in LAYOUTS:
        wide = [groups for groups in made(row).values() if is_wide(groups)]
        for number, groups in enumerate(wide):
            for others in wide[:number]:
                shared[name] += groups == others
                apart[name] += groups.keys() == others.keys() and groups != others
    assert [name for name, count in shared.items() if not count] == ["vllm"]
    assert [name for name, count in apart.items() if not count] == ["tensorrt-llm"]


@pytest.mark.parametrize(("convention", "degrees"), REFUSED, ids=lambda value: str(value)[:60])
def test_degrees_that_the_engine_refuses_are_refused(convention: str, degrees: Any) -> None:
    with pytest.raises(LayoutError, match=f"^{convention} order='{degrees['order']}': "):
        build_families(convention, degrees)
