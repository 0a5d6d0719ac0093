"""What is read from NCCL's answers, its kernels' names and its log; NCCL and the device are played."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.machine import profiler  # noqa: E402
from harness.substrate.nccl import evidence  # noqa: E402
from harness.substrate.nccl.calls import Call  # noqa: E402
from harness.substrate.nccl.evidence import (  # noqa: E402
    Asked,
    Checked,
    DebugLog,
    ForcedPath,
    KernelNames,
    PathEvidence,
    ToldCalls,
    Unforced,
    gather,
)

INVALID_ARGUMENT, SYSTEM_ERROR = 4, 2


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A GPU on which a capture is under way, if the last of this says so."""
    captures = [False]
    monkeypatch.setattr(evidence.torch.cuda, "is_current_stream_capturing", lambda: captures[-1])
    monkeypatch.setattr(evidence.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(evidence.torch.profiler, "profile", lambda **_: nullcontext())
    return captures


class Refusal(nccl.NCCLError):
    def __init__(self, status: int) -> None:
        self.status = status


class Nccl:
    """Takes calls, and refuses the selections named with a status."""

    def __init__(self, refuses: tuple[str, ...] = (), status: int = INVALID_ARGUMENT) -> None:
        self.refuses, self.status, self.issued, self.noted = refuses, status, [], 0

    def issue(self, selection: str) -> None:
        self.issued.append(selection)
        if selection in self.refuses:
            raise Refusal(self.status)

    def note(self) -> None:
        self.noted += 1

    def asked(self, eligible: bool = True, first: int = -1) -> Asked:
        return Asked("SYMK_ST", eligible, self.issue, lambda word: [word if first < 0 else first], self.note)


def test_a_forced_call_that_runs_is_symmetric() -> None:
    nccl = Nccl()
    assert ForcedPath().run(nccl.asked()) == ("symmetric", "NCCL ran forced SYMK_ST")
    assert nccl.issued == ["SYMK_ST"]


def test_a_forced_call_that_is_refused_runs_on_the_legacy_path() -> None:
    nccl = Nccl(("SYMK_ST",))
    assert ForcedPath().run(nccl.asked()) == ("legacy", "NCCL refused forced SYMK_ST with ncclInvalidArgument")
    assert (nccl.issued, nccl.noted) == (["SYMK_ST", "^symk"], 1)


def test_a_refusal_of_a_call_that_is_not_eligible_says_so() -> None:
    text = ForcedPath().run(Nccl(("SYMK_ST",)).asked(eligible=False))[1]
    assert text.endswith(", for which the call is not eligible")


def test_another_error_than_a_refusal_is_not_taken_for_one() -> None:
    with pytest.raises(Refusal):
        ForcedPath().run(Nccl(("SYMK_ST",), SYSTEM_ERROR).asked())


def test_the_debug_check_is_what_refuses_both_paths() -> None:
    path, text = Checked(ForcedPath()).run(Nccl(("SYMK_ST", "^symk")).asked())
    assert (path, text.split(" found")[0]) == ("refused", "NCCL's debug check")


def test_the_debug_check_leaves_a_refused_kernel_to_the_forced_path() -> None:
    assert Checked(ForcedPath()).run(Nccl(("SYMK_ST",)).asked())[0] == "legacy"


def test_the_debug_check_lets_other_errors_through() -> None:
    with pytest.raises(Refusal):
        Checked(ForcedPath()).run(Nccl(("SYMK_ST",), SYSTEM_ERROR).asked())


# names of kernels


def profiled(monkeypatch: pytest.MonkeyPatch, *names: str) -> tuple[str, str]:
    class Profile:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def events(self) -> list[Any]:
            return [SimpleNamespace(name=name) for name in names]

    monkeypatch.setattr(evidence.torch.profiler, "profile", lambda **_: Profile())
    monkeypatch.setattr(evidence.torch.cuda, "synchronize", lambda: None)
    return KernelNames().run(Nccl().asked())


def test_a_symmetric_kernel_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profiled(monkeypatch, "memset", "ncclSymkDevKernel_AllGather_LL(ncclSymkDevWorkArgs4K)")
    assert found == ("symmetric", "the kernel ncclSymkDevKernel_AllGather_LL ran")


def test_a_legacy_kernel_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profiled(monkeypatch, "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)")
    assert found == ("legacy", "the kernel ncclDevKernel_AllGather_RING_LL ran")


def test_without_a_kernel_of_nccls_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert profiled(monkeypatch, "memset") == ("unknown", "")


@pytest.mark.parametrize("kind", [KernelNames, DebugLog])
def test_what_waits_for_the_device_claims_nothing_in_a_capture(
    kind: Any, device: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_DEBUG_FILE", "")
    way, nccl = kind(), Nccl()
    device.append(True)
    monkeypatch.setattr(evidence.torch.cuda, "synchronize", lambda: pytest.fail("CUDA does not allow that"))
    assert (way.run(nccl.asked()), nccl.issued) == (("unknown", ""), [""])


# the log

LINE = "host:1:1 [0] NCCL INFO {}: 8192 Bytes -> {}\n"
SYMMETRIC = LINE.format("AllGather [Symmetric]", "Kernel AllGather_LL nchannels 4 nthreads 512 nWorks 1")
LEGACY = LINE.format("AllGather", "Algo RING proto LL channel{Lo..Hi}={0..1}")


def logged(monkeypatch: pytest.MonkeyPatch, before: str, during: str, first: int = -1) -> tuple[str, str]:
    monkeypatch.setattr(evidence.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setenv("NCCL_DEBUG_FILE", "")
    log, nccl = DebugLog(), Nccl()
    with open(evidence.os.environ["NCCL_DEBUG_FILE"], "w") as file:
        file.write(before)
        file.flush()

        def issue(selection: str) -> None:
            file.write(during)
            file.flush()

        asked = nccl.asked(first=first)
        return log.run(replace(asked, issue=issue))


def test_the_log_says_that_a_call_was_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = logged(monkeypatch, LEGACY, SYMMETRIC)
    assert (path, text) == ("symmetric", "NCCL logged Kernel AllGather_LL nchannels 4 nthreads 512 nWorks 1")


def test_the_log_says_that_a_call_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged(monkeypatch, SYMMETRIC, LEGACY)[0] == "legacy"


def test_a_rank_whose_log_has_no_line_takes_its_groups_first_ranks_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged(monkeypatch, LEGACY, "", first=1) == ("symmetric", "NCCL logged it on the group's first rank")


def test_without_a_line_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged(monkeypatch, SYMMETRIC, "") == ("unknown", "")


# NCCL's own word


class Told:
    """The plug-in of a process: a call is told while it is made."""

    def __init__(self, *events: Call) -> None:
        self.written, self._events = 0, events

    def last_since(self, before: int) -> Call | None:
        return self._events[-1] if self._events else None


SYMMETRIC_CALL = Call(is_symmetric=1, function=b"AllGather", kernel=b"AllGather_ST")
LEGACY_CALL = Call(is_symmetric=0, function=b"AllGather", algorithm=b"RING", protocol=b"LL")


def test_nccl_says_which_path_an_unforced_call_took() -> None:
    nccl = Nccl()
    found = ToldCalls(Unforced(), Told(LEGACY_CALL)).run(nccl.asked())
    assert found == ("legacy", "NCCL told its profiler of AllGather RING LL")
    assert nccl.issued == [""]


def test_nccls_word_comes_beside_the_forced_path() -> None:
    found = ToldCalls(ForcedPath(), Told(SYMMETRIC_CALL)).run(Nccl().asked())
    assert found == ("symmetric", "NCCL ran forced SYMK_ST; NCCL told its profiler of AllGather_ST")


def test_nccls_word_outweighs_what_was_forced() -> None:
    assert ToldCalls(ForcedPath(), Told(LEGACY_CALL)).run(Nccl().asked())[0] == "legacy"


@pytest.mark.parametrize(("inner", "found"), [(ForcedPath(), "symmetric"), (Unforced(), "unknown")])
def test_without_a_word_what_is_beside_it_stands(inner: PathEvidence, found: str) -> None:
    assert ToldCalls(inner, Told()).run(Nccl().asked())[0] == found


# what a process gathers


@pytest.mark.parametrize(("name", "kind"), [("forced", ForcedPath), ("profiler", KernelNames)])
def test_a_process_gathers_the_kind_that_its_world_chose(name: str, kind: type) -> None:
    assert isinstance(gather(frozenset({name, "stamps"})), kind)


@pytest.mark.parametrize("names", [{"calls"}, {"calls", "forced"}])
def test_nccls_word_comes_around_the_forced_path_or_an_unforced_call(
    monkeypatch: pytest.MonkeyPatch, names: set[str]
) -> None:
    monkeypatch.setenv(profiler.VARIABLE, profiler.library())
    assert isinstance(gather(frozenset(names)), ToldCalls)


def test_the_debug_check_comes_around_the_kind_of_the_path() -> None:
    assert isinstance(gather(frozenset({"forced", "check"})), Checked)
