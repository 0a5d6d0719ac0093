"""The substrate `nccl` on real GPUs. Ranks share a GPU where there are fewer GPUs than ranks."""

from pathlib import Path

import pytest

from harness import judge
from harness.campaign import seeds
from harness.campaign.replay import with_system
from harness.oracle.case import Case
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    Recreate,
    ReduceScatter,
    Refuse,
    Release,
    Replay,
    Trim,
)
from harness.scenario.system import POOLS, System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.common import is_common
from harness.strategies.flows import flows
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.studies.agree.comparison import Agreement, Comparison, Worlds
from harness.trace.draw import Draw
from harness.trace.events import Exhausted, Placed, Ran
from harness.world import litter
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

RANKS = 8
TP2 = Topology(name="tp2", convention="sglang", degrees={"tp": 2})
TP4_DPA2 = Topology(name="tp4-dpa2", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
ONE = Topology(name="one", convention="sglang", degrees={"tp": 1})
CROSS_GROUP = (Allocate("a", "tp", 64), Allocate("b", "attn_tp", 64), AllGather("attn_tp", View("b"), 16))
OWNED = (Allocate("a", "tp", 64), AllGather("tp", View("a"), 16), ReduceScatter("tp", View("a"), 16))


KEPT = sorted((Path(__file__).parents[2] / "topologies" / "seeds").glob("*.json"))


@pytest.fixture(scope="module")
def world():
    with World(RANKS, "nccl", deadline=60, evidence=("digests",)) as running:
        yield running


def rules(draw: Draw) -> list[str]:
    return [finding.rule for finding in judge(draw)]


def compare(world: World, drawn: list[Scenario], folder: Path) -> Agreement:
    """What comes of the drawn scenarios that both substrates can run and that do not hang, on both."""
    with World(RANKS, "sim", evidence=("digests",)) as simulated:
        chosen = [scenario for scenario in drawn if is_common(scenario) and simulated.run(scenario).is_clean]
        return Comparison(Worlds(simulated, world), folder).run(chosen)


def test_a_clean_call_runs_the_symmetric_kernel_by_the_word_of_nccl(world):
    draw = world.run(Scenario(TP2, OWNED))
    ran = [use.ran for uses in Case(draw).calls.values() for use in uses]
    assert [(event.path, event.evidence) for event in ran] == [
        ("symmetric", "NCCL ran forced SYMK_ST; NCCL told its profiler of AllGather_ST"),
        ("symmetric", "NCCL ran forced SYMK_ST; NCCL told its profiler of AllGather_ST"),
        ("symmetric", "NCCL ran forced SYMK_LD; NCCL told its profiler of ReduceScatter_LD"),
        ("symmetric", "NCCL ran forced SYMK_LD; NCCL told its profiler of ReduceScatter_LD"),
    ]
    assert rules(draw) == []


def test_a_block_of_another_groups_window_is_refused_the_symmetric_path_by_nccl(world):
    draw = world.run(Scenario(TP4_DPA2, CROSS_GROUP, System("shared-at-alloc")))
    assert rules(draw) == ["wrong-owner"]
    assert "NCCL refused forced SYMK_ST with ncclInvalidArgument" in judge(draw)[0].explanation


def test_the_same_program_with_a_pool_for_each_group_is_clean(world):
    assert rules(world.run(Scenario(TP4_DPA2, CROSS_GROUP, System("per-group")))) == []


def test_drawn_scenarios_are_clean(world):
    drawn = sample(scenarios(RANKS), 30, seed=7)
    assert [rules(world.run(scenario)) for scenario in drawn] == [[]] * len(drawn)


@pytest.mark.parametrize("pool", ["per-group", "shared-at-alloc"])
def test_facts_and_findings_agree_with_the_simulation(world, pool, tmp_path):
    agreement = compare(world, sample(scenarios(4, system=System(pool)), 20, seed=11), tmp_path)
    assert (agreement.found, agreement.draws > 0) == ({}, True)


def test_facts_and_findings_agree_with_the_simulation_on_three_streams(world, tmp_path):
    agreement = compare(world, sample(scenarios(4, streams=STREAMS), 25, seed=13), tmp_path)
    assert (agreement.found, agreement.draws >= 15) == ({}, True)


@pytest.mark.parametrize(("used", "second"), [(0, 1), (2, 1), (2, 2), (0, 0)])
def test_a_block_returns_to_its_own_stream_whoever_used_it(world, used, second):
    steps = (
        Allocate("a", "tp", 64, stream=1),
        AllGather("tp", View("a"), 32, stream=used),
        Release("a"),
        Allocate("b", "tp", 64, stream=second),
        ReduceScatter("tp", View("b"), 32, stream=used),
    )
    draw = world.run(Scenario(TP2, steps))
    first, then = (event.address for event in draw.traces[0].events if isinstance(event, Placed))
    assert (first == then, rules(draw)) == (second == 1, [])


def test_a_communicator_whose_calls_a_graph_holds_can_be_created_anew(world):
    """NCCL waits for ever to destroy one while the graph is there."""
    call = Allocate("a", "tp", 64), AllGather("tp", View("a"), 32)
    graph = (Prepare("g"), *call, Release("a"), Capture("g"), Allocate("b", "tp", 64), AllGather("tp", View("b"), 32))
    steps = (*graph, EndCapture("g"), Replay("g"), Recreate("tp"), Allocate("c", "tp", 64))
    assert rules(world.run(Scenario(TP2, (*steps, AllGather("tp", View("c"), 32))))) == []


def test_drawn_graphs_are_clean(world):
    drawn = sample(scenarios(4, graphs=True, streams=STREAMS, via="library", max_steps=WITH_GRAPHS), 20, seed=17)
    assert [rules(world.run(scenario)) for scenario in drawn] == [[]] * len(drawn)


def test_skewed_offsets_give_wrong_bytes(world):
    steps = (
        Allocate("a", "tp", 64),
        Ballast("x", "tp", 0, 512),
        Allocate("b", "tp", 64),
        AllGather("tp", View("b"), 32),
    )
    assert rules(world.run(Scenario(TP2, steps))) == ["offset-mismatch", "out-of-bounds", "wrong-data"]


def test_a_refused_segment_is_an_out_of_memory_and_the_next_allocation_works(world):
    steps = (Deny(0), Allocate("a", "tp", 64), Allocate("b", "tp", 64), AllGather("tp", View("b"), 64))
    draw = world.run(Scenario(ONE, steps))
    kinds = [type(event).__name__ for event in draw.traces[0].events]
    assert kinds.count("Exhausted") == 1
    assert kinds.count("Placed") == 1
    assert rules(draw) == []


def test_ranks_that_agree_fail_together_and_the_next_allocation_works(world):
    steps = (Deny(1), Allocate("a", "tp", 64), Allocate("b", "tp", 64), AllGather("tp", View("b"), 32))
    draw = world.run(Scenario(TP2, steps, System("deferred")))
    refused = [[event.buffer for event in trace.events if isinstance(event, Exhausted)] for trace in draw.traces]
    assert (refused, rules(draw)) == ([["a"], ["a"]], [])
    assert {use.ran.path for uses in Case(draw).calls.values() for use in uses} == {"symmetric"}


def test_ranks_that_agree_fail_together_where_one_cannot_register(world):
    steps = (Refuse(1), Allocate("a", "tp", 64), Allocate("b", "tp", 64), AllGather("tp", View("b"), 32))
    draw = world.run(Scenario(TP2, steps, System("deferred")))
    refused = [[event.buffer for event in trace.events if isinstance(event, Exhausted)] for trace in draw.traces]
    assert (refused, rules(draw)) == ([["a"], ["a"]], [])
    assert {use.ran.path for uses in Case(draw).calls.values() for use in uses} == {"symmetric"}


@pytest.mark.parametrize(
    ("pool", "broken"),
    [("FirstHalf", []), ("SecondPart", []), ("PartsApart", []), ("ShortPart", ["unregistered"])],
)
def test_a_part_of_a_segment_owns_what_lies_in_it(world, pool, broken):
    steps = (Allocate("front", "tp", 1024), Allocate("a", "tp", 64), AllGather("tp", View("a"), 32))
    assert rules(world.run(Scenario(TP2, steps, System(f"tests.tools.planted.registers:{pool}")))) == broken


def test_nccl_takes_a_window_without_the_symmetric_flag_for_none(world):
    steps = (Allocate("a", "tp", 64), AllGather("tp", View("a"), 32))
    draw = world.run(Scenario(TP2, steps, System("tests.tools.planted.registers:WithoutFlag")))
    assert rules(draw) == ["unregistered"]
    assert {use.ran.path for uses in Case(draw).calls.values() for use in uses} == {"legacy"}


@pytest.mark.parametrize("part", [None, "p"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_collectives_of_unequal_sizes_are_exact(world, dtype, part):
    counts = (5, 3, 17, 1)
    view = None if part is None else View(part)
    steps = (
        Allocate("w", "tp", sum(counts), dtype),
        Allocate("p", "tp", 17, dtype, "plain"),
        AllGather("tp", View("w"), counts, view),
        ReduceScatter("tp", View("w"), counts, view),
    )
    draw = world.run(Scenario(TP4_DPA2, steps))
    assert ({use.ran.path for uses in Case(draw).calls.values() for use in uses}, rules(draw)) == ({"legacy"}, [])


@pytest.mark.parametrize("part", [None, "p"])
@pytest.mark.parametrize("counts", [(0, 3, 17, 1), (5, 0, 0, 1), (5, 3, 17, 0), (0, 0, 0, 17)])
def test_collectives_are_exact_where_ranks_have_no_elements(world, counts, part):
    view = None if part is None else View(part)
    steps = (
        *(Allocate("w", "tp", max(4, sum(counts)), "bfloat16"), Allocate("p", "tp", counts, "bfloat16", "plain")),
        *(AllGather("tp", View("w"), counts, view), ReduceScatter("tp", View("w"), counts, view)),
        *(Allocate("q", "attn_tp", (0, 0, 2, 2)), AllGather("attn_tp", View("q"), (0, 0, 1, 1), groups=((2, 3),))),
        AllGather("tp", View("w"), 1),
    )
    draw = world.run(Scenario(TP4_DPA2, steps))
    paths = [[event.path for event in trace.events if isinstance(event, Ran)] for trace in draw.traces]
    legacy, symmetric = ["legacy"] * 2, ["symmetric"]
    assert (paths, rules(draw)) == ([legacy + symmetric] * 2 + [legacy + symmetric * 2] * 2, [])


@pytest.mark.parametrize("tokens", ["engine", "padded", "uneven"])
@pytest.mark.parametrize(
    "name", ["moe-scatter", "vllm-dcp", "vllm-ep-gather", "megatron-etp-scatter", "trtllm-moe-gather"]
)
def test_flows_of_every_engine_are_clean_with_deferred(world, name, tokens):
    drawn = sample(flows(RANKS, flow=name, tokens=tokens), 5, seed=7)
    assert [rules(world.run(scenario)) for scenario in drawn] == [[]] * len(drawn)


@pytest.mark.parametrize("pool", POOLS)
def test_flows_agree_with_the_simulation(world, pool, tmp_path):
    drawn = sample(flows(RANKS, tokens="padded", system=System(pool), via="library"), 6, seed=3)
    agreement = compare(world, drawn, tmp_path)
    assert (agreement.found, agreement.draws > 0) == ({}, True)


def test_flows_of_uneven_tokens_are_clean_with_deferred(world):
    drawn = sample(flows(RANKS, tokens="uneven"), 10, seed=5)
    assert [rules(world.run(scenario)) for scenario in drawn] == [[]] * len(drawn)


def test_trim_and_recreate_leave_nothing_stale(world):
    steps = (
        *(Allocate("a", "tp", 64), AllGather("tp", View("a"), 32), Release("a"), Trim(), Recreate("tp")),
        *(Allocate("b", "tp", 64), AllGather("tp", View("b"), 32, via="kernel")),
    )
    assert rules(world.run(Scenario(TP2, steps))) == []


@pytest.mark.parametrize("kernels", ["examples.protocols:Packets", "tests.tools.provided:ByFlags"])
def test_memory_of_the_harness_for_plug_ins_is_clean_and_goes_with_the_communicator(kernels):
    first, again = (
        (Allocate(name, "tp", 64), *(AllGather("tp", View(name), 32, via="kernel"),) * 3, Release(name))
        for name in "ab"
    )
    scenario = Scenario(TP2, (*first, Recreate("tp"), *again), System(collectives=kernels))
    with World(2, "nccl") as small:
        draws = [small.run(scenario) for _ in range(3)]
    assert [rules(draw) for draw in draws] == [[]] * 3
    # where the two share a GPU, the plug-in leaves its calls to the library
    (paths,) = {tuple({event.path for event in trace.events if isinstance(event, Ran)}) for trace in draws[0].traces}
    assert paths == ("kernel",) if small.platform.gpus > 1 else ("symmetric",)


def test_a_store_beside_memory_of_the_harness_is_found_where_ranks_have_gpus_of_their_own():
    call = (Allocate("a", "tp", 64), AllGather("tp", View("a"), 32, via="kernel"))
    with World(2, "nccl") as small:
        draw = small.run(Scenario(TP2, call, System(collectives="tests.tools.provided:SendsTooFar")))
        assert rules(draw) == (["out-of-bounds"] if small.platform.gpus > 1 else [])


def test_a_captured_all_gather_replays_on_new_input(world):
    system = System("tests.tools.gpu_systems:CapturesAnAllGather")
    assert rules(world.run(Scenario(TP2, OWNED, system))) == []


def test_listing_the_257th_pool_costs_no_reference_to_its_id(world):
    replies = world.call("tests.tools.references_on_ranks:list_a_late_pool")
    assert [missing["harness"] for missing in replies] == [0] * RANKS


def test_a_killed_rank_is_reported_and_the_next_draw_works(world):
    draw = world.run(Scenario(TP2, OWNED, System("tests.tools.gpu_systems:KilledOnRankOne")))
    assert rules(draw)[0] == "rank-crash"
    assert draw.fates[1].how.startswith("was killed by signal 9 (SIGKILL)")
    assert rules(world.run(Scenario(TP2, OWNED))) == []


def test_ranks_that_wait_for_one_that_could_not_grow_are_a_hang_and_the_next_draw_works(monkeypatch):
    mapped, left = litter.mapped, set()
    monkeypatch.setattr(litter, "mapped", lambda pids: left.update(found := mapped(pids)) or found)
    with World(2, "nccl") as small:
        draw = small.run(Scenario(TP2, (Deny(1), *OWNED), System("per-group")))
        assert not any(path.exists() for path in left)
        assert rules(draw) == ["registration-skew", "hang"]
        assert draw.seconds < small.deadline, "ranks that wait in registrations were not seen to be stuck"
        assert "in register of tp[0,1]" in judge(draw)[1].explanation
        assert rules(small.run(Scenario(TP2, OWNED))) == []


def test_a_rank_in_a_collective_and_one_in_a_registration_are_seen_to_be_stuck():
    with World(2, "nccl") as small:
        draw = small.run(Scenario(TP2, OWNED, System("harness.system.planted.pools:RegistersAlone")))
        assert rules(draw)[0] == "registration-skew"
        assert draw.seconds < small.deadline / 3, "the rank in the collective was not seen to wait"
        assert rules(small.run(Scenario(TP2, OWNED))) == []


@pytest.fixture(scope="module")
def impatient():
    with World(RANKS, "nccl", deadline=8) as running:
        yield running


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_seed_fails_here_too_and_is_clean_with_a_right_system(impatient, path):
    seed = seeds.load(path)
    assert seed.findings[0].rule in rules(impatient.run(seed.scenario))
    assert rules(impatient.run(with_system(seed.scenario, pool="deferred", sites="explicit"))) == []
