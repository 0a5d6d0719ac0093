"""Facts of a draw as plain data, and where two draws cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness.oracle.case import Case
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, Step, Straggle
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.studies.agree import facts
from harness.studies.agree.facts import ANYWHERE, FACTS, Facts, Where, differences
from harness.trace.draw import Draw, Fate
from harness.trace.events import Event, Lost, Mismatch, Ran, Touched
from harness.trace.trace import TEARDOWN
from harness.world.world import World
from tests.tools.elsewhere import retold

PAIR = Topology("pair", "sglang", {"tp": 2})
QUAD = Topology("quad", "sglang", {"tp": 4, "attn_dp": 2})
GATHER: tuple[Step, ...] = (Allocate("a", "tp", 64), AllGather("tp", View("a", 3), 16))
CROSSED: tuple[Step, ...] = (Allocate("a", "tp", 64), Allocate("b", "attn_tp", 64), AllGather("attn_tp", View("b"), 16))


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    """Four ranks; smaller scenarios take the first ones."""
    with World(4, "sim", evidence=("digests",)) as world:
        yield world


def run(ranks: World, *steps: Step, topology: Topology = PAIR, pool: str = "per-group", seed: int = 0) -> Draw:
    return ranks.run(Scenario(topology, steps, System(pool), seed))


def at(found: Facts, step: int, rank: int, thing: str) -> str | None:
    return found[Where(step, rank, thing)]


# what each fact says


def test_ownership_names_the_owners_by_their_members(ranks: World) -> None:
    said = facts.ownership(Case(run(ranks, *CROSSED, topology=QUAD, pool="shared-at-alloc")))
    assert at(said, 2, 0, "output") == "[0, 1, 2, 3] whole"


def test_ownership_says_where_a_window_ends_too_early(ranks: World) -> None:
    gather = (Allocate("a", "tp", 4096), AllGather("tp", View("a"), 1024))
    said = facts.ownership(Case(run(ranks, *gather, pool="tests.tools.planted:ShortWindow")))
    assert at(said, 1, 0, "output") == "[0, 1] in part"


def test_memory_without_a_window_has_no_owner(ranks: World) -> None:
    said = facts.ownership(Case(run(ranks, *GATHER, pool="tests.tools.planted:NeverRegisters")))
    assert set(said.values()) == {"no group"}


def test_a_place_is_a_window_and_an_offset(ranks: World) -> None:
    said = facts.place(Case(run(ranks, *GATHER)))
    assert said == {Where(1, rank, "output"): "window 0 + 524 bytes" for rank in (0, 1)}


def test_the_place_of_a_declined_buffer_says_so(ranks: World) -> None:
    steps = (Allocate("a", "tp", 65), AllGather("tp", View("a", 3), 16))
    said = facts.place(Case(run(ranks, *steps, pool="tests.tools.planted.declines:DeclinesOddSizes")))
    assert said == {Where(1, rank, "output"): "declined by the policy" for rank in (0, 1)}


def test_registrations_are_told_apart_by_communicator_and_order(ranks: World) -> None:
    two = (*GATHER, Allocate("large", "tp", 1 << 20))
    said = facts.registrations(Case(run(ranks, *two)))
    assert {str(where): value for where, value in said.items() if where.rank == 0} == {
        "rank 0, [0, 1]#0 registration 0": "2097152 bytes",
        "rank 0, [0, 1]#0 registration 1": "20971520 bytes",
    }


def test_every_rank_holds_the_same_bytes_after_an_all_gather(ranks: World) -> None:
    said = facts.data(Case(run(ranks, *GATHER)))
    assert len(set(said.values())) == 1


def test_other_inputs_give_other_bytes(ranks: World) -> None:
    assert facts.data(Case(run(ranks, *GATHER))) != facts.data(Case(run(ranks, *GATHER, seed=1)))


def test_a_wrong_output_has_no_bytes_to_compare(ranks: World) -> None:
    def spoiled(event: Event) -> list[Event]:
        return [event, Mismatch("a", 1, 32, 0, 0, "1", "2")] if isinstance(event, Ran) else [event]

    said = facts.data(Case(retold(run(ranks, *GATHER), spoiled)))
    assert (at(said, 1, 0, "output"), at(said, 1, 1, "output") == "wrong") == ("wrong", False)


def test_a_finding_is_its_rule_and_where_it_shows(ranks: World) -> None:
    said = facts.findings(Case(run(ranks, *CROSSED, topology=QUAD, pool="shared-at-alloc")))
    assert said == {Where(2, ANYWHERE, "wrong-owner"): "ranks 0–3"}


@pytest.mark.parametrize(
    "change",
    [
        Touched("call", "a", 0, 0, 1, 1, "00", "01"),
        Lost("a", 1, 64, 0, "0", "1", 1, "output", 1, "between", 0),
    ],
    ids=["out-of-bounds", "result-overwritten"],
)
@pytest.mark.parametrize("seed", [0, 1], ids=["watched", "not watched"])
def test_a_change_of_memory_is_compared_where_both_substrates_look(ranks: World, seed: int, change: Event) -> None:
    def spoiled(event: Event) -> list[Event]:
        return [event, change] if isinstance(event, Ran) else [event]

    draw = retold(run(ranks, *GATHER), spoiled)
    draw = msgspec.structs.replace(draw, scenario=msgspec.structs.replace(draw.scenario, seed=seed))
    assert set(facts.findings(Case(draw)).values()) == {None if seed else "rank 0"}


def test_who_was_refused_memory_is_said_with_the_step(ranks: World) -> None:
    said = facts.exhausted(Case(run(ranks, Deny(1), *GATHER, pool="deferred")))
    assert said == {Where(1, rank, "a"): "refused" for rank in (0, 1)}


def test_the_end_has_a_name() -> None:
    assert str(Where(TEARDOWN, ANYWHERE, "leak")) == "the end, leak"


# two draws


@pytest.mark.parametrize("how", [{"path": "unknown"}, {"path": "legacy", "is_free": True}], ids=["unknown", "free"])
def test_a_path_that_nothing_shows_or_nccl_chose_is_compared_with_nothing(ranks: World, how: dict[str, object]) -> None:
    def untold(event: Event) -> list[Event]:
        return [msgspec.structs.replace(event, **how) if isinstance(event, Ran) else event]

    draw = run(ranks, *GATHER)
    partly, cases = retold(draw, untold), Case(draw)
    assert differences("path", cases, Case(partly)) == ()
    everywhere = msgspec.structs.replace(
        partly, traces=tuple(msgspec.structs.replace(partly.traces[0], rank=rank) for rank in (0, 1))
    )
    assert differences("path", cases, Case(everywhere)) is None


@pytest.fixture(scope="module")
def stuck(ranks: World) -> Case:
    """One rank is refused memory and the other waits for it."""
    return Case(run(ranks, Deny(1), *GATHER))


def test_draws_that_ended_early_are_compared_in_their_findings_alone(stuck: Case) -> None:
    assert [fact for fact in FACTS if differences(fact, stuck, stuck) is not None] == ["findings"]


def test_a_hang_on_one_side_is_a_difference(stuck: Case, ranks: World) -> None:
    found = differences("findings", Case(run(ranks, *GATHER)), stuck)
    assert found is not None
    assert "hang" in {each.where.thing for each in found}


def test_where_ranks_stood_when_a_draw_ended_early_is_not_compared(stuck: Case, ranks: World) -> None:
    later = Case(run(ranks, Straggle(0, 1), Deny(1), *GATHER))
    assert differences("findings", stuck, later) == ()


# a plug-in that raises

RAISES = "tests.tools.planted.raises:"


def test_what_raises_on_both_sides_is_no_difference_however_many_ranks_still_did(ranks: World) -> None:
    draw = run(ranks, *GATHER, pool=f"{RAISES}NoRoomToBuild")
    fewer = msgspec.structs.replace(draw, fates=(draw.fates[0], Fate(1, "stopped")))
    assert differences("findings", Case(draw), Case(fewer)) == ()


def test_what_raises_on_one_side_differs_by_its_class_and_place(ranks: World) -> None:
    raised, clean = (Case(run(ranks, *GATHER, pool=pool)) for pool in (f"{RAISES}NoRoomToBuild", "per-group"))
    ((where, here, there),) = differences("findings", raised, clean) or ()
    assert where.thing.startswith("raised OutOfMemoryError in __init__ (raises.py:")
    assert (here, there) == (facts.SOMEWHERE, facts.NOTHING)
