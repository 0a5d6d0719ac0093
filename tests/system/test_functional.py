"""Collectives in functional form: what they return is a result only if a caller may rely on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Step
from harness.system.boundary import Misshapen, SystemRaised
from harness.system.collectives import CollectiveContext, NotOwned
from harness.system.functional import returned
from harness.trace.events import Ran
from harness.world.world import World
from tests.tools.one_rank import Rank
from tests.tools.scenes import findings, scenario

SOURCE = torch.zeros(6)
SOUND = "harness.system.planted.results:SoundResults"


class Gives:
    functional = True

    def __init__(self, result: object) -> None:
        self.result = result

    def all_gather(self, context: object, source: torch.Tensor) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def reduce_scatter(self, context: object, source: torch.Tensor, op: str) -> Any:
        return self.all_gather(context, source)


def result(rank: Rank, given: object, op: str | None = None) -> torch.Tensor:
    kind, more = ("all_gather", ()) if op is None else ("reduce_scatter", (op,))
    return returned(Gives(given), kind, (CollectiveContext(rank.communicator()), SOURCE, *more), torch.zeros(12))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "returned NoneType, which is no tensor"),
        (torch.zeros(12, dtype=torch.int32), "returned a tensor of dtype torch.int32 and not torch.float32"),
        (torch.zeros(6), "returned a tensor of shape [6] and not [12]"),
        (torch.zeros(2, 6), "returned a tensor of shape [2, 6] and not [12]"),
        (torch.zeros(12, device="meta"), "returned a tensor of device meta and not cpu"),
        (torch.zeros(12).to_sparse(), "returned a tensor of layout torch.sparse_coo and not torch.strided"),
        (torch.zeros(24)[::2], "returned a tensor that is not contiguous"),
    ],
)
@pytest.mark.parametrize(("op", "name"), [(None, "an all_gather()"), ("sum", "a reduce_scatter()")])
def test_what_is_no_result_is_refused_where_it_is_returned(
    rank: Rank, given: object, text: str, op: str | None, name: str
) -> None:
    with pytest.raises(Misshapen) as refused:
        result(rank, given, op)
    assert str(refused.value).startswith(f"has {name} that {text} ({name.split()[1][:-2]}, test_functional.py:")


@pytest.mark.parametrize("op", [None, "avg"])
def test_a_result_is_passed_on_as_it_is(rank: Rank, op: str | None) -> None:
    given = torch.zeros(12)
    assert result(rank, given, op) is given


def test_a_source_without_a_window_goes_to_the_library(rank: Rank) -> None:
    with pytest.raises(NotOwned):
        result(rank, NotOwned())


def test_what_it_raises_is_the_systems(rank: Rank) -> None:
    with pytest.raises(SystemRaised):
        result(rank, ValueError("no"))


# on ranks

A, B, P = (Allocate(name, "tp", 256) for name in "abp")
MINE = Allocate("mine", "tp", 256, role="plain")


@pytest.mark.parametrize("dtype", ["bfloat16", "int32"])
@pytest.mark.parametrize("system", [SOUND, "tests.system.test_functional:whole"])
def test_sound_collectives_break_nothing_in_place_and_out_of_place(ranks: World, system: str, dtype: str) -> None:
    steps: tuple[Step, ...] = (
        *(Allocate(name, "tp", 300, dtype) for name in "ap"),  # type: ignore[arg-type]
        AllGather("tp", View("a", 3), 130, via="kernel"),
        AllGather("tp", View("a"), 130, View("p", 7), via="kernel"),
        ReduceScatter("tp", View("a", 1), 130, via="kernel"),
        ReduceScatter("tp", View("a"), 130, View("p", 30), via="kernel"),
        AllGather("tp", View("p"), 130, via="kernel"),
    )
    played = scenario(*steps, kernels=system)
    assert findings(ranks, played) == []
    paths = [event.path for event in ranks.run(played).traces[1].events if isinstance(event, Ran)]
    assert paths == ["kernel"] * 5


class Whole:
    """In functional form, built once and kept over many draws."""

    functional = True

    def __init__(self) -> None:
        from harness.system.planted.results import SoundResults

        sound = SoundResults()
        self.all_gather, self.reduce_scatter = sound.all_gather, sound.reduce_scatter


whole = Whole()


def test_a_source_in_ordinary_memory_falls_back_to_the_library(ranks: World) -> None:
    played = scenario(A, MINE, AllGather("tp", View("a"), 100, View("mine"), via="kernel"), kernels=SOUND)
    assert findings(ranks, played) == []
    assert [[event.path for event in trace.events if isinstance(event, Ran)] for trace in ranks.run(played).traces] == [
        ["symmetric"],
        ["symmetric"],
    ]


def test_the_counterparts_of_a_chunk_in_place_are_the_other_chunks(rank: Rank) -> None:
    communicator = rank.communicator()
    with rank.pool().use():
        buffer = torch.zeros(64)
    communicator.register(rank.pool().segments[0])
    CollectiveContext(communicator).peer_addresses(buffer)  # its memory is mapped as its own
    communicator.rank = 1
    context = CollectiveContext(communicator, (8, 8), buffer[8:16])
    assert context.peer_addresses(buffer[8:16]).tolist() == [buffer.data_ptr()]
    assert context.peer_addresses(buffer[3:]).tolist() == [buffer[3:].data_ptr()]


class ReturnsNothing:
    functional = True

    def all_gather(self, context: object, source: object) -> object: ...

    def reduce_scatter(self, context: object, source: object, op: str) -> object: ...


def test_a_draw_in_which_nothing_comes_back_names_the_plug_in(ranks: World) -> None:
    name = f"{__name__}:ReturnsNothing"
    played = scenario(A, AllGather("tp", View("a"), 100, via="kernel"), kernels=name)
    with pytest.raises(UsageError, match=rf"collectives '{name}' has an all_gather\(\) that returned NoneType, which"):
        ranks.run(played)
