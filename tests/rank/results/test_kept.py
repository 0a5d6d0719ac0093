"""What a call left: a loss is seen once, with the place and the time of it; what the program does itself is none."""

from __future__ import annotations

import pytest
import torch

from harness.rank.results.kept import RETURNED, Kept
from harness.trace.events import Lost
from harness.trace.trace import TEARDOWN
from tests.tools.one_rank import Rank

SIZE = 40
WATCHED = pytest.mark.parametrize("is_watched", [True, False], ids=["watched", "not watched"])


class Scene:
    """A buffer of which the call at step 1 has left elements 10 to 29."""

    def __init__(self, alone: Rank, is_watched: bool) -> None:
        self.alone, self.kept = alone, Kept(alone.substrate, is_watched)
        self.body = torch.arange(SIZE, dtype=torch.int32)
        self.result = self.body[10:30]
        alone.events.clear()
        self.kept.began(1)
        self.kept.hold("output", "a", self.result, self.result.clone())
        self.kept.began(3)

    @property
    def seen(self) -> list[Lost]:
        return [event for event in self.alone.events if isinstance(event, Lost)]

    def call(self, *written: torch.Tensor, spoiled: int | None = None) -> None:
        """A call that writes there, and one element more."""
        self.kept.before(*written)
        for each in written:
            each.fill_(-1)
        if spoiled is not None:
            self.body[spoiled] = 77
        self.kept.after("call")


def brief(lost: Lost) -> tuple[object, ...]:
    return lost.elements, lost.of, lost.index, lost.when, lost.since, lost.call


def test_a_change_in_a_call_is_seen_right_after_it_if_memory_is_watched(alone: Rank) -> None:
    scene = Scene(alone, is_watched=True)
    scene.call(spoiled=13)
    (lost,) = scene.seen
    assert brief(lost) == (1, 20, 3, "call", 3, 1)
    assert (lost.before, lost.after, lost.address) == (
        "13 (0x0000000d)",
        "77 (0x0000004d)",
        scene.body.data_ptr() + 4 * 13,
    )


def test_a_change_between_calls_is_seen_before_the_next(alone: Rank) -> None:
    scene = Scene(alone, is_watched=True)
    scene.body[13] = 77
    scene.call()
    assert [brief(lost) for lost in scene.seen] == [(1, 20, 3, "between", 1, 1)]


def test_without_a_watch_a_change_is_seen_when_the_program_writes_there(alone: Rank) -> None:
    scene = Scene(alone, is_watched=False)
    scene.call(spoiled=13)
    assert scene.seen == []
    scene.kept.began(5)
    scene.call(scene.body[:20])
    assert [brief(lost) for lost in scene.seen] == [(1, 20, 3, "between", 1, 1)]


@WATCHED
def test_a_change_is_seen_when_its_buffer_goes(alone: Rank, is_watched: bool) -> None:
    scene = Scene(alone, is_watched)
    scene.body[29] = 77
    scene.kept.drop("b")
    assert scene.seen == []
    scene.kept.drop("a")
    assert [brief(lost) for lost in scene.seen] == [(1, 20, 19, "between", 1, 1)]


@WATCHED
def test_a_change_is_seen_at_the_end_and_once(alone: Rank, is_watched: bool) -> None:
    scene = Scene(alone, is_watched)
    scene.body[10:12] = 77
    scene.kept.began(TEARDOWN)
    scene.kept.end()
    scene.kept.end()
    assert [brief(lost) for lost in scene.seen] == [(2, 20, 0, "between", 1, 1)]


@WATCHED
@pytest.mark.parametrize("written", [slice(0, 40), slice(10, 30), slice(5, 15), slice(25, 40), slice(15, 20)])
def test_what_the_program_writes_is_no_loss(alone: Rank, is_watched: bool, written: slice) -> None:
    scene = Scene(alone, is_watched)
    scene.call(scene.body[written])
    scene.call(scene.body[written])
    scene.kept.end()
    assert scene.seen == []


@WATCHED
@pytest.mark.parametrize("spoiled", [10, 14, 20, 29])
def test_what_the_program_left_of_a_result_is_still_watched(alone: Rank, is_watched: bool, spoiled: int) -> None:
    scene = Scene(alone, is_watched)
    scene.call(scene.body[15:20])
    scene.body[spoiled] = 77
    scene.kept.end()
    assert [(lost.elements, lost.index) for lost in scene.seen] == [(1, spoiled - 10)]


@WATCHED
def test_a_result_that_is_lost_twice_is_recorded_once(alone: Rank, is_watched: bool) -> None:
    scene = Scene(alone, is_watched)
    scene.body[13] = 77
    scene.call(scene.body[13:14], scene.body[20:])
    scene.body[12] = 77
    scene.kept.end()
    assert len(scene.seen) == 1


@WATCHED
def test_nothing_is_read_where_a_buffer_goes_in_a_capture(alone: Rank, is_watched: bool) -> None:
    scene = Scene(alone, is_watched)
    scene.body[13] = 77
    with alone.substrate.device.capture():
        scene.kept.drop("a")
    scene.kept.end()
    assert scene.seen == []


def test_of_a_source_what_is_output_may_change(alone: Rank) -> None:
    scene = Scene(alone, is_watched=True)
    scene.kept.drop("a")
    scene.kept.hold_source("a", scene.body, scene.body.clone(), scene.body[:20])
    scene.call(spoiled=19)
    assert scene.seen == []
    scene.call(spoiled=20)
    assert [(lost.role, lost.index) for lost in scene.seen] == [("source", 20)]


def test_memory_of_another_width_is_cut_where_it_lies(alone: Rank) -> None:
    """A graph's operands are bytes."""
    scene = Scene(alone, is_watched=True)
    scene.call(scene.body.view(torch.uint8)[4 * 12 + 1 : 4 * 14])
    assert scene.seen == []
    scene.call(spoiled=14)
    assert [lost.index for lost in scene.seen] == [4]


# tensors that plug-ins returned


@WATCHED
def test_a_returned_tensor_is_lost_to_the_call_that_returned_its_memory(alone: Rank, is_watched: bool) -> None:
    scene, scratch = Scene(alone, is_watched), torch.zeros(8)
    scene.kept.hold_returned(scratch[:6], scratch[:6].clone())
    scene.kept.began(7)
    scene.kept.before()
    scratch[:4] = 5
    scene.kept.came(scratch[:4])
    scene.kept.after("call")
    (lost,) = scene.seen
    assert (lost.buffer, lost.call, lost.by, lost.elements, lost.of) == ("", 3, 7, 4, 6)


@WATCHED
def test_a_returned_tensor_that_changes_later_is_lost_to_no_call_that_returned_it(
    alone: Rank, is_watched: bool
) -> None:
    scene, scratch = Scene(alone, is_watched), torch.zeros(8)
    scene.kept.hold_returned(scratch, scratch.clone())
    scene.kept.before()
    scene.kept.came(scratch)
    scene.kept.after("call")
    scratch[1] = 5
    scene.kept.end()
    assert [(lost.by, lost.when, lost.index) for lost in scene.seen] == [(-1, "between", 1)]


def test_without_a_watch_a_returned_tensor_is_looked_at_after_every_call(alone: Rank) -> None:
    scene, scratch = Scene(alone, is_watched=False), torch.zeros(8)
    scene.kept.hold_returned(scratch, scratch.clone())
    scratch[1] = 5
    scene.kept.began(4)
    scene.call()
    assert [(lost.when, lost.since) for lost in scene.seen] == [("by", 3)]


def test_the_last_returned_tensors_are_kept_and_no_others(alone: Rank) -> None:
    scene = Scene(alone, is_watched=True)
    returned = [torch.zeros(4) for _ in range(RETURNED + 1)]
    for step, tensor in enumerate(returned):
        scene.kept.began(step)
        scene.kept.hold_returned(tensor, tensor.clone())
    for tensor in returned:
        tensor[0] = 5
    scene.kept.end()
    assert [lost.call for lost in scene.seen] == [*range(1, RETURNED + 1)]
