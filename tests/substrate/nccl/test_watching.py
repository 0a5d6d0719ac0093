"""A rank on a GPU whose pool calls NCCL by itself: what is asked of the observer, and communicators that the pool made.
NCCL is a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")


from harness.errors import UsageError  # noqa: E402
from harness.ipc.memory import SharedMemory  # noqa: E402
from harness.machine.observer import facts  # noqa: E402
from harness.scenario.layouts.groups import GroupId  # noqa: E402
from harness.substrate.nccl import quiet  # noqa: E402
from harness.substrate.nccl import substrate as module  # noqa: E402
from harness.substrate.nccl.substrate import NcclSubstrate  # noqa: E402
from harness.substrate.sim.device import SimDevice  # noqa: E402
from harness.trace.events import CommCreated, CommDestroyed, Event, Leaked  # noqa: E402
from tests.tools.fake_nccl import Calls, FakeComm, fake_calls  # noqa: E402

ALONE = GroupId((0,))
SIZE, AT, WINDOW, THEIRS = 2 << 20, 0x10000000, 0x77, 0xBEEF


class FakeObserver:
    """Notes what it is asked, in the log of NCCL's calls. Communicator 1 is the harness's, 2 the pool's, and so
    is 3, made later at the address of 2."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.hear: Callable[[facts.Fact], None] | None = None
        self.is_muted = False

    @contextmanager
    def muted(self) -> Iterator[None]:
        self.is_muted = True
        yield
        self.is_muted = False

    def listen(self, callback: Callable[[facts.Fact], None] | None) -> None:
        self.hear = callback

    def address(self, comm: int) -> int | None:
        return {1: 7, 2: THEIRS, 3: THEIRS}.get(comm)

    def __getattr__(self, name: str) -> Callable[..., int]:
        def ask(*arguments: object) -> int:
            self.calls.append((name, *arguments))
            return 0

        return ask


class TheirComm(FakeComm):
    """The communicator at the address that a pool gave."""


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def observer(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> FakeObserver:
    found = FakeObserver(calls)
    monkeypatch.setattr(quiet, "observer", lambda: found)
    return found


@pytest.fixture
def substrate(
    memory: SharedMemory, calls: Calls, observer: FakeObserver, monkeypatch: pytest.MonkeyPatch
) -> NcclSubstrate:
    """Rank 0 of a world of one, which has joined."""
    fake_calls(monkeypatch, calls, WINDOW)
    monkeypatch.setattr(torch._C, "_cuda_customAllocator", lambda alloc, free: (alloc, free), raising=False)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: [{"address": AT, "blocks": []}])
    monkeypatch.setattr(module, "NcclDevice", lambda gpu, is_in_pool: SimDevice())
    monkeypatch.setattr(module, "nccl_version", lambda: (2, 32, 3))
    monkeypatch.setattr(module.nc.Communicator, "init", lambda *_: FakeComm(calls))
    monkeypatch.setattr(module.nc.UniqueId, "from_bytes", staticmethod(bytes))
    memory.reset()
    made = NcclSubstrate(0, 1, 0, memory, frozenset({"forced"}))
    made.join(b"token")
    return made


def begin(substrate: NcclSubstrate) -> list[Event]:
    events: list[Event] = []
    substrate.start_recording(events.append)
    substrate.begin([(ALONE,)], [0], {ALONE: 0})
    substrate.observe("theirs")
    return events


def bring(substrate: NcclSubstrate, calls: Calls, monkeypatch: pytest.MonkeyPatch, ptr: int = THEIRS) -> FakeComm:
    """Have the pool's communicator at `ptr` serve the group."""
    theirs = TheirComm(calls, name="theirs")
    theirs.ptr = ptr
    monkeypatch.setattr(module.nc, "Communicator", lambda address: theirs)
    substrate.bring(ALONE, ptr)
    return theirs


def tell(observer: FakeObserver, *script: facts.Fact) -> None:
    assert observer.hear is not None
    for fact in script:
        observer.hear(fact)


def registered(comm: int) -> tuple[facts.Fact, ...]:
    """A segment that the pool takes and registers with a communicator."""
    return (
        facts.Allocated(address=AT, size=SIZE),
        facts.RegisterEntered(comm=comm, address=AT, size=SIZE, flags=1),
        facts.Registered(comm=comm, address=AT, size=SIZE, flags=1, window=WINDOW),
    )


def asked(calls: Calls, *names: str) -> list[Any]:
    return [call for call in calls if call[0] in names]


def test_a_draw_begins_and_ends_with_nothing_denied_refused_or_held(substrate: NcclSubstrate, calls: Calls) -> None:
    begin(substrate)
    substrate.end()
    assert asked(calls, "hold_frees") == [("hold_frees", True), ("hold_frees", False)]
    assert asked(calls, "deny_next", "refuse") == [("deny_next", 0), ("refuse", None)] * 2
    assert calls[-1] == ("release_held",)


def test_a_deny_step_asks_the_observer_for_one_denial(substrate: NcclSubstrate, calls: Calls) -> None:
    begin(substrate)
    calls.clear()
    substrate.deny()
    assert (calls, substrate.denial.is_due) == ([("deny_next",)], True)


def test_the_pools_segments_are_found_by_address(substrate: NcclSubstrate, observer: FakeObserver) -> None:
    begin(substrate)
    tell(observer, *registered(1))
    found = substrate.locate(AT + 5)
    assert found is not None
    assert (found.address, [window.communicator for window in found.windows]) == (
        AT,
        [substrate.communicator(ALONE)],
    )


def test_what_a_pool_with_a_teardown_leaves_is_a_leak(substrate: NcclSubstrate, observer: FakeObserver) -> None:
    events = begin(substrate)
    tell(observer, *registered(1))
    substrate.end()
    assert [event.what for event in events if isinstance(event, Leaked)] == ["segment", "window"]


def test_a_pool_without_a_teardown_leaks_nothing_and_its_windows_go_before_its_memory(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "memory_snapshot", list)
    events = begin(substrate)
    tell(observer, *registered(1))
    substrate.records_leaks = False
    substrate.take_back()
    substrate.end()
    gone = asked(calls, "comm_window_deregister", "release_held", "mem_free")
    assert [call[0] for call in gone] == ["comm_window_deregister", "release_held", "mem_free"]
    assert [event for event in events if isinstance(event, Leaked)] == []
    assert substrate.left == ""


def test_memory_that_the_caching_allocator_still_holds_is_left_and_said(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls
) -> None:
    begin(substrate)
    tell(observer, *registered(1))
    substrate.end()
    assert (substrate.left, asked(calls, "mem_free")) == ("1 segments that the pool took from NCCL", [])


def test_the_harnesss_own_calls_are_muted(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(nccl, "comm_window_register", lambda *_: seen.append(observer.is_muted))
    monkeypatch.setattr(nccl, "mem_alloc", lambda *_: seen.append(observer.is_muted) or 4096)
    begin(substrate)
    quiet.allocate(4096)
    quiet.register(1, 4096, 4096, 1)
    assert (seen, observer.is_muted) == ([True, True], False)


def test_without_an_observer_a_pool_that_needs_one_is_refused(
    substrate: NcclSubstrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "observer", lambda: None)
    with pytest.raises(UsageError, match="pool 'theirs' calls NCCL by itself, and no observer stands in front of"):
        begin(substrate)


# communicators that the pool made


def test_a_communicator_that_the_pool_brings_takes_the_groups_place(
    substrate: NcclSubstrate, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = begin(substrate)
    theirs = bring(substrate, calls, monkeypatch)
    substrate.bring(ALONE, THEIRS)
    assert substrate.communicator(ALONE).handle.comm is theirs  # type: ignore[attr-defined]
    made = [(type(event), getattr(event, "generation", -1)) for event in events]
    assert made == [(CommCreated, 0), (CommDestroyed, -1), (CommCreated, 1)]


def test_windows_of_a_communicator_that_the_pool_brought_are_the_groups(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    bring(substrate, calls, monkeypatch)
    tell(observer, *registered(2))
    assert [window.address for window in substrate.communicator(ALONE).windows] == [AT]


def test_the_harnesss_own_communicator_serves_a_group_no_more(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    bring(substrate, calls, monkeypatch)
    tell(observer, *registered(1))
    with pytest.raises(UsageError, match="a communicator at 0x7, which is none of the draw's groups'"):
        substrate.settle()


def test_a_communicator_that_the_pool_keeps_over_a_recreate_step_keeps_its_windows(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    bring(substrate, calls, monkeypatch)
    tell(observer, *registered(2))
    substrate.recreate((ALONE,))
    between = substrate.communicator(ALONE)
    substrate.bring(ALONE, THEIRS)
    assert (between.windows, len(substrate.communicator(ALONE).windows)) == ([], 1)
    assert (substrate.recreated[ALONE], asked(calls, "comm_window_deregister")) == (1, [])


def test_a_communicator_at_the_address_of_one_that_is_gone_is_another(
    substrate: NcclSubstrate, observer: FakeObserver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    bring(substrate, calls, monkeypatch)
    tell(observer, *registered(2))
    former = substrate.communicator(ALONE)
    substrate.recreate((ALONE,))
    tell(observer, facts.CommGone(comm=2, how="destroy"))
    bring(substrate, calls, monkeypatch)
    now = substrate.communicator(ALONE)
    assert (former.is_gone, now.is_gone, now is former) == (True, False, False)
    tell(observer, *registered(3))
    assert [window.address for window in now.windows] == [AT]


def test_a_communicator_that_the_pool_brought_is_not_the_harnesss_to_destroy(
    substrate: NcclSubstrate, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(substrate)
    bring(substrate, calls, monkeypatch)
    substrate.part()
    substrate.end()
    assert ("destroy", "theirs") not in calls
