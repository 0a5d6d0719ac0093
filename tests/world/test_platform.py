"""Platforms: `auto` says what it chose and why; a substrate asked for by name is given or refused."""

from __future__ import annotations

from importlib import metadata

import pytest

from harness.errors import MachineError, UsageError
from harness.machine import gpus, nccl
from harness.machine.observer import build as observer
from harness.machine.profiler import VARIABLE
from harness.world.platform import Platform, Watched, choose

Version = tuple[int, int, int] | None

CUDA, CPU = "2.13.0+cu130", "2.13.0+cpu"
TOO_FEW = "4 ranks", "2 are visible", "2.29.7", "2.30"
LACKING = [
    pytest.param(0, (2, 32, 3), CUDA, 2, ("no GPU",), id="no GPU"),
    pytest.param(1, (2, 32, 3), CPU, 1, ("2.13.0+cpu",), id="torch without CUDA"),
    pytest.param(1, None, CUDA, 1, ("NCCL",), id="no NCCL"),
    pytest.param(1, (2, 26, 5), CUDA, 1, ("2.26.5", "2.27"), id="NCCL before windows"),
    pytest.param(2, (2, 29, 7), CUDA, 4, TOO_FEW, id="too few GPUs to have one each"),
]


def equip(monkeypatch: pytest.MonkeyPatch, cards: int, version: Version, torch: str = CUDA) -> None:
    """Make this machine one with so many GPUs, this NCCL and this build of torch."""
    found = [gpus.Gpu(f"GPU-{index}", "card", 80 << 30, "600.1") for index in range(cards)]
    monkeypatch.setattr(gpus, "inventory", lambda: found)
    monkeypatch.setattr(nccl, "version", lambda: version)
    monkeypatch.setattr(metadata, "version", lambda name: torch)


def ranks_on(platform: Platform, ranks: int) -> list[int | None]:
    """The GPU of each rank."""
    return [platform.gpu_of(rank) for rank in range(ranks)]


def test_an_unknown_substrate_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'cuda' is not one of auto, sim, nccl"):
        choose("cuda", 2)


# what the machine lacks


@pytest.mark.parametrize("kind", ["forced", "check", "stamps", "differential"])
@pytest.mark.parametrize("substrate", ["auto", "nccl"])
def test_evidence_that_an_older_nccl_lacks_is_refused_and_nothing_else_is_taken(
    monkeypatch: pytest.MonkeyPatch, substrate: str, kind: str
) -> None:
    equip(monkeypatch, 4, (2, 28, 9))
    with pytest.raises(MachineError, match=rf"evidence '{kind}' needs NCCL 2\.\d+.*; 2\.28\.9 is there"):
        choose(substrate, 4, [kind])


@pytest.mark.parametrize(("cards", "nccl", "torch", "ranks", "reasons"), LACKING)
def test_auto_falls_back_to_sim(
    monkeypatch: pytest.MonkeyPatch, cards: int, nccl: Version, torch: str, ranks: int, reasons: tuple[str, ...]
) -> None:
    equip(monkeypatch, cards, nccl, torch)
    assert choose("auto", ranks).name == "sim"


@pytest.mark.parametrize(("cards", "nccl", "torch", "ranks", "reasons"), LACKING)
def test_auto_says_why_it_fell_back(
    monkeypatch: pytest.MonkeyPatch, cards: int, nccl: Version, torch: str, ranks: int, reasons: tuple[str, ...]
) -> None:
    equip(monkeypatch, cards, nccl, torch)
    why = choose("auto", ranks).why
    assert [reason for reason in reasons if reason not in why] == []


@pytest.mark.parametrize(("cards", "nccl", "torch", "ranks", "reasons"), LACKING)
def test_nccl_asked_for_is_refused_with_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, cards: int, nccl: Version, torch: str, ranks: int, reasons: tuple[str, ...]
) -> None:
    equip(monkeypatch, cards, nccl, torch)
    with pytest.raises(MachineError) as refused:
        choose("nccl", ranks)
    assert [reason for reason in reasons if reason not in str(refused.value)] == []


# what the machine has


@pytest.mark.parametrize("substrate", ["auto", "nccl"])
@pytest.mark.parametrize(
    ("cards", "nccl", "ranks"),
    [
        pytest.param(1, (2, 27, 3), 1, id="the first NCCL with windows"),
        pytest.param(4, (2, 29, 7), 4, id="a GPU each, with NCCL that cannot share one"),
        pytest.param(1, (2, 30, 0), 8, id="one GPU for all, with the first NCCL that can"),
    ],
)
def test_nccl_is_taken_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, substrate: str, cards: int, nccl: Version, ranks: int
) -> None:
    equip(monkeypatch, cards, nccl)
    assert choose(substrate, ranks).name == "nccl"


def test_auto_says_on_what_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 3, (2, 32, 3))
    assert choose("auto", 3).why == "3 GPUs and NCCL 2.32.3"


@pytest.mark.parametrize(("torch", "by_address"), [("2.11.0+cu130", True), ("2.13.0+cu130", False)])
def test_before_torch_2_13_the_allocator_chooses_by_address(
    monkeypatch: pytest.MonkeyPatch, torch: str, by_address: bool
) -> None:
    equip(monkeypatch, 2, (2, 32, 3), torch)
    assert (choose("nccl", 2).is_by_address, choose("sim", 2).is_by_address) == (by_address, False)


@pytest.mark.parametrize(("cards", "size", "most"), [(4, 4, 1), (1, 4, 4), (1, 1, 1), (3, 4, 2)])
def test_the_ranks_that_share_a_gpu_are_those_of_the_draw(
    monkeypatch: pytest.MonkeyPatch, cards: int, size: int, most: int
) -> None:
    equip(monkeypatch, cards, (2, 32, 3))
    assert (choose("nccl", 4).most_on_a_gpu(size), choose("sim", 4).most_on_a_gpu(size)) == (most, 1)


def test_sim_asked_for_is_given_where_nccl_could_run(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 8, (2, 32, 3))
    assert choose("sim", 8).name == "sim"


def test_sim_asked_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 0, None)
    assert choose("sim", 2).why == "asked for"


# where ranks go


def test_ranks_of_sim_have_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 2, (2, 32, 3))
    assert ranks_on(choose("sim", 2), 2) == [None, None]


@pytest.mark.parametrize(
    ("cards", "ranks", "placed"),
    [
        (4, 2, [0, 1]),
        (4, 4, [0, 1, 2, 3]),
        (1, 3, [0, 0, 0]),
        (2, 4, [0, 0, 1, 1]),
        (2, 5, [0, 0, 0, 1, 1]),
        (4, 6, [0, 0, 1, 1, 2, 2]),
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (8, 8, [*range(8)]),
    ],
)
def test_consecutive_ranks_share_a_gpu_where_there_are_too_few(
    monkeypatch: pytest.MonkeyPatch, cards: int, ranks: int, placed: list[int]
) -> None:
    equip(monkeypatch, cards, (2, 32, 3))
    assert ranks_on(choose("nccl", ranks), ranks) == placed


# what their processes need


def test_triton_interprets_on_sim_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 1, (2, 32, 3))
    environments = [choose(name, 1).environment for name in ("sim", "nccl")]
    assert [environment.get("TRITON_INTERPRET") for environment in environments] == ["1", None]


@pytest.mark.parametrize(("cards", "per_gpu"), [(4, 1), (2, 2), (1, 4)])
def test_ranks_on_nccl_get_the_environment_for_as_many_as_share_a_gpu(
    monkeypatch: pytest.MonkeyPatch, cards: int, per_gpu: int
) -> None:
    equip(monkeypatch, cards, (2, 32, 3))
    assert choose("nccl", 4, ("forced",)).environment == nccl.environment(per_gpu)


def test_ranks_on_nccl_are_given_more_time_than_on_sim(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compile kernels and create communicators, which sim need not."""
    equip(monkeypatch, 1, (2, 32, 3))
    assert choose("nccl", 1).deadline > choose("sim", 1).deadline


# what a process sees


def test_a_process_sees_all_gpus_or_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    equip(monkeypatch, 2, (2, 32, 3))
    platform = choose("nccl", 4)
    seen = [[platform.device_of(rank, hides) for rank in range(4)] for hides in (False, True)]
    assert seen == [[0, 0, 1, 1], [0, 0, 0, 0]]
    environments = [platform.rank_environment(rank, (0, 0, 0, 0), hides_peers=True) for rank in range(4)]
    assert environments == [{"CUDA_VISIBLE_DEVICES": str(rank // 2)} for rank in range(4)]
    assert platform.rank_environment(3, (0, 0, 0, 0)) == {}


def test_a_simulation_hides_no_gpu() -> None:
    assert (choose("sim", 2).device_of(1, True), choose("sim", 2).rank_environment(1, (0, 0), True)) == (None, {})


# pools that call NCCL by themselves


def watched(asked: list[str], **stand_ins: str) -> Watched:
    """Pools, and in `asked` those that were prepared with the variables of this process."""
    return Watched(stand_ins, lambda pools, has: asked.extend(pools if has["HERE"] and has["PYTHONPATH"] else ()))


def test_nothing_is_put_in_front_of_nccl_where_no_pool_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 1, (2, 32, 3))
    platform = choose("nccl", 1)
    assert platform.watching(watched([])) == platform


def test_the_observer_stands_in_front_of_nccl_once_a_watched_pool_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 1, (2, 32, 3))
    monkeypatch.setenv("HERE", "yes")
    added = {"LD_PRELOAD": "observer.so", VARIABLE: "observer.so"}
    monkeypatch.setattr(observer, "environment", lambda out: added)
    platform, asked = choose("nccl", 1), list[str]()
    assert platform.watching(watched(asked, engine="")).environment == {**platform.environment, **added}
    assert (asked, platform.environment["NCCL_NVLS_ENABLE"]) == (["engine"], "0")


def test_the_simulation_says_what_stands_in_for_a_watched_pool_and_prepares_none() -> None:
    asked: list[str] = []
    assert (
        choose("sim", 2).watching(watched(asked, engine="deferred")).why == "asked for; deferred stands in for engine"
    )
    assert asked == []


def test_the_simulation_is_refused_where_nothing_stands_in() -> None:
    with pytest.raises(UsageError, match=r"pool 'engine' calls NCCL by itself, and there is none on sim \(asked for\)"):
        choose("sim", 2).watching(watched([], engine="", other="deferred"))


# collectives that need a GPU


def test_the_simulation_says_what_stands_in_for_collectives_that_need_a_gpu() -> None:
    asked = Watched({}, lambda pools, environment: None, {"cuda": "triton"})
    assert choose("sim", 2).watching(asked).why == "asked for; triton stands in for cuda"


def test_on_gpus_nothing_stands_in_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 1, (2, 32, 3))
    platform = choose("nccl", 1)
    assert platform.watching(Watched({}, lambda pools, environment: None, {"cuda": "triton"})) == platform


# over hosts


def test_over_hosts_ranks_take_the_gpus_of_their_own_host(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 2, (2, 32, 3))
    platform = choose("nccl", 2).over(3, 2)
    assert ranks_on(platform, 6) == [0, 1, 0, 1, 0, 1]
    assert platform.most_on_a_gpu(6) == 1
    assert platform.why == "2 GPUs and NCCL 2.32.3, on 3 hosts"


def test_over_hosts_no_ranks_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    equip(monkeypatch, 1, (2, 32, 3))
    with pytest.raises(UsageError, match="2 ranks a host need as many GPUs on each, and 1 can be seen here"):
        choose("nccl", 2).over(2, 2)
