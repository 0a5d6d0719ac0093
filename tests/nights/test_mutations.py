"""Mutations: valid, of the strategy's words alone, the same for a seed, and survived by what is right."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import strategies as st

from harness.nights.mutations import LONGEST, Mutations, renamed
from harness.nights.vocabulary import Vocabulary
from harness.oracle.judge import judge
from harness.scenario.hazards import hazards
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Capture, CollectiveStep, Replay, Step, of_one_size
from harness.scenario.system import System
from harness.strategies.batches import sample
from harness.strategies.flows import flows
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.strategies.schedules import scheduled
from harness.world.world import World

STRATEGIES: dict[str, st.SearchStrategy[Scenario]] = {
    "free": scenarios(4, streams=3),
    "graphs": scenarios(4, graphs=True, max_steps=WITH_GRAPHS),
    "hazards": scenarios(4, hazards=["deny", "ballast"]),
    "library": scenarios(4, via="library", falling=False),
    "kernel": scenarios(4, via="kernel"),
    "spmd": scenarios(4, spmd=True),
    "flows": flows(4),
    "implicit": scenarios(4, system=System(sites="implicit")),
    "schedules": scheduled(scenarios(4)),
}


def mutated(strategy: st.SearchStrategy[Scenario], count: int = 40, seed: int = 0, **how: bool) -> list[Scenario]:
    """Mutations of what a strategy draws, each of another parent."""
    parents = sample(strategy, count, seed=seed)
    vocabulary = Vocabulary()
    for parent in parents:
        vocabulary.take(parent)
    mutations = Mutations(seed, vocabulary, **how)
    found = (mutations.of(parent, parent) for parent in parents)
    return [each for each in found if each is not None]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_mutation_has_the_words_of_the_strategy_alone(name: str) -> None:
    parents, vocabulary = sample(STRATEGIES[name], 40), Vocabulary()
    for parent in parents:
        vocabulary.take(parent)
    kinds, risks, ways = {*vocabulary.kinds}, vocabulary.hazards, vocabulary.via
    found = mutated(STRATEGIES[name])
    assert len(found) > 20
    for each in found:
        vocabulary.take(each)
        assert hazards(each.steps, each.topology) <= risks
        assert len(each.steps) <= max(LONGEST, *(len(parent.steps) for parent in parents))
    assert (vocabulary.kinds, vocabulary.via) == (kinds, ways)


def test_a_mutation_keeps_topology_and_system_and_changes_the_program() -> None:
    parents = sample(STRATEGIES["free"], 40)
    known = {(parent.topology.key, parent.system) for parent in parents}
    found = mutated(STRATEGIES["free"])
    assert {(each.topology.key, each.system) for each in found} <= known
    assert not {each.steps for each in found} & {parent.steps for parent in parents}


def test_the_same_seed_gives_the_same_mutations_and_another_gives_others() -> None:
    first, again, other = (mutated(STRATEGIES["free"], 12, seed) for seed in (3, 3, 4))
    assert first == again != other


def test_programs_that_are_not_free_are_repeated_and_nothing_is_appended() -> None:
    parents = {parent.topology.key: parent for parent in sample(STRATEGIES["flows"], 40)}
    for each in mutated(STRATEGIES["flows"], is_free=False):
        calls = [step.kind for step in each.steps if isinstance(step, CollectiveStep)]
        assert len(calls) >= 1
        assert each.topology.key in parents


def test_a_schedule_is_drawn_anew_for_a_mutation() -> None:
    assert all(each.scheduled is not None for each in mutated(STRATEGIES["schedules"], 12))


def test_what_is_spliced_in_has_names_of_its_own() -> None:
    (drawn,) = sample(STRATEGIES["graphs"], 1, seed=2)
    once = renamed(drawn.steps, drawn.steps)
    twice = renamed(drawn.steps, (*drawn.steps, *once))
    names = [step.allocates for step in (*drawn.steps, *once, *twice) if step.allocates is not None]
    assert len(names) == len({*names}) == 3 * len(drawn.allocations)


def allocated(steps: Sequence[Step], graph: str) -> tuple[list[object], list[object]]:
    """What the preparation of a graph allocates, and what its capture does."""
    places = [index for index, step in enumerate(steps) if step.graph == graph and not isinstance(step, Replay)]
    prepared, captured, ended = places[-3:]
    within = steps[prepared:captured], steps[captured:ended]
    sizes = [[(s.family, s.elements, s.dtype) for s in part if isinstance(s, Allocate)] for part in within]
    return sizes[0], sizes[1]


def test_a_warm_up_has_the_sizes_of_its_capture() -> None:
    found = mutated(STRATEGIES["graphs"], 400, seed=3)
    graphs = [(each.steps, step.graph) for each in found for step in each.steps if isinstance(step, Capture)]
    assert len(graphs) > 200
    for steps, graph in graphs:
        prepared, captured = allocated(steps, graph)
        assert prepared == captured


def test_buffers_are_as_large_on_every_rank_where_those_of_all_parents_are() -> None:
    alike = scenarios(4, spmd=True).map(lambda drawn: msgspec.structs.replace(drawn, steps=of_one_size(drawn.steps)))
    sizes = {type(step.elements) for each in mutated(alike, 200) for step in each.steps if isinstance(step, Allocate)}
    assert sizes == {int}


@pytest.mark.parametrize("pool", ["deferred", "per-group"])
@pytest.mark.parametrize("kind", [{}, {"graphs": True, "max_steps": WITH_GRAPHS}, {"streams": 3}], ids=str)
def test_a_right_system_survives_mutations(simulation: World, pool: str, kind: dict[str, int]) -> None:
    strategy = scenarios(4, system=System(pool), falling=False, **kind)  # type: ignore[arg-type]
    found = mutated(strategy, 14, seed=5)
    assert len(found) > 8
    assert [judge(simulation.run(each)) for each in found] == [[]] * len(found)


def test_a_right_system_survives_repeated_flows(simulation: World) -> None:
    found = mutated(flows(4, tokens="padded"), 14, is_free=False)
    assert len(found) > 8
    assert [judge(simulation.run(each)) for each in found] == [[]] * len(found)
