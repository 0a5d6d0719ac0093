"""What comes before a call that is looked at later."""

from __future__ import annotations

import pytest
import torch

from harness.rank.deferred.calls import DeferredCall
from harness.rank.exact import ExactData
from harness.rank.values import all_ones
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import View
from harness.scenario.steps import AllGather
from harness.substrate.bits import bits
from tests.tools.one_rank import Rank

COUNT = 8


@pytest.mark.parametrize(
    ("index", "is_in_place", "last"),
    [(0, False, "source"), (2, False, "output"), (2, True, "source"), (4, False, "source"), (6, False, "output")],
)
def test_the_kernel_right_before_a_call_writes_its_source_or_its_output_by_turns(
    alone: Rank, monkeypatch: pytest.MonkeyPatch, index: int, is_in_place: bool, last: str
) -> None:
    """A call that does not wait for that kernel reads or writes too early. In place, poison would spoil the source."""
    device, written = alone.substrate.device, []

    def move(target: torch.Tensor, source: torch.Tensor) -> None:
        written.append(target.data_ptr())
        target.copy_(source)

    monkeypatch.setattr(device, "move_by_kernel", move)
    exact = ExactData(AllGather("tp", View("output"), COUNT), (0,), 0, torch.device("cpu"))
    call = DeferredCall(alone.substrate, GroupId((0,)), exact, index, "output", "source")
    output = torch.zeros(COUNT, dtype=torch.int32)
    source = output if is_in_place else torch.zeros(COUNT, dtype=torch.int32)
    call.take(output, source)
    call.fill([1])
    call.before()
    assert written[-1] == {"source": source, "output": output}[last].data_ptr()
    assert bits(source).equal(bits(call.feed))
    assert is_in_place or bool((bits(output) == all_ones(output)).all())
