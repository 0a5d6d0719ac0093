"""The bench on several numbers of ranks: what is compared, how times grow, and what stays if it ends early."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import MachineError
from harness.studies.bench import by_ranks
from harness.studies.bench.by_ranks import BEST, Asked, ByRanks, Point, ask, bench_by_ranks
from harness.studies.bench.collectives import Measured, Row, begin
from harness.world.platform import Platform
from harness.world.world import World


def row(contender: str, *seconds: float, **more: Any) -> Row:
    return Row("all_gather", 1024, contender, seconds=seconds, **more)


def table(world: int, *rows: Row) -> Measured:
    return Measured(world, "bfloat16", {"substrate": "nccl"}, "", [*rows])


def asked(*worlds: int) -> Asked:
    return Asked([*worlds], ["all_gather"], "bfloat16", [1024], [], "sim", 0)


TABLES = [
    table(2, row("nccl", 4.0), row("nccl best", 2.0), row("cuda", 1.0), row("copy", 0.5)),
    table(4, row("nccl", 3.0), row("nccl best", 6.0), row("cuda", 3.0), row("copy", 1.5), row("copy to all", 2.0)),
]
FOUND = ByRanks(asked(2, 4), TABLES)


def figures(found: ByRanks, name: str) -> list[tuple[float | None, ...]]:
    points = [point for point in found.points() if point.contender == name]
    return [(point.world, point.time, point.ratio, point.to_copies, point.growth) for point in points]


def test_the_library_is_at_its_best_on_each_number_of_ranks() -> None:
    assert figures(FOUND, BEST) == [(2, 2.0, 1.0, 4.0, 1.0), (4, 3.0, 1.0, 1.5, 1.5)]
    assert "nccl best" not in {point.contender for point in FOUND.points()}


def test_a_kernel_is_compared_with_the_library_with_copies_and_with_fewer_ranks() -> None:
    assert figures(FOUND, "cuda") == [(2, 1.0, 0.5, 2.0, 1.0), (4, 3.0, 1.0, 1.5, 3.0)]


def test_of_two_ranks_one_copy_stands_for_copies_to_all() -> None:
    assert figures(FOUND, "copy to all") == [(2, 0.5, 0.25, 1.0, 1.0), (4, 2.0, pytest.approx(2 / 3), 1.0, 4.0)]


def test_of_three_ranks_one_copy_does_not_stand_for_copies_to_all() -> None:
    found = ByRanks(asked(3, 4), [table(3, row("cuda", 1.0), row("copy", 0.5)), TABLES[1]])
    assert figures(found, "cuda")[0] == (3, 1.0, None, None, 1.0)
    assert [point[0] for point in figures(found, "copy to all")] == [4]


def test_a_contender_that_is_wrong_on_some_ranks_has_no_growth_and_one_that_is_never_timed_no_point() -> None:
    few = table(2, row("mine", state="wrong", reason="wrong data"), row("other", state="refused"))
    found = ByRanks(asked(2, 4), [few, table(4, row("mine", 1.0), row("other", state="refused"))])
    assert found.points() == [
        Point("all_gather", 1024, "mine", 2, "wrong", None, None, None, None),
        Point("all_gather", 1024, "mine", 4, "timed", 1.0, None, None, None),
    ]
    assert not found.is_right


def test_sizes_that_are_not_measured_yet_have_no_point() -> None:
    large = Row("all_gather", 4096, "cuda", seconds=(5.0,))
    found = ByRanks(asked(2, 4), [table(2, *TABLES[0].rows, large), TABLES[1]])
    assert [(point.world, point.growth) for point in found.points() if point.nbytes == 4096] == [(2, 1.0)]


def test_one_number_of_ranks_is_compared_with_none_and_is_written_as_ever() -> None:
    found = ByRanks(asked(2), TABLES[:1])
    assert found.points() == []
    assert found.as_data() == TABLES[0].as_data()


def test_several_are_written_whole_with_what_compares_them() -> None:
    data = FOUND.as_data()
    assert data["worlds"] == [each.as_data() for each in TABLES]
    assert [each["growth"] for each in data["by_ranks"] if each["contender"] == "cuda"] == [1.0, 3.0]
    assert data["environment"] == TABLES[0].environment


def test_a_run_of_several_that_ended_at_the_first_is_written_as_one_of_several() -> None:
    assert list(ByRanks(asked(2, 4), TABLES[:1]).as_data()) == ["dtype", "environment", "worlds", "by_ranks"]


class Worlds:
    """Worlds whose calls take as many seconds as there are ranks. Interrupted at call number `last`; worlds of `broken`
    ranks do not start."""

    def __init__(self, last: int = 0, broken: int = 0) -> None:
        self.started: list[tuple[int, str]] = []
        self.running = self.calls = 0
        self._last, self._broken = last, broken

    def __call__(self, size: int, substrate: str) -> Any:
        if size == self._broken:
            raise MachineError(f"cannot start {size} rank processes")
        self.started.append((size, substrate))
        shared = SimpleNamespace(name="sim", why="asked for", gpus=0)
        return _World(self, size=size, restarts=0, platform=shared)

    def call(self, size: int) -> list[dict[str, Any]]:
        assert self.running == 1
        self.calls += 1
        if self.calls == self._last:
            raise KeyboardInterrupt
        found = {"variant": "", "right": True, "eager": True, "blocks": None, "host": None, "seconds": float(size)}
        return [{"variants": [found], "workspace": 0, "how": ""}] * size


class _World(SimpleNamespace):
    def __init__(self, of: Worlds, **facts: Any) -> None:
        super().__init__(**facts)
        self.of = of

    def __enter__(self) -> _World:
        self.of.running += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.of.running -= 1

    def call(self, function: str, *arguments: object) -> list[dict[str, Any]]:
        return self.of.call(self.size)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_ranks, "begin", lambda world, dtype: table(world.size))


def measure(monkeypatch: pytest.MonkeyPatch, worlds: Worlds, *numbers: int) -> tuple[ByRanks, list[str]]:
    found, said = ByRanks(asked(*numbers)), []
    monkeypatch.setattr(by_ranks, "World", worlds)
    try:
        bench_by_ranks(found, advance=said.append)
    except (KeyboardInterrupt, MachineError) as error:
        said.append(repr(error))
    return found, said


@pytest.mark.usefixtures("begun")
def test_each_number_has_ranks_of_its_own_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = Worlds()
    found, said = measure(monkeypatch, worlds, 2, 3, 4)
    assert worlds.started == [(2, "sim"), (3, "sim"), (4, "sim")]
    assert worlds.running == 0
    assert [(point.world, point.growth) for point in found.points() if point.contender == BEST] == [
        (2, 1.0), (3, 1.5), (4, 2.0),
    ]  # fmt: skip
    assert said[0] == "2 ranks: 1 of 2: all_gather 1024 library"
    assert said[-1] == "4 ranks: 2 of 2: all_gather 1024 copy to all"


@pytest.mark.usefixtures("begun")
def test_what_was_measured_stays_when_a_later_number_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = Worlds(last=9)  # 2 ranks make six calls
    found, said = measure(monkeypatch, worlds, 2, 3, 4)
    assert [(each.world, [row.contender for row in each.rows]) for each in found.tables] == [
        (2, ["library", "torch", "copy"]),
        (3, ["library", "torch"]),
    ]
    assert {point.world for point in found.points()} == {2, 3}
    assert (said[-1], worlds.running) == ("KeyboardInterrupt()", 0)


@pytest.mark.usefixtures("begun")
def test_what_was_measured_stays_when_a_later_number_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = measure(monkeypatch, Worlds(broken=3), 2, 3)
    assert [each.world for each in found.tables] == [2]
    assert "cannot start 3" in said[-1]


@pytest.mark.usefixtures("begun")
def test_one_number_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = measure(monkeypatch, Worlds(), 2)
    assert said[0] == "1 of 2: all_gather 1024 library"


@pytest.mark.usefixtures("begun")
def test_as_many_cells_are_announced_as_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = Worlds()
    measure(monkeypatch, worlds, 2, 3, 4)
    assert ask("sim", [2, 3, 4], ["all_gather"], "bfloat16", [1024], []).cells == worlds.calls


def test_all_numbers_stand_on_the_substrate_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(substrate: str, ranks: int) -> Platform:
        name = "sim" if ranks > 4 else "nccl"
        return Platform(name, f"{ranks} ranks need 8 GPUs", deadline=1.0, patience=1.0)

    monkeypatch.setattr(by_ranks, "choose", choose)
    mixed = ask("auto", [2, 4, 8], ["all_gather"], "bfloat16", None, [])
    assert (mixed.substrate, mixed.why, mixed.sizes) == ("sim", "8 ranks need 8 GPUs", [1024, 16384])
    alike = ask("auto", [2, 4], ["all_gather"], "bfloat16", None, [])
    assert (alike.substrate, alike.why, alike.sizes[-1]) == ("auto", "", 256 << 20)


@pytest.mark.usefixtures("begun")
def test_why_it_is_the_simulation_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(by_ranks, "World", Worlds())
    why = Asked([2, 3], ["all_gather"], "bfloat16", [1024], [], "sim", 0, "3 ranks need 3 GPUs")
    bench_by_ranks(ByRanks(why), said.append)
    assert said == [
        "substrate sim for all: 3 ranks need 3 GPUs",
        "2 ranks: substrate sim: asked for",
        "3 ranks: substrate sim: asked for",
    ]


@pytest.mark.parametrize(("size", "why_not"), [(2, ""), (4, ""), (8, "several ranks share a GPU")])
def test_each_number_of_ranks_compares_with_other_machines_or_not_on_its_own(size: int, why_not: str) -> None:
    platform = Platform("nccl", "4 GPUs", deadline=1.0, patience=1.0, gpus=4, ranks_per_gpu=-(-size // 4))
    world = SimpleNamespace(size=size, platform=platform, description={})
    assert begin(cast(World, world), "bfloat16").why_not == why_not
