"""What NCCL as a contender does before its memory is given back; NCCL is a log of calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.clock import Clock
from harness.rank.probes.speed import libraries
from harness.rank.probes.speed.libraries import UNTIL_LET_GO, UNTIL_QUEUED, Nccl
from harness.rank.probes.speed.operands import Operands
from tests.tools.fake_nccl import Calls, FakeComm


def test_calls_after_the_last_graph_wait_until_nccl_knows_that_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL gives up what a graph had registered in one of these calls, if the graph's end has reached it by then."""
    calls: Calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append(("synchronize",)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(libraries, "CLOCK", Clock(lambda: 0.0, lambda seconds: calls.append(("sleep", seconds))))
    contender: Any = object.__new__(Nccl)
    contender._comm = FakeComm(calls)
    contender.operands = Operands("all_gather", 0, 2, 4, torch.float32, torch.device("cpu"))
    contender.close()
    made = [("allgather", "")] * UNTIL_LET_GO
    assert calls == [("synchronize",), ("sleep", UNTIL_QUEUED), *made, ("synchronize",)]
