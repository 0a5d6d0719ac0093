"""The text for errors of NCCL and CUDA: one line, the error's own name, and the call that it came from.

There is no GPU here: exceptions of the same shape stand for the real ones.
"""

from __future__ import annotations

import re

import pytest
import torch

from harness.substrate.nccl.fault import LastError, describe

HINTS = """\
CUDA error: an illegal memory access was encountered
Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda/cuda-runtime-api/ for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
"""


class NCCLError(Exception):
    """As `nccl.bindings.nccl.NCCLError`: a number and no more."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def raised(error: BaseException) -> BaseException:
    """The error with the traceback of a call that raised it."""

    def comm_window_register() -> None:
        raise error

    try:
        comm_window_register()
    except type(error) as caught:
        return caught
    raise AssertionError


def cuda_error(text: str, code: int | None = None) -> BaseException:
    error = torch.AcceleratorError(text)
    if code is not None:
        error.error_code = code  # type: ignore[attr-defined]
    return error


FROM = r" from comm_window_register \(test_fault\.py:\d+\)"


def test_an_nccl_error_has_its_name_and_call() -> None:
    assert re.fullmatch("ncclInvalidArgument" + FROM, describe(raised(NCCLError(4))))


def test_an_nccl_error_has_nccls_own_text() -> None:
    text = describe(raised(NCCLError(5)), "window of size 0\nand a hint")
    assert re.fullmatch(r"ncclInvalidUsage \(window of size 0\)" + FROM, text)


def test_an_nccl_error_of_a_later_version_has_its_number() -> None:
    assert describe(NCCLError(42)) == "ncclResult_t 42"


def test_a_cuda_error_has_its_name_without_the_hints() -> None:
    text = describe(raised(cuda_error(HINTS)))
    assert re.fullmatch(r"cudaErrorIllegalAddress \(an illegal memory access was encountered\)" + FROM, text)


def test_a_cuda_error_without_a_hint_is_named_by_its_number() -> None:
    assert describe(cuda_error("CUDA error: unspecified launch failure", 719)) == (
        "cudaErrorLaunchFailure (unspecified launch failure)"
    )


@pytest.mark.parametrize("code", [None, 12345])
def test_a_cuda_error_that_cannot_be_named_keeps_its_text(code: int | None) -> None:
    assert describe(cuda_error("CUDA error: something new", code)) == "AcceleratorError (something new)"


def test_a_long_text_is_cut() -> None:
    assert len(describe(NCCLError(3), "x" * 5000)) < 200


def test_the_last_error_is_unexpected_unless_it_was_expected() -> None:
    texts = iter(["out of memory", "out of memory", "a broken link"])
    last = LastError(lambda: next(texts))
    last.expect()
    assert [last.unexpected(), last.unexpected()] == ["", "a broken link"]
