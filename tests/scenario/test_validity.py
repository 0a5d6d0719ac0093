"""Validity: every program that cannot run is refused with its step and the reason, and its valid neighbour is not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.scenario.bases import CollectiveStep
from harness.scenario.operands import GUARD, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Deny,
    ProgramError,
    Recreate,
    ReduceScatter,
    Refuse,
    Release,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology
from harness.scenario.validity import MAX_BYTES, MAX_STRAGGLE_MS
from harness.strategies.programs import HAZARDS, scenarios
from tests.tools.refusals import QUAD, accepted, refusal

Steps = tuple[Step, ...]
MIXED = Topology(
    name="mixed", convention="explicit", families_given={"odd": ((0, 1, 2), (3,)), "even": ((0, 1), (2, 3))}
)
A = View("a")
WINDOW = Allocate("a", "tp", 64)
PLAIN = Allocate("p", "tp", 64, role="plain")
LARGEST = MAX_BYTES // 4 - GUARD


def reduce(**fields: object) -> ReduceScatter:
    return ReduceScatter(**{"family": "tp", "source": A, "count": 4, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step",
    [
        Allocate("a", "ep", 64),
        AllGather("ep", A, 4),
        reduce(family="ep"),
        Ballast("b", "ep", 0, 512),
        Recreate("ep"),
    ],
    ids=lambda step: step.kind,
)
def test_unknown_family_is_refused_with_the_known_ones(step: Step) -> None:
    assert refusal(step, topology=MIXED) == "family 'ep' is not one of odd, even"


@pytest.mark.parametrize("rank", [-1, 4])
@pytest.mark.parametrize("kind", ["ballast", "straggle", "deny", "refuse"])
def test_rank_outside_the_world_is_refused(kind: str, rank: int) -> None:
    steps = Ballast("b", "tp", rank, 512), Straggle(rank, 1), Deny(rank), Refuse(rank)
    step = next(step for step in steps if step.kind == kind)
    assert refusal(step) == f"rank {rank} is not in a world of 4"


@pytest.mark.parametrize("rank", [0, 3])
def test_first_and_last_rank_are_in_the_world(rank: int) -> None:
    assert accepted(Ballast("b", "tp", rank, 512), Straggle(rank, 1), Deny(rank), Refuse(rank))


@pytest.mark.parametrize("milliseconds", [-1, MAX_STRAGGLE_MS + 1])
def test_pause_out_of_bounds_is_refused(milliseconds: int) -> None:
    assert refusal(Straggle(0, milliseconds)) == f"{milliseconds} ms is not between 0 and {MAX_STRAGGLE_MS}"


@pytest.mark.parametrize("milliseconds", [0, MAX_STRAGGLE_MS])
def test_pause_at_its_bounds_is_accepted(milliseconds: int) -> None:
    assert accepted(Straggle(0, milliseconds))


@pytest.mark.parametrize(
    "step",
    [
        Release("x"),
        AllGather("tp", View("x"), 4),
        AllGather("tp", A, 4, View("x")),
        reduce(source=View("x")),
        reduce(output=View("x")),
    ],
    ids=["release", "output", "source", "reduced source", "reduced output"],
)
def test_buffer_that_was_never_allocated_is_refused_by_name(step: Step) -> None:
    assert refusal(WINDOW, step) == "buffer 'x' was never allocated"


@pytest.mark.parametrize(
    "step",
    [Release("p"), AllGather("tp", A, 4, View("p")), reduce(output=View("p")), reduce(source=View("p"))],
    ids=["release", "source", "reduced output", "reduced source"],
)
def test_released_buffer_is_refused_by_name(step: Step) -> None:
    assert refusal(WINDOW, PLAIN, Release("p"), step) == "buffer 'p' was released"


@pytest.mark.parametrize("between", [(), (Release("a"),)], ids=["alive", "released"])
@pytest.mark.parametrize("step", [WINDOW, Ballast("a", "tp", 0, 512)], ids=lambda step: step.kind)
def test_name_of_an_earlier_buffer_is_refused(step: Step, between: Steps) -> None:
    assert refusal(WINDOW, *between, step) == "buffer 'a' was allocated before"


@pytest.mark.parametrize("elements", [-5, (8, 8, -5, 8)])
def test_buffer_of_fewer_than_no_elements_is_refused_with_the_rank(elements: int | tuple[int, ...]) -> None:
    rank = 2 if isinstance(elements, tuple) else 0
    assert refusal(Allocate("a", "tp", elements)) == f"elements -5 on rank {rank} is negative"


@pytest.mark.parametrize("elements", [LARGEST + 1, (8, 8, LARGEST + 1, 8)])
def test_buffer_above_the_limit_is_refused_with_its_bytes(elements: int | tuple[int, ...]) -> None:
    sentence = f"buffer 'a' of {MAX_BYTES + 4} bytes is not between 1 and {MAX_BYTES}"
    assert refusal(Allocate("a", "tp", elements)) == sentence


@pytest.mark.parametrize("size", [0, -1, MAX_BYTES + 1])
def test_ballast_out_of_bounds_is_refused_with_its_bytes(size: int) -> None:
    assert refusal(Ballast("b", "tp", 0, size)) == f"buffer 'b' of {size} bytes is not between 1 and {MAX_BYTES}"


@pytest.mark.parametrize("step", [Allocate("a", "tp", LARGEST), Ballast("a", "tp", 0, MAX_BYTES)])
def test_buffer_at_the_limit_is_accepted(step: Step) -> None:
    assert accepted(step)


@pytest.mark.parametrize("length", [0, 3, 5])
def test_counts_for_another_number_of_ranks_are_refused(length: int) -> None:
    assert refusal(Allocate("a", "tp", (8,) * length)) == f"elements lists {length} ranks in a world of 4"
    assert refusal(WINDOW, AllGather("tp", A, (8,) * length)) == f"count lists {length} ranks in a world of 4"


def test_a_global_buffer_of_different_sizes_in_a_group_is_refused() -> None:
    reason = refusal(Allocate("a", "attn_tp", (4, 4, 4, 5), site="global"))
    assert reason == "ranks of attn_tp[2, 3] differ in elements of a global buffer"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Allocate("a", "tp", 8, registered=(("nobody",),)), "family 'nobody' is not one of "),
        (
            Allocate("a", "tp", 8, registered=((), ())),
            "registered has 2 lists, and needs one, or one for each of 4 ranks",
        ),
        (
            Allocate("a", "tp", 8, role="plain", registered=((),)),
            "registered goes with role window and site local alone",
        ),
        (Allocate("a", "tp", 8, lead=4), "lead goes with registered and with nothing else"),
    ],
    ids=["family", "lists", "role", "lead"],
)
def test_registrations_that_no_rank_can_make_are_refused(step: Step, reason: str) -> None:
    assert refusal(step).startswith(reason)


def test_first_of_several_offenders_is_named() -> None:
    with pytest.raises(ProgramError, match=r"^step 1 \(straggle\): rank 9 "):
        Scenario(QUAD, (Trim(), Straggle(9, 1), Deny(9)))


@pytest.mark.parametrize(
    "steps",
    [
        (Allocate("a", "tp", 64, "float4"),),  # type: ignore[arg-type]
        (Allocate("a", "tp", 64, role="pinned"),),  # type: ignore[arg-type]
        (WINDOW, reduce(op="xor")),
        (WINDOW, reduce(via="nvls")),
        (WINDOW, AllGather("tp", A, 1.5)),  # type: ignore[arg-type]
    ],
    ids=["dtype", "role", "op", "via", "count"],
)
def test_value_that_no_field_knows_is_refused_with_its_step(steps: Steps) -> None:
    with pytest.raises(ProgramError, match=rf"^step {len(steps) - 1} \({steps[-1].kind}\): "):
        Scenario(QUAD, steps)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=scenarios(world=8, hazards=HAZARDS), data=st.data())
def test_program_without_one_of_its_allocations_is_refused_where_it_is_first_missed(
    drawn: Scenario, data: st.DataObject
) -> None:
    allocations = [step for step in drawn.steps if isinstance(step, Allocate)]
    missing = data.draw(st.sampled_from(allocations))
    rest = tuple(step for step in drawn.steps if step is not missing)
    users = [index for index, step in enumerate(rest) if missing.buffer in buffers(step)]
    assume(users)
    with pytest.raises(
        ProgramError, match=rf"^step {users[0]} \(\w+\): buffer '{missing.buffer}' was never allocated$"
    ):
        Scenario(drawn.topology, rest)


def buffers(step: Step) -> set[str]:
    """Names of the buffers that a step uses."""
    match step:
        case Release():
            return {step.buffer}
        case CollectiveStep():
            return {view.buffer for view in (step.source, step.output) if view is not None}
    return set()


# groups that act

RING = Topology("ring", "explicit", families_given={"next": ((0, 1), (1, 2), (2, 3), (3, 0)), "ends": ((0, 3),)})
HERE, THERE = ((0, 1), (2, 3)), ((1, 2),)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Allocate("a", "next", 8), "rank 0 is in [0, 1] and [3, 0] of next; name groups that share no rank"),
        (Allocate("a", "next", 8, groups=((0, 2),)), "[0, 2] is no group of next"),
        (Allocate("a", "next", 8, groups=()), "no group of next acts"),
        (Allocate("a", "next", 8, groups=((0, 1), (0, 1))), "rank 0 is in [0, 1] and [0, 1] of next; "),
        (Ballast("a", "next", 3, 8, HERE[:1]), "rank 3 is in no group of next that acts"),
        (Ballast("a", "ends", 1, 8), "rank 1 is in no group of ends that acts"),
    ],
)
def test_groups_that_cannot_act_are_refused_by_name(step: Step, reason: str) -> None:
    assert refusal(step, topology=RING).startswith(reason)


def test_a_rank_that_acts_on_a_buffer_has_to_hold_it() -> None:
    steps = Allocate("a", "next", 8, groups=HERE[:1]), AllGather("next", A, 4, groups=HERE)
    assert refusal(*steps, topology=RING) == "rank 2 acts and does not hold 'a'"
    assert accepted(steps[0], AllGather("next", A, 4, groups=HERE[:1]), topology=RING)


def test_counts_of_ranks_that_do_not_act_are_not_looked_at() -> None:
    steps = Allocate("a", "ends", (8, -1, -1, 8)), AllGather("ends", A, (4, -1, -1, 4))
    assert accepted(*steps, topology=RING)


def test_a_family_whose_groups_overlap_is_re_created_as_a_whole() -> None:
    assert accepted(Recreate("next"), topology=RING)
