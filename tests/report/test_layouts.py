"""What is said of a layout: laws, disagreements and differences, to a person and to a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from harness.report import layouts
from harness.scenario.dumps.dump import Dump
from harness.scenario.dumps.reading import Entry
from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.topology import Topology

TP: Groups = ((0, 1), (2, 3))
DP: Groups = ((0, 2), (1, 3))


def explicit(families: Mapping[str, Groups], name: str = "mine") -> Topology:
    return Topology(name, "explicit", families_given=dict(families))


def said(seen: layouts.Seen) -> list[str]:
    return [*layouts.lines(seen)]


def of(*entries: Entry) -> Dump:
    return Dump(("dump",), entries)


def entry(family: str, ranks: Group, speaker: int | None = None, process_group: str = "") -> Entry:
    return Entry(family, ranks, "dump", speaker, True, family, process_group)


RIGHT = explicit({"tp": TP, "dp": DP}, "right")
SWAPPED = layouts.look(explicit({"tp": DP, "dp": TP}), RIGHT)


def test_a_right_layout_has_nothing_to_say() -> None:
    seen = layouts.look(RIGHT)
    assert (said(seen), seen.is_finding) == ([], False)


def test_agreement_names_what_was_compared_and_what_was_not() -> None:
    seen = layouts.look(of(entry("tp", (0, 1)), entry("hello", (0, 2))), RIGHT)
    assert said(seen) == [
        "agrees with right in tp",
        "note: hello is no family of right; its groups are those of dp there",
        "note: not shown, so not compared: dp",
    ]
    assert not seen.is_finding


def test_swapped_families_are_one_line() -> None:
    assert said(SWAPPED) == [
        "dp and tp are swapped: dp has the groups of tp, and tp those of dp; first rank 0: "
        "dp [0, 1], and right has [0, 2]; tp [0, 2], and right has [0, 1]"
    ]
    assert SWAPPED.is_finding


SAID: dict[str, tuple[Dump | Topology, str]] = {
    "other groups": (
        of(entry("tp", (0, 3))),
        "tp: the groups differ, first at rank 0: tp [0, 3], and right has [0, 1]; 2 ranks in all",
    ),
    "groups of another family": (
        of(entry("tp", (0, 2))),
        "tp: the groups differ, first at rank 0: tp [0, 2], and right has [0, 1]; 2 ranks in all. "
        "right has these groups in dp",
    ),
    "another order": (
        of(entry("tp", (1, 0))),
        "tp: the order of ranks differs: rank 0 is at place 1, and at place 0 in right; "
        "tp [1, 0], and right has [0, 1]; 2 ranks in all",
    ),
    "a missing group": (explicit({"tp": TP[:1], "dp": DP}), "tp: rank 2 lacks [2, 3], which right has; 2 ranks in all"),
    "another world": (
        of(entry("world", (0, 1)), entry("tp", (0, 1))),
        "the number of ranks differs: 2, and right has 4",
    ),
    "a rank too many": (
        of(entry("tp", (4,))),
        "tp: the groups differ, first at rank 4: tp [4], and right has no group of tp",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_a_difference_names_the_family_the_first_rank_and_how(name: str) -> None:
    shown, line = SAID[name]
    seen = layouts.look(shown, RIGHT)
    assert line in said(seen)
    assert seen.is_finding


DISAGREE = {
    "tp: rank 3 says [2, 3], and rank 2 says [2, 4]": (entry("tp", (2, 3), 3), entry("tp", (2, 4), 2)),
    "tp: rank 3 says [2, 3], and rank 2 shows no tp group": (entry("tp", (2, 3), 3), entry("dp", (2, 4), 2)),
    "tp: rank 3 says that its tp group is [0, 1], and is not in it": (entry("tp", (0, 1), 3),),
    "dp: rank 0 says that process group '3' is [0, 2], and rank 1 that it is [1, 3]": (
        entry("dp", (0, 2), 0, "3"),
        entry("dp", (1, 3), 1, "3"),
    ),
}


@pytest.mark.parametrize("line", DISAGREE)
def test_ranks_that_contradict_one_another_are_a_finding(line: str) -> None:
    seen = layouts.look(of(*DISAGREE[line]))
    assert said(seen)[0] == line
    assert seen.is_finding


def test_a_broken_law_is_said_with_both_groups_and_its_reason() -> None:
    law, reason = said(layouts.look(explicit({"tp": TP, "ulysses": TP})))
    assert law == (
        "law one-rank-in-common: groups of tp and ulysses have 2 ranks in common; first rank 0: [0, 1] and [0, 1]"
    )
    assert reason.startswith("  reason: two axes")


def test_a_law_that_the_other_layout_breaks_alike_is_said_and_is_no_difference() -> None:
    wrong = explicit({"tp": TP, "ulysses": TP})
    assert layouts.look(wrong).is_finding
    assert not layouts.look(wrong, wrong).is_finding
    assert layouts.look(wrong, explicit({"tp": TP, "dp": DP})).is_finding


def test_a_long_group_is_cut_in_a_sentence() -> None:
    shown, other = tuple(range(40)), tuple(range(40, 80))
    (line, *_) = said(layouts.look(of(entry("tp", (*shown, 99))), explicit({"tp": (shown, other)})))
    assert len(line) < 400
    differs = next(each for each in said(layouts.look(of(entry("tp", shown)), explicit({"tp": (other, shown[::-1])}))))
    assert "14, … 39] (40 ranks)" in differs


def test_what_a_dump_holds_beside_groups_is_said() -> None:
    dump = Dump(("dump",), (entry("tp", (0, 1)),), other_lines=1, left_out=2)
    assert said(layouts.look(dump)) == [
        "note: 1 line of other text passed over",
        "note: 2 groups without NCCL left out",
    ]


def test_a_program_gets_the_same_facts() -> None:
    found = json.loads(msgspec.json.encode(layouts.as_data(SWAPPED)))
    assert found["against"]["swapped"] == [["dp", "tp"]]
    assert found["against"]["differences"][0] == {
        "family": "tp",
        "kind": "groups",
        "rank": 0,
        "shown": [0, 2],
        "expected": [0, 1],
        "ranks": 4,
        "like": "dp",
    }
    assert (found["against"]["agrees"], found["laws"], found["families"]["tp"]) == (False, [], [[0, 2], [1, 3]])


def test_a_program_gets_who_showed_the_groups_and_which_ranks_disagree() -> None:
    found = json.loads(
        msgspec.json.encode(layouts.as_data(layouts.look(of(entry("tp", (2, 3), 3), entry("tp", (2, 4), 2)))))
    )
    assert (found["shown_by"], found["files"], found["world"]) == ([2, 3], ["dump"], 5)
    assert found["disagreements"][0]["theirs"] == [[2, 4]]


def test_text_of_a_dump_commands_no_terminal() -> None:
    console = Console(file=StringIO(), width=200)
    evil = "\x1b]0;owned\x07[red]"
    dump = Dump(
        (evil,), (Entry(evil, (0, 1), evil, 0, True, evil, evil), Entry(evil, (0, 2), evil, 1, True, evil, evil))
    )
    layouts.show(console, layouts.look(dump, explicit({evil: ((0, 1),), "tp": TP}, evil)))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert not {"\x1b", "\x07"} & {*shown}
    assert shown.count("[red]") >= 4


@pytest.mark.parametrize("convention", ["megatron", "megatron-core"])
def test_the_old_convention_of_megatron_is_said_to_be_old(convention: str) -> None:
    shown = said(layouts.look(Topology("mine", convention, {"tp": 2, "ep": 2, "dp": 2})))
    assert any("megatron-core has Megatron's own groups" in line for line in shown) == (convention == "megatron")
