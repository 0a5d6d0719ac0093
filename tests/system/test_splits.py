"""All-to-alls with a count for every pair: a plug-in's `all_to_allv`, and the library where it has none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from harness.errors import PluginError
from harness.scenario.operands import View
from harness.scenario.steps import (
    Allocate,
    AllToAll,
    Broadcast,
    Capture,
    EndCapture,
    InFlight,
    Prepare,
    ProgramError,
    Recreate,
    Release,
    Replay,
    Step,
)
from harness.system.collectives import CollectiveContext, Splits, TritonCollectives, Unsupported, load_collectives
from harness.system.shape import runs
from harness.trace.events import Called, Ran
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, rules, scenario

HERE = "tests.system.test_splits"
TABLES = {
    "all differ": ((3, 1, 4, 1), (5, 9, 2, 6), (5, 3, 5, 8), (9, 7, 9, 3)),
    "one rank gets nothing": ((3, 0, 4, 1), (5, 0, 2, 6), (5, 0, 5, 8), (9, 0, 9, 3)),
    "one rank gives nothing": ((3, 1, 4, 1), (0, 0, 0, 0), (5, 3, 5, 8), (9, 7, 9, 3)),
    "one pair alone": ((0, 0, 0, 0), (0, 0, 700, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    "to itself alone": ((7, 0, 0, 0), (0, 5, 0, 0), (0, 0, 0, 0), (0, 0, 0, 9)),
}


@pytest.fixture(scope="module")
def four() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


def moved(table: tuple[tuple[int, ...], ...], dtype: str = "float32") -> tuple[Step, ...]:
    """Twice: the second time on a new communicator, and from a source in a window."""
    call = AllToAll("tp", View("out", 3), source=View("in", 5), counts=table, via="kernel")
    again = AllToAll("tp", View("later", 3), source=View("own", 5), counts=table, via="kernel")
    return (
        Allocate("out", "tp", 800, dtype),  # type: ignore[arg-type]
        Allocate("in", "tp", 800, dtype, role="plain"),  # type: ignore[arg-type]
        *(call, Release("out"), Recreate("tp")),
        *(Allocate(name, "tp", 800, dtype) for name in ("later", "own")),  # type: ignore[arg-type]
        again,
    )


def paths(ranks: World, *steps: Step, kernels: str) -> list[set[str]]:
    """By rank, the paths of the calls."""
    draw = ranks.run(scenario(*steps, topology=SQUARE, pool="deferred", kernels=kernels))
    return [{event.path for event in trace.events if isinstance(event, Ran)} for trace in draw.traces]


def assert_right(ranks: World, table: tuple[tuple[int, ...], ...], kernels: str, dtype: str = "float32") -> None:
    """Nothing is broken, and every rank runs the kernel."""
    steps = moved(table, dtype)
    assert findings(ranks, scenario(*steps, topology=SQUARE, pool="deferred", kernels=kernels)) == []
    assert paths(ranks, *steps, kernels=kernels) == [{"kernel"}] * 4


class Staged:
    """Into a workspace of the receiver, and from there into a tensor of its own."""

    functional = True

    def __init__(self) -> None:
        self.kernels = TritonCollectives()

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        return self.all_to_allv(context, source.repeat(context.size), [[source.numel()] * context.size] * context.size)

    def reduce_scatter(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        raise NotImplementedError

    def all_to_allv(self, context: CollectiveContext, source: torch.Tensor, splits: Splits) -> torch.Tensor:
        whole = context.workspace(1 << 14).view(source.dtype)[: sum(row[context.rank] for row in splits)]
        self.kernels.all_to_allv(context, whole, source, splits)
        return whole.clone()


class Simple:
    """What a plug-in was before there were splits."""

    uneven = True

    def __init__(self) -> None:
        kernels = TritonCollectives()
        self.all_gather, self.reduce_scatter = kernels.all_gather, kernels.reduce_scatter
        self.all_to_all = kernels.all_to_all


class TakesThree(Simple):
    def all_to_allv(self, context: object, output: object, source: object) -> None: ...


class TakesCounts(TritonCollectives):
    """Takes sizes from `context.counts`, as a plug-in may."""

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        count = context.counts[context.rank]
        super().all_to_all(context, output, source[: count * context.size])

    def all_to_allv(
        self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, splits: Splits
    ) -> None:
        super().all_to_allv(context, output, source[: context.counts[context.rank]], splits)


class Refuses(TritonCollectives):
    """Reads the sources of its peers, but not in these calls."""

    pulls = True

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        raise Unsupported

    def all_to_allv(
        self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, splits: Splits
    ) -> None:
        raise Unsupported

    def broadcast(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, root: int) -> None:
        raise Unsupported


class Returns(TritonCollectives):
    """In functional form, from before there were splits. It inherits a method that writes to an output."""

    functional = True

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return source

    def reduce_scatter(  # type: ignore[override]
        self, context: CollectiveContext, source: torch.Tensor, op: str
    ) -> torch.Tensor:
        return source


SAME = ((3,) * 4,) * 4
TURNED = ((1, 2, 3, 4), (2, 3, 4, 1), (3, 4, 1, 2), (4, 1, 2, 3))
"""Sums are equal, and counts are not."""


@pytest.mark.parametrize("table", [SAME, TURNED, TABLES["all differ"]], ids=["same", "turned", "all differ"])
def test_a_plug_in_sees_what_each_rank_gives(four: World, table: tuple[tuple[int, ...], ...]) -> None:
    assert_right(four, table, f"{HERE}:TakesCounts")


@pytest.mark.parametrize("table", [SAME, TURNED, TABLES["all differ"]], ids=["same", "turned", "all differ"])
def test_what_a_plug_in_leaves_to_the_library_is_not_slow(four: World, table: tuple[tuple[int, ...], ...]) -> None:
    """Its sources lie in windows as well, and no symmetric kernel runs the call all the same."""
    steps = (
        *(Allocate(name, "tp", 800) for name in ("out", "in")),
        AllToAll("tp", View("out"), source=View("in"), counts=table, via="kernel"),
        Broadcast("tp", View("out"), 50, 1, View("in"), via="kernel"),
    )
    played = scenario(*steps, topology=SQUARE, pool="deferred", kernels=f"{HERE}:Refuses")
    assert findings(four, played) == []
    assert paths(four, *steps, kernels=f"{HERE}:Refuses") == [{"legacy"}] * 4


def test_in_functional_form_what_writes_to_an_output_is_not_inherited() -> None:
    kernels = load_collectives(f"{HERE}:Returns")
    assert not any(runs(kernels, "all_to_all", None, is_uneven, 4) for is_uneven in (False, True))
    assert runs(load_collectives(f"{HERE}:Staged"), "all_to_all", None, True, 4)


@pytest.mark.parametrize("kernels", ["triton", f"{HERE}:Staged"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_right_breaks_nothing_and_every_rank_runs_the_kernel(
    four: World, table: tuple[tuple[int, ...], ...], kernels: str
) -> None:
    for dtype in ("float32", "uint8"):
        assert_right(four, table, kernels, dtype)


def test_a_rank_that_gets_nothing_has_an_output_in_the_window(four: World) -> None:
    played = scenario(*moved(TABLES["one rank gets nothing"]), topology=SQUARE, pool="deferred", kernels="triton")
    outputs = [event.output for event in four.run(played).traces[1].events if isinstance(event, Called)]
    assert [(output.size, output.address > 0) for output in outputs] == [(0, True)] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_an_output_that_one_rank_has_elsewhere_is_refused_also_if_it_gets_nothing(four: World, rank: int) -> None:
    """Peers apply their own offset in the window to that rank."""
    offsets = tuple(11 if each == rank else 3 for each in range(4))
    call = AllToAll("tp", View("out", offsets), source=View("in"), counts=TABLES["one rank gets nothing"], via="kernel")
    with pytest.raises(ProgramError, match="reach peers at different offsets"):
        scenario(Allocate("out", "tp", 64), Allocate("in", "tp", 64, role="plain"), call, topology=SQUARE)


def test_a_plug_in_without_it_leaves_the_call_to_the_library(four: World) -> None:
    steps, kernels = moved(TABLES["all differ"]), f"{HERE}:Simple"
    assert findings(four, scenario(*steps, topology=SQUARE, pool="deferred", kernels=kernels)) == []
    assert paths(four, *steps, kernels=kernels) == [{"legacy"}] * 4


def test_a_method_of_another_shape_is_refused() -> None:
    with pytest.raises(PluginError, match=r"all_to_allv\(context, output, source, splits\)"):
        load_collectives(f"{HERE}:TakesThree")


def test_calls_in_flight_and_in_graphs_are_exact(four: World) -> None:
    table = TABLES["one rank gets nothing"]
    call = AllToAll("tp", View("out"), source=View("in"), counts=table, via="kernel")
    warm = AllToAll("tp", View("warm"), source=View("in"), counts=table, via="kernel")
    held = AllToAll("tp", View("own"), source=View("in"), counts=table, via="kernel")
    steps = (
        *(Allocate("out", "tp", 64), Allocate("in", "tp", 64, role="plain")),
        *(InFlight(), call, call, InFlight(begins=False)),
        *(
            Prepare("g"),
            Allocate("warm", "tp", 64),
            warm,
            Release("warm"),
            Capture("g"),
            Allocate("own", "tp", 64),
            held,
            EndCapture("g"),
        ),
        *(Replay("g"), call, Replay("g")),
    )
    assert findings(four, scenario(*steps, topology=SQUARE, pool="deferred", kernels="triton")) == []
    assert paths(four, *steps, kernels="triton") == [{"kernel"}] * 4


def test_a_transposed_table_is_found(four: World) -> None:
    steps = moved(TABLES["all differ"])
    planted = "harness.system.planted.calls:TransposesSplits"
    found = findings(four, scenario(*steps, topology=SQUARE, pool="deferred", kernels=planted))
    assert {"wrong-data", "out-of-bounds"} & {*rules(found)}
