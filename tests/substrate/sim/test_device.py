"""The simulated device: streams by number, and captured work that runs at replays."""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import partial

import pytest
import torch

from harness.substrate.sim.device import SimDevice, tensor_at


def test_work_is_done_at_once() -> None:
    done: list[int] = []
    SimDevice().enqueue(lambda: done.append(1))
    assert done == [1]


def test_captured_work_is_not_done_before_a_replay() -> None:
    device, done = SimDevice(), list[int]()
    with device.capture():
        device.enqueue(lambda: done.append(1))
    assert done == []


def test_captured_work_is_done_at_every_replay_in_its_order() -> None:
    device, done = SimDevice(), list[int]()
    with device.capture() as graph:
        for number in (1, 2):
            device.enqueue(lambda number=number: done.append(number))  # type: ignore[misc]
    graph.replay()
    graph.replay()
    assert done == [1, 2, 1, 2]


def test_work_after_a_capture_is_not_captured() -> None:
    device, done = SimDevice(), list[int]()
    with device.capture() as graph:
        pass
    device.enqueue(lambda: done.append(1))
    graph.replay()
    assert done == [1]


def test_a_device_captures_inside_a_capture_alone() -> None:
    device = SimDevice()
    with device.capture():
        inside = device.is_capturing
    assert (inside, device.is_capturing) == (True, False)


def test_a_capture_ends_with_an_exception() -> None:
    device = SimDevice()
    with pytest.raises(RuntimeError, match="inside"), device.capture():
        raise RuntimeError("raised inside")
    assert not device.is_capturing


def test_the_stream_before_is_current_again_after_a_nested_one() -> None:
    device, seen = SimDevice(), list[int]()
    with device.stream(2):
        with device.stream(1):
            seen.append(device.current_stream)
        seen.append(device.current_stream)
    assert [*seen, device.current_stream] == [1, 2, 0]


def test_a_view_reads_and_writes_the_memory_at_its_address() -> None:
    memory = torch.zeros(4, dtype=torch.uint8)
    SimDevice().view(memory.data_ptr() + 1, 2).fill_(7)
    assert memory.tolist() == [0, 7, 7, 0]


def test_a_copy_of_memory_that_is_as_it_was_is_the_known_one() -> None:
    memory = torch.arange(4, dtype=torch.uint8)
    known = SimDevice().copy(memory.data_ptr(), 4)
    assert SimDevice().copy(memory.data_ptr(), 4, known) is known


@pytest.mark.parametrize(
    ("size", "known"),
    [(20, {3: 9}), (20, {19: 9}), (20, {16: 0}), (19, {}), (12, {}), (9, {}), (3, {}), (0, {})],
    ids=["in a word", "in the last byte", "behind the words", "19 bytes", "12 bytes", "9 bytes", "3 bytes", "no byte"],
)
def test_memory_that_is_not_as_it_was_is_copied(size: int, known: dict[int, int]) -> None:
    """Of another size it never is, whatever lies behind it."""
    memory = torch.tensor([*range(1, 9), *range(1, 9), *range(1, 5), 0], dtype=torch.uint8)
    before = bytes(known.get(at, each) for at, each in enumerate(memory.tolist()))[:20]
    assert SimDevice().copy(memory.data_ptr(), size, before) == bytes(memory.tolist())[:size]


def test_a_known_copy_that_is_shorter_is_not_taken() -> None:
    memory = torch.tensor([1, 2, 3, 0], dtype=torch.uint8)
    assert SimDevice().copy(memory.data_ptr(), 4, bytes([1, 2, 3])) == bytes([1, 2, 3, 0])


def test_what_is_read_is_a_copy() -> None:
    memory = torch.arange(4, dtype=torch.uint8)
    copy = SimDevice().read(memory.data_ptr() + 1, 2)
    memory.zero_()
    assert copy.tolist() == [1, 2]


def test_a_tensor_at_an_address_has_the_elements_of_its_dtype() -> None:
    memory = torch.tensor([1.5, -2.0])
    assert tensor_at(memory.data_ptr(), 2, torch.float32).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("is_eager", "order"),
    [
        (True, ["1 local", "2 local", "1 call", "1 after", "2 call"]),
        (False, ["1 local", "1 call", "2 local", "2 call", "1 after"]),
    ],
)
def test_work_in_flight_runs_where_it_is_waited_for_as_early_or_as_late_as_streams_allow(
    is_eager: bool, order: list[str]
) -> None:
    device, done = SimDevice(), list[str]()
    with device.in_flight(is_eager):
        for stream, name in ((1, "1 local"), (1, "1 call"), (1, "1 after"), (2, "2 local"), (2, "2 call")):
            with device.stream(stream):
                device.enqueue(partial(done.append, name), is_collective=name.endswith("call"))
        before = [*done]
        device.synchronize()
    assert (before, done) == ([], order)


def test_collectives_in_flight_run_in_the_order_of_their_calls() -> None:
    device, done = SimDevice(), list[int]()
    with device.in_flight():
        for number, stream in enumerate((2, 0, 1, 0, 2)):
            with device.stream(stream):
                device.enqueue(partial(done.append, number), is_collective=True)
        device.flush()
    assert done == [0, 1, 2, 3, 4]


def test_what_another_stream_uses_in_flight_stays_until_that_is_done() -> None:
    device, tensor = SimDevice(), torch.zeros(1)
    kept = weakref.ref(tensor)
    with device.in_flight():
        device.record_stream(tensor)
        del tensor
        stayed = kept() is not None
        device.flush()
    assert (stayed, kept()) == (True, None)


def test_nothing_in_flight_is_left_where_a_draw_breaks_off() -> None:
    device, done = SimDevice(), list[int]()
    with suppress(KeyError), device.in_flight():
        device.enqueue(partial(done.append, 1))
        raise KeyError
    device.synchronize()
    assert (done, device.is_in_flight, device.does_later) == ([], False, False)


def test_what_ends_as_memory_is_freed_ends_behind_what_is_in_flight() -> None:
    device, done = SimDevice(), list[str]()
    with device.in_flight():
        device.once_waited(lambda: done.append("at once"))
        with device.waited():
            device.once_waited(lambda: done.append("landed"))
        device.once_waited(lambda: done.append("at once, too"))
    with device.waited():
        device.once_waited(lambda: done.append("nothing in flight"))
    assert done == ["at once", "at once, too", "landed", "nothing in flight"]
