"""What a person sees: sums with their nouns, findings with their program, and every row of a table."""

from __future__ import annotations

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from harness.campaign.keeper import Found
from harness.campaign.tally import Tally
from harness.oracle.findings import Record
from harness.report import terminal
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.studies.agree.comparison import Agreement, Disagreement
from harness.studies.agree.facts import Difference, Where
from harness.studies.faults.catalogue import select
from harness.studies.faults.proof import Hunt, Outcome
from harness.studies.matrix import Cell
from tests.tools.clock import FakeClock

SCENARIO = Scenario(Topology("two", "sglang", {"tp": 2}), (Allocate("a", "tp", 8),))
LEAK = Found(Record("leak", "b[/b] is kept", 0, (0,)), SCENARIO, "kept/leak.json", 1, (4, 9), shrunk="smallest")


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def rows(console: Console) -> list[list[str]]:
    lines = [line for line in text(console).splitlines() if line.startswith("│")]
    return [[field.strip() for field in line.strip("│").split("│")] for line in lines]


def test_a_summary_of_one_of_each_is_singular(console: Console) -> None:
    tally = Tally(draws=1, collectives=1, windows=1, seconds=0.5, layouts={1}, groups={1}, found={"leak": LEAK})
    terminal.summary(console, tally)
    assert text(console).startswith(
        "1 draw in 0.5 s (2.0/s): 1 layout, 1 group, 1 collective, 1 window; 0 vacuous (0 %); 1 rule broken."
    )


def test_a_summary_of_several_is_plural(console: Console) -> None:
    counts = {"unseen": 2, "free": 1, "by_kernel": 3, "fell_back": 1}
    terminal.summary(console, Tally(draws=4, collectives=3, seconds=2.0, vacuous=1, **counts))
    assert " ".join(text(console).split()) == (
        "4 draws in 2.0 s (2.0/s): 0 layouts, 0 groups, 3 collectives, 0 windows; 1 vacuous (25 %); "
        "1 of 4 kernel calls fell back to the library; path unknown in 2 collectives; "
        "path left to NCCL in 1 collective; no finding."
    )


def test_a_summary_counts_what_the_plug_in_refused_and_says_that_it_made_no_call(console: Console) -> None:
    terminal.summary(console, Tally(draws=4, seconds=2.0, unsupported=3, fell_back=1))
    assert " ".join(text(console).split()).endswith(
        "1 of 4 kernel calls fell back to the library; 3 of 4 kernel calls not supported by the plug-in; "
        "no finding, and the plug-in made no call."
    )


def test_draws_that_tested_nothing_are_not_called_clean(console: Console) -> None:
    terminal.summary(console, Tally(draws=2, vacuous=2))
    assert text(console).rstrip().endswith("nothing was tested.")


@pytest.mark.parametrize(("settled", "shown"), [(1, "It ended 1 draw after"), (48, "It ended 48 draws after")])
def test_a_summary_says_that_a_finding_ended_the_campaign(console: Console, settled: int, shown: str) -> None:
    terminal.summary(console, Tally(draws=50, settled=settled))
    assert shown in text(console)


def test_a_finding_shows_its_explanation_program_and_replay(console: Console) -> None:
    terminal.summary(console, Tally(draws=1, found={"leak": LEAK}))
    shown = text(console)
    assert ["b[/b] is kept" in shown, "→  0 allocate buffer=a" in shown] == [True, True]
    assert "  found after 1 draw on 4 ranks in 9 steps, shrunk to 2 ranks and 1 step\n" in shown
    assert "  replay: symm replay kept/leak.json\n" in shown


def test_what_comes_from_files_and_ranks_is_shown_as_text(console: Console) -> None:
    topology = Topology("odd\x1b[2J", "explicit", families_given={"t\u202e[/tp]": ((0, 1),)}, note="\x9b31m[/x]")
    terminal.topology(console, topology)
    finding = Record("leak", "kept \x1b]0;title\x07", 0, (0,))
    found = msgspec.structs.replace(LEAK, finding=finding, seed_file="a[/b]\x1b.json")
    terminal.summary(console, Tally(draws=1, found={"leak": found}))
    shown = text(console)
    assert [char for char in "\x1b\x07\x9b\u202e" if char in shown] == []
    parts = ("odd\\x1b[2J", "t\\u202e[/tp]", "\\x9b31m[/x]", "\\x1b]0;title\\x07", "a[/b]\\x1b.json")
    assert [part for part in parts if part not in shown] == []


def test_a_finding_that_could_not_be_kept_says_so(console: Console) -> None:
    terminal.summary(console, Tally(draws=1, found={"leak": msgspec.structs.replace(LEAK, seed_file="")}))
    assert ("it could not be kept" in text(console), "replay" in text(console)) == (True, False)


def cell(pool: str, *found: Found) -> Cell:
    return Cell("two", "explicit", pool, "padded", 8, 1, True, found, 0)


def test_the_matrix_has_a_row_for_every_cell(console: Console) -> None:
    terminal.matrix(console, [cell("deferred"), cell("shared-at-exit", LEAK)])
    assert rows(console) == [
        ["explicit", "padded", "deferred", "clean in 7 draws"],
        ["explicit", "padded", "shared-at-exit", "leak after 1 draw: 2 ranks, 1 step"],
        ["", "", "", "leak.json"],
    ]


def test_the_table_of_faults_has_a_row_for_every_outcome(console: Console) -> None:
    first, second = select(["F17", "F02"])
    hunts = Hunt("leak", ("leak",), 3, 0.5, 2, 1, "kept/leak.json"), Hunt("", (), 9, 1.0, 0, 0, "")
    terminal.faults(console, [Outcome(first, hunts), Outcome(second, hunts[1:])], Tally(draws=1))
    assert rows(console) == [
        ["F17", "leak", "1 of 2", "leak", "3", "0.5", "2, 1"],
        ["F02", "cross-group-reuse", "0 of 1", "", "", "", ""],
    ]
    assert "Without a fault: 1 draw, no finding." in text(console)


def test_expected_findings_are_counted(console: Console) -> None:
    terminal.faults(console, [], Tally(draws=3, expected={"registration-skew": 1}))
    assert "  expected in 1 draw, of unequal sizes without agreement: registration-skew" in text(console)


SIDES = ("sim", "nccl")


def disagreement(count: int) -> Disagreement:
    differences = tuple(Difference(Where(0, rank, "path"), "symmetric", "legacy") for rank in range(count))
    return Disagreement("path", differences, SCENARIO, "kept/path.json", 1)


def test_a_disagreement_shows_both_sides_and_how_to_replay_each(console: Console) -> None:
    terminal.agreement(console, Agreement(draws=1, found={"path": disagreement(1)}), SIDES, SIDES)
    shown = text(console)
    assert "1 disagreement." in shown
    assert [f"symm replay kept/path.json --substrate {name}\n" in shown for name in ("sim", "nccl")] == [True, True]
    assert "step 0, rank 0, path" in shown
    assert "found after 1 draw, shrunk to 2 ranks and 1 step" in shown


def test_a_disagreement_of_two_scenarios_shows_how_to_replay_both(console: Console) -> None:
    found = msgspec.structs.replace(disagreement(1), second_file="kept/second.json")
    terminal.agreement(console, Agreement(found={"path": found}), ("drawn", "rewritten"), ("sim",))
    commands = [line.strip() for line in text(console).splitlines() if "symm replay" in line]
    assert commands == [f"replay: symm replay kept/{name}.json --substrate sim" for name in ("path", "second")]


def test_what_is_left_out_of_a_long_disagreement_is_counted(console: Console) -> None:
    found = Agreement(found={"path": disagreement(terminal.LONGEST + 2)})
    terminal.agreement(console, found, SIDES, SIDES)
    assert "and 2 more" in text(console)


def test_reasons_that_held_in_no_draw_are_left_out(console: Console) -> None:
    terminal.agreement(console, Agreement(accounted={"one": 1, "none": 0}), SIDES, SIDES)
    assert ("accounted for in 1 draw: one" in text(console), "none" in text(console)) == (True, False)


def test_without_a_terminal_each_finding_becomes_a_line_once(console: Console) -> None:
    with terminal.progress(console, 10) as update:
        for tally in (Tally(draws=1), Tally(draws=2, found={"leak": LEAK}), Tally(draws=3, found={"leak": LEAK})):
            update(tally)
    assert text(console) == "leak after 2 draws\n"


def test_without_a_terminal_each_thing_done_becomes_a_line_as_it_is(console: Console) -> None:
    with terminal.counting(console, "cells", 2) as advance:
        advance("a[/b]: clean")
        advance("c: leak")
    assert text(console) == "a[/b]: clean\nc: leak\n"


def test_a_topology_shows_its_groups_and_note(console: Console) -> None:
    note = "see [/x]"
    terminal.topology(console, Topology("p[/b]", "explicit", note=note, families_given={"tp": ((1, 0),)}))
    assert ["p[/b]: 2 ranks (explicit)" in text(console), rows(console), note in text(console)] == [
        True,
        [["tp", "2", "its own", "[1, 0]"]],
        True,
    ]


def test_a_topology_shows_whose_communicators_a_family_uses_and_every_width(console: Console) -> None:
    families = {"tp": ((0, 1), (2,)), "ep": ((0, 1), (2,)), "dp": ((0, 1), (2,))}
    terminal.topology(console, Topology("t", "explicit", families_given=families, shares={"ep": "tp"}))
    assert [row[:3] for row in rows(console)] == [
        ["tp", "1, 2", "its own"],
        ["ep", "1, 2", "those of tp"],
        ["dp", "1, 2", "its own"],
    ]


def test_the_list_of_topologies_has_a_row_for_each(console: Console) -> None:
    terminal.topologies(console, [Topology("one", "sglang", {"tp": 2}), Topology("two", "sglang", {"tp": 4})])
    assert rows(console) == [["one", "2", "1", "sglang tp=2"], ["two", "4", "1", "sglang tp=4"]]


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    assert terminal.sentence("a\n  b\x1b") == "a b\\x1b"
    long = terminal.sentence("x" * 5000 + "end")
    assert (len(long), long[:3], long[-3:]) == (terminal.SENTENCE + 3, "xxx", "end")


# a heartbeat where no terminal shows the bar


def beats(tallies: list[Tally], seconds: float, draws: int | None, minutes: float | None) -> list[str]:
    """The lines of a log, with so many seconds before each draw."""
    clock, console = FakeClock(), Console(file=StringIO(), width=80)
    with terminal.progress(console, draws, minutes=minutes, clock=clock.clock) as update:
        for tally in tallies:
            clock.advance(seconds)
            update(tally)
    return text(console).splitlines()


def test_without_a_terminal_a_line_a_minute_says_how_far_it_is() -> None:
    tallies = [Tally(draws=number, seconds=20.0 * number) for number in range(1, 8)]
    assert beats(tallies, 20, 300, None) == [
        "1:00: 3 draws, 0.1/s; no finding; 1:39:00 left",
        "2:00: 6 draws, 0.1/s; no finding; 1:38:00 left",
    ]


def test_the_time_that_is_left_is_that_of_the_minutes_asked_for() -> None:
    assert beats([Tally(draws=5, seconds=50.0)], 90, None, 10) == ["1:30: 5 draws, 0.1/s; no finding; 8:30 left"]


def test_a_run_without_an_end_says_nothing_of_the_time_that_is_left() -> None:
    assert beats([Tally(draws=5, seconds=50.0)], 60, None, None) == ["1:00: 5 draws, 0.1/s; no finding"]


def test_vacuous_draws_are_shown_by_reason_with_what_to_change() -> None:
    console = Console(file=StringIO(), width=80)
    terminal.summary(console, Tally(draws=9, vacuous=3, vacuous_by={"declined": 1, "groups of one rank": 2}))
    _, _, first, second = text(console).splitlines()
    assert (first[:30], second[:21]) == ("  2 vacuous, groups of one rank"[:30], "  1 vacuous, declined")
    assert "wants()" in second


def test_the_rest_of_a_long_step_goes_below_its_fields() -> None:
    eight = Topology("eight", "sglang", {"tp": 8})
    steps = (Allocate("a", "tp", tuple(range(100000, 100008))),)
    console = Console(file=StringIO(), width=80)
    terminal.finding(console, Record("leak", "it leaks", 0, (0,)), Scenario(eight, steps))
    *_, first, rest, _ = text(console).splitlines()
    assert first.startswith("│ →  0 allocate buffer=a family=tp ")
    assert rest.startswith("│        elements=100000,100001,")


@pytest.mark.parametrize("width", [76, 66])
def test_a_table_that_is_too_wide_has_no_frame_and_folds_words_and_no_number(width: int) -> None:
    console = Console(file=StringIO(), width=width)
    numbers, many = ["3409.28", "98 %", "–", "0.0577*"] * 2, ["words"] * 9
    terminal.table(console, ("size", *"abcdefgh", "what"), [["64K", *numbers, " ".join(many)]], "wide")
    lines = text(console).splitlines()
    assert lines[0].rstrip() == "wide"
    assert not {"│", "┃"} & {*text(console)}
    assert all(len(line) <= width for line in lines)
    (row,) = (line for line in lines if line.startswith("64K"))
    assert [part.strip() for part in row.split("  ") if part.strip()][:9] == ["64K", *numbers]
    assert text(console).split().count("words") == len(many)


def test_a_table_that_fits_has_a_frame(console: Console) -> None:
    terminal.table(console, ("size", "what"), [["64K", "words"]])
    assert rows(console) == [["64K", "words"]]


def test_a_table_whose_last_column_alone_is_too_wide_has_a_frame() -> None:
    console = Console(file=StringIO(), width=40)
    terminal.table(console, ("pool", "what"), [["deferred", "words " * 12]])
    first, *more = rows(console)
    assert first[0] == "deferred"
    assert len(more) > 1
    assert {row[0] for row in more} == {""}
