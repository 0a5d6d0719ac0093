"""An account names the finding, in words that need no knowledge of the harness, and marks the groups that matter."""

from __future__ import annotations

import msgspec
import pytest

from harness.campaign import seeds
from harness.campaign.seeds import SCHEMA, Seed
from harness.oracle.findings import Record
from harness.report.pages import telling
from harness.report.pages.account import NOT_RUN, Account, Cell, Member, Outcome
from harness.trace.trace import TEARDOWN
from harness.world.world import World
from tests.report.pages.conftest import GATHER, Accounts, seed

HEADLINES = {
    "wrong-owner": "The all_gather on moe_ep[0,2] uses memory that was registered with tp[0,1,2,3] and not with "
    "moe_ep[0,2].",
    "offset-mismatch": "The all_gather on tp[0,1] finds 'b' at another offset of the window on each rank: byte 512 on "
    "rank 0, byte 1,024 on rank 1.",
    "wrong-data": "The all_gather on tp[0,1] returned wrong data on both its ranks.",
    "registration-skew": "The ranks of tp[0,1] entered different numbers of registrations: rank 0: 2, rank 1: 1.",
}

FURTHER = ("double-registration", "twice", 1), ("leak", "left", TEARDOWN), ("double-registration", "again", 1)


@pytest.mark.parametrize("rule", HEADLINES)
def test_the_verdict_names_call_memory_and_groups(accounts: Accounts, rule: str) -> None:
    verdict = accounts[rule].verdict
    assert (verdict.rule, verdict.headline) == (rule, HEADLINES[rule])


def test_wrong_data_begins_with_the_first_difference(accounts: Accounts) -> None:
    found, (first, *_) = accounts["wrong-data"].verdict, accounts["wrong-data"].outputs
    where = f"First difference: rank 0, output 'b', element {first.index}: "
    assert found.why.startswith(f"{where}expected {first.expected}, found {first.found}.")


def test_every_rank_and_step_that_a_finding_shows_on_is_marked(accounts: Accounts) -> None:
    found = accounts["wrong-data"]
    assert [[cell.state for cell in lane.cells] for lane in found.lanes] == [["done", "fails"]] * 2
    assert [line.shows for line in found.program] == ["", "the finding shows here"]


@pytest.fixture(scope="module")
def left(simulation: World) -> Account:
    """Of a pool that frees a segment under its window, which is left at the end."""
    made = seed(*GATHER, pool="ForgetsToDeregister")
    return telling.of_draw("a.json", made, simulation.run(made.scenario), "a run")


def test_a_finding_at_the_end_is_marked_there(left: Account) -> None:
    assert left.verdict.rule == "freed-while-registered"
    assert [line.shows for line in left.program] == ["", ""]
    assert left.shows_at_end == "the finding shows here"
    assert [lane.fate for lane in left.lanes] == ["✗ ran to the end; the finding shows here"] * 2


def test_another_rule_of_the_same_run_is_said_in_a_sentence(left: Account) -> None:
    ((rule, sentence),) = left.verdict.also
    assert rule == "leak"
    assert sentence.startswith("Rank 0: after the last buffer was released and the pool closed, there is still window")


def test_the_verdict_says_how_the_buffer_came_there(accounts: Accounts) -> None:
    why = accounts["wrong-owner"].verdict.why
    assert "At step 1 (allocate) the pool put 'b1' into the same segment." in why
    assert "Segment 2 was registered with tp[0,1,2,3] at step 0 (allocate)." in why


def test_calling_and_owning_groups_are_marked(accounts: Accounts) -> None:
    members = [member for family in accounts["wrong-owner"].families for member in family.members]
    assert members == [
        Member("tp[0,1,2,3]", (0, 1, 2, 3), owns=True),
        Member("moe_ep[0,2]", (0, 2), calls=True),
        Member("moe_ep[1,3]", (1, 3)),
    ]


def test_a_step_shows_what_became_of_it_on_each_rank(accounts: Accounts) -> None:
    lanes = accounts["registration-skew"].lanes
    assert [[cell.state for cell in lane.cells] for lane in lanes] == [["done", "waits"], ["done", "fails"]]
    assert lanes[0].cells[1] == Cell(1, "waits", "never came out of register")


def test_a_hang_has_a_rank_that_is_waited_for_and_waits_for_no_one(accounts: Accounts) -> None:
    waits = accounts["registration-skew"].waits
    assert [(wait.ranks, wait.awaited) for wait in waits] == [((0,), (1,)), ((1,), ())]


def test_registrations_are_shown_in_order_and_the_one_that_waits_is_known(accounts: Accounts) -> None:
    (turns,) = accounts["registration-skew"].turns
    assert {rank: [turn.is_made for turn in made] for rank, made in turns.ranks.items()} == {
        0: [True, False],
        1: [True],
    }


def test_wrong_chunks_are_those_of_the_elements_that_differ(accounts: Accounts) -> None:
    first = accounts["wrong-data"].outputs[0]
    assert (first.chunks[0].sender, first.chunks[0].state) == ("from rank 0", "right")
    wrong = [chunk for chunk in first.chunks if chunk.state == "wrong"]
    assert wrong[0].start == first.index
    assert "not written" in first.origin


def test_a_seed_that_is_not_run_shows_its_file() -> None:
    found = telling.of_file("a.json", seeds.find("wrong-owner-found-on-sim"), "no ranks here")
    assert (found.not_run, found.lanes, found.memory) == ("no ranks here", (), None)
    assert found.verdict.argument.startswith("step 2 (all_gather) on moe_ep[0,2]")
    assert found.program[2].is_marked


def test_further_findings_of_a_file_are_marked_where_they_show() -> None:
    kept = seeds.find("wrong-owner-found-on-sim")
    more = [Record(rule, why, step, (0,)) for rule, why, step in FURTHER]
    found = telling.of_file("a.json", msgspec.structs.replace(kept, findings=(*kept.findings, *more)))
    assert (found.program[1].shows, found.shows_at_end) == ("double-registration shows here", "leak shows here")
    assert found.verdict.also == (("double-registration", "Twice."), ("leak", "Left."))


def test_a_run_without_a_finding_says_so_and_keeps_that_of_the_file(simulation: World) -> None:
    kept = seeds.find("wrong-owner-found-on-sim")
    sound = seed(*GATHER)
    draw = simulation.run(sound.scenario)
    found = telling.of_draw("a.json", Seed(SCHEMA, sound.scenario, kept.findings, {}), draw, "a run")
    assert "broke no rule" in found.not_run
    assert found.verdict.rule == "wrong-owner"


def test_an_account_is_plain_data(accounts: Accounts) -> None:
    for each in accounts.values():
        assert msgspec.json.decode(msgspec.json.encode(each), type=Account) == each


def test_a_finding_of_ranks_and_steps_that_are_not_there_is_shown_without_them(simulation: World) -> None:
    sound = seed(*GATHER)
    wrong = Record("hang", "they wait", 99, (0, 7))
    draw = simulation.run(sound.scenario)
    found = telling.of_draw("a.json", Seed(SCHEMA, sound.scenario, (wrong,), {}), draw, "a run")
    assert (found.verdict.rule, found.step) == ("hang", -1)


def test_a_system_that_refused_the_seed_makes_no_difference() -> None:
    own, refused = Outcome("pool mine", ("hang",), is_own=True), Outcome("pool other", NOT_RUN)
    assert telling.contrast((own, refused)) == ""
    assert "fails alike" in telling.contrast((own, refused, Outcome("pool third", ("hang",))))
