"""What a plug-in launches in a capture: nothing runs then, and every replay runs it with the arguments of then."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from triton.runtime.interpreter import GridExecutor

from harness.substrate.device import Graph
from harness.substrate.sim.device import SimDevice
from tests.tools.one_rank import Rank


def now(launch: Callable[[], object]) -> object:
    return launch()


def captured(plug_in: Callable[[], object], device: SimDevice | None = None) -> Graph:
    device = device or SimDevice()
    with device.capture() as graph, device.recorded(now):
        plug_in()
    return graph


def test_where_nothing_is_captured_or_in_flight_a_plug_in_runs_at_once() -> None:
    word = torch.zeros(1)
    with SimDevice().recorded(now):
        word.add_(1)
        assert word.tolist() == [1]


def test_an_operation_that_writes_runs_at_every_replay_and_at_no_other_time() -> None:
    word, found = torch.zeros(1), list[torch.Tensor]()
    graph = captured(lambda: found.append(word.add_(1)))
    before = word.tolist()
    graph.replay()
    graph.replay()
    assert (before, word.tolist(), found[0] is word) == ([0], [2], True)


def test_what_an_operation_makes_is_made_again_in_its_place() -> None:
    source, output, made = torch.ones(2), torch.zeros(2), list[torch.Tensor]()

    def plug_in() -> None:
        made.append(source * 3)
        output.copy_(made[0] + 1)

    graph = captured(plug_in)
    source.fill_(5)
    graph.replay()
    assert (made[0].tolist(), output.tolist()) == ([15, 15], [16, 16])


def test_views_are_of_the_memory_that_is_there_at_a_replay() -> None:
    whole = torch.zeros(4)
    graph = captured(lambda: whole[1:].view(3, 1)[1:].fill_(2))
    whole.fill_(7)
    graph.replay()
    assert whole.tolist() == [7, 7, 2, 2]


def test_an_out_argument_is_what_its_operation_returns() -> None:
    one, out, found = torch.ones(2), torch.zeros(2), list[torch.Tensor]()
    graph = captured(lambda: found.append(torch.add(one, one, out=out)))
    graph.replay()
    assert (found[0] is out, out.tolist()) == (True, [2, 2])


def test_memory_that_comes_without_values_keeps_them_from_replay_to_replay() -> None:
    """As that of a graph's own pool does."""
    kept, source = list[torch.Tensor](), torch.ones(1)

    def plug_in() -> None:
        kept.append(torch.empty(1))
        kept[0].add_(source)

    graph = captured(plug_in)
    kept[0].zero_()
    graph.replay()
    graph.replay()
    assert kept[0].tolist() == [2]


def test_numbers_of_the_host_are_those_of_the_capture() -> None:
    word, epochs = torch.zeros(1), iter((4, 5))
    graph = captured(lambda: word.fill_(next(epochs)))
    graph.replay()
    graph.replay()
    assert (word.tolist(), next(epochs)) == ([4], 5)


def test_a_kernel_is_launched_at_every_replay_on_the_grid_of_its_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[tuple[object, ...]] = []

    def kernel(target: torch.Tensor, count: int, BLOCK: int) -> None:  # noqa: N803
        """Only its signature counts."""

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        launched.append((self.grid, args[0], *args[1:], kwargs))

    monkeypatch.setattr(GridExecutor, "__call__", launch)
    target, sizes = torch.zeros(8), iter((2, 3))
    executor = GridExecutor(kernel, ["target", "count", "BLOCK"], lambda meta: (next(sizes), meta["BLOCK"]))
    graph = captured(lambda: executor(target, 8, BLOCK=4, num_warps=1))
    assert launched == []
    graph.replay()
    graph.replay()
    assert launched == [((2, 4), target, 8, {"BLOCK": 4, "num_warps": 1})] * 2
    assert GridExecutor.__call__ is launch


def test_a_view_without_elements_keeps_no_memory_of_a_pool(rank: Rank) -> None:
    """A rank of an uneven call may contribute none; its peers' blocks go, and so must its own."""
    with rank.pool().use():
        block = torch.zeros(8)
    kept, blocks, sums = weakref.ref(block), [block], torch.ones(2, 3)
    del block
    graph = captured(lambda: torch.sum(blocks[0][8:].view(0, 2, 3), 0, out=sums), rank.substrate.device)
    blocks.clear()
    assert kept() is None
    graph.replay()
    assert sums.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_memory_of_a_pool_goes_where_its_policy_lets_it_go(rank: Rank) -> None:
    with rank.pool().use():
        block = torch.zeros(8)
    address, kept, blocks = block.data_ptr(), weakref.ref(block), [block]
    del block
    graph = captured(lambda: blocks[0][2:].view(3, 2).add_(1), rank.substrate.device)
    blocks.clear()
    with rank.pool().use():
        again = torch.zeros(8)
    graph.replay()
    assert (kept(), again.data_ptr(), again.tolist()) == (None, address, [0, 0, 1, 1, 1, 1, 1, 1])


def test_what_is_launched_in_flight_runs_in_the_order_of_its_stream() -> None:
    device, word = SimDevice(), torch.zeros(1)
    with device.in_flight():
        device.enqueue(lambda: word.fill_(3))
        with device.recorded(now):
            word.mul_(2)
        device.enqueue(lambda: word.add_(1))
        before = word.tolist()
        device.synchronize()
    assert (before, word.tolist()) == ([0], [7])


def test_work_of_the_host_that_goes_with_a_launch_runs_with_it() -> None:
    device, order = SimDevice(), list[str]()
    device.take_part(lambda: order.append("at once"))
    with device.capture() as graph, device.recorded(now):
        device.take_part(lambda: order.append("at a replay"))
    assert order == ["at once"]
    graph.replay()
    assert order == ["at once", "at a replay"]


def test_every_launch_is_called_as_asked() -> None:
    device, called, word = SimDevice(), list[int](), torch.zeros(1)

    def count(launch: Callable[[], object]) -> None:
        called.append(1)
        launch()

    with device.capture() as graph, device.recorded(count):
        word.add_(1)
    graph.replay()
    assert (called, word.tolist()) == ([1], [1])


def test_an_error_in_a_capture_ends_the_recording() -> None:
    device, word, launch = SimDevice(), torch.zeros(1), GridExecutor.__call__
    with pytest.raises(ValueError, match="inside"), device.capture(), device.recorded(now):
        raise ValueError("inside")
    word.add_(1)
    assert (word.tolist(), GridExecutor.__call__ is launch) == ([1], True)


@pytest.mark.parametrize(("is_eager", "held"), [(True, [1, 2]), (False, [2, 2])])
def test_what_waits_for_no_rank_may_run_after_a_later_call_on_another_stream(is_eager: bool, held: list[int]) -> None:
    """Two calls with one scratch: a kernel fills it, and an operation of torch copies it out."""
    device, scratch, outputs = SimDevice(), torch.zeros(1), torch.zeros(2)
    with device.in_flight(is_eager):
        for call in (0, 1):
            with device.stream(call), device.recorded(now):
                device.take_part(partial(scratch.data.fill_, call + 1))
                outputs[call].copy_(scratch[0])
        device.synchronize()
    assert outputs.tolist() == held
