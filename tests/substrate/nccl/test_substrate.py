"""The order in which a rank on a GPU makes and takes back communicators, windows and memory; NCCL is a log."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")


from harness.ipc.memory import SharedMemory  # noqa: E402
from harness.scenario.layouts.groups import GroupId, GroupIds  # noqa: E402
from harness.substrate.communicator import RegistrationError  # noqa: E402
from harness.substrate.nccl import substrate as module  # noqa: E402
from harness.substrate.nccl.handle import NcclHandle  # noqa: E402
from harness.substrate.nccl.substrate import NcclSubstrate  # noqa: E402
from harness.substrate.segment import Segment  # noqa: E402
from harness.substrate.sim.device import SimDevice  # noqa: E402
from harness.trace.events import Event, Leaked  # noqa: E402
from tests.tools.fake_nccl import Calls, FakeComm, fake_calls, real_memory  # noqa: E402

ALONE = (GroupId((0,)),)
ADDRESS, WINDOW = 4096, 0x40


class NcclFault(nccl.NCCLError):
    def __init__(self, status: int) -> None:
        self.status = status


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    fake_calls(monkeypatch, calls, WINDOW)
    monkeypatch.setattr(torch._C, "_cuda_customAllocator", lambda alloc, free: (alloc, free), raising=False)
    monkeypatch.setattr(module, "NcclDevice", lambda gpu, is_in_pool: SimDevice())
    monkeypatch.setattr(module, "nccl_version", lambda: (2, 32, 3))
    monkeypatch.setattr(module.nc.Communicator, "init", lambda *_: FakeComm(calls))
    monkeypatch.setattr(module.nc.UniqueId, "from_bytes", staticmethod(bytes))
    return calls


@pytest.fixture
def substrate(memory: SharedMemory, calls: Calls) -> NcclSubstrate:
    """Rank 0 of a world of one, which has joined."""
    memory.reset()
    substrate = NcclSubstrate(0, 1, 0, memory, frozenset({"forced"}))
    substrate.join(b"token")
    return substrate


def begin(substrate: NcclSubstrate) -> list[Event]:
    events: list[Event] = []
    substrate.start_recording(events.append)
    substrate.begin([ALONE], [0], {GroupId((0,)): 0})
    return events


def register(substrate: NcclSubstrate) -> Segment:
    segment = Segment(9, "tp", ADDRESS, 2 << 20)
    substrate.communicator(GroupId((0,))).register(segment)
    return segment


def names(calls: Calls) -> list[Any]:
    return [call[0] for call in calls]


def test_a_communicator_is_kept_for_the_next_draw(substrate: NcclSubstrate, calls: Calls) -> None:
    for _ in range(2):
        begin(substrate)
        substrate.end()
    assert names(calls) == ["split"]


class Captured:
    """In place of a scenario: of its captured calls one has so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def captured(self, least: int) -> GroupIds:
        return ALONE if self.nbytes >= least else ()


@pytest.mark.parametrize(
    ("nbytes", "protocol", "made"),
    [
        (16 << 10, "", ["split", "destroy", "split"]),
        ((16 << 10) - 1, "", ["split"]),
        (1, "Simple", ["split", "destroy", "split"]),
    ],
)
def test_communicators_with_large_captured_calls_are_new_in_the_next_draw(
    substrate: NcclSubstrate, calls: Calls, nbytes: int, protocol: str, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if protocol:
        monkeypatch.setenv("NCCL_PROTO", protocol)
    scenario: Any = Captured(nbytes)
    begin(substrate)
    substrate.end()
    substrate.give_up(scenario)
    begin(substrate)
    assert names(calls) == made


def test_a_recreated_communicators_windows_go_first(substrate: NcclSubstrate, calls: Calls) -> None:
    begin(substrate)
    register(substrate)
    calls.clear()
    substrate.recreate(ALONE)
    assert names(calls) == ["comm_window_deregister", "destroy", "split"]
    assert substrate.communicator(GroupId((0,))).generation == 1


def test_a_recreated_communicators_workspaces_go_before_it(
    substrate: NcclSubstrate, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    real_memory(monkeypatch, calls, 2 << 20)
    old = substrate.communicator(GroupId((0,)))
    old.workspace("flags", 8)
    calls.clear()
    substrate.recreate(ALONE)
    assert names(calls) == ["mem_free", "destroy", "split"]
    assert old.identity != substrate.communicator(GroupId((0,))).identity


@pytest.mark.parametrize(("evidence", "is_free"), [("forced", False), ("profiler", True)])
def test_nccl_chooses_the_path_of_a_call_that_it_is_not_forced_to(
    memory: SharedMemory, calls: Calls, evidence: str, is_free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert NcclSubstrate(0, 1, 0, memory, frozenset({evidence})).chooses_freely is is_free


def test_pads_begin_anew_with_every_draw(
    substrate: NcclSubstrate, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[NcclHandle] = []

    def renew(handle: NcclHandle) -> None:
        renewed.append(handle)

    monkeypatch.setattr(NcclHandle, "renew", renew)
    begin(substrate)
    handle = substrate.communicator(GroupId((0,))).handle  # type: ignore[attr-defined]
    assert renewed == []
    handle._window = WINDOW
    begin(substrate)
    assert renewed == [handle]


def test_the_recreated_communicator_is_the_one_that_is_kept(substrate: NcclSubstrate, calls: Calls) -> None:
    begin(substrate)
    substrate.recreate(ALONE)
    substrate.end()
    calls.clear()
    begin(substrate)
    assert calls == []


def test_windows_that_are_left_are_recorded_and_go_before_quarantined_memory(
    substrate: NcclSubstrate, calls: Calls
) -> None:
    events = begin(substrate)
    segment = register(substrate)

    substrate.allocator._quarantine(segment)
    calls.clear()
    substrate.end()
    assert calls == [("comm_window_deregister", "base.1", WINDOW), ("mem_free", ADDRESS)]
    assert [type(event) for event in events if isinstance(event, Leaked)] == [Leaked]


def test_memory_leaves_quarantine_once(substrate: NcclSubstrate, calls: Calls) -> None:
    begin(substrate)
    substrate.allocator._quarantine(register(substrate))
    substrate.end()
    calls.clear()
    begin(substrate)
    substrate.end()
    assert calls == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NcclFault(4), "ncclInvalidArgument"),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "AcceleratorError"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "RuntimeError"),
    ],
    ids=["nccl", "cuda", "triton"],
)
def test_a_report_of_nccl_cuda_or_the_driver_is_a_fault(error: Exception, text: str, substrate: NcclSubstrate) -> None:
    assert substrate.fault(error).startswith(text)


@pytest.mark.parametrize("error", [None, RuntimeError("a mistake"), ValueError("Triton Error [CUDA]")], ids=str)
def test_a_mistake_in_python_is_no_fault(error: Exception | None, substrate: NcclSubstrate) -> None:
    assert substrate.fault(error) == ""


def test_a_registration_that_nccl_refused_is_a_fault_by_its_cause(substrate: NcclSubstrate) -> None:
    error = RegistrationError("refused")
    assert substrate.fault(error) == "", "a refusal that a step asked for is none of NCCL's"
    error.__cause__ = NcclFault(5)
    assert substrate.fault(error) == "ncclInvalidUsage"


def test_a_fault_comes_with_nccls_last_error(substrate: NcclSubstrate) -> None:
    substrate._handles.base.last_error = "window of size 0"
    assert substrate.fault(NcclFault(5)) == "ncclInvalidUsage (window of size 0)"


def test_rank_0_alone_gives_the_token_by_which_processes_join(
    substrate: NcclSubstrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(module.nc, "get_unique_id", lambda: b"token")
    first = substrate.describe()
    substrate.rank = 1
    assert (first["token"], "token" in substrate.describe()) == (b"token", False)


def test_the_path_evidence_names_the_version_and_the_kinds(
    substrate: NcclSubstrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(module.nc, "get_unique_id", lambda: b"token")
    assert substrate.describe()["path_evidence"] == "NCCL 2.32.3, forced"
