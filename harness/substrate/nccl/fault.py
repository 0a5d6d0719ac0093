"""The text for an error that NCCL or CUDA reported: its own name, and the call that it came from.

Invariant: one short line that names nothing the exception does not carry. Imports neither NCCL nor CUDA.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

NCCL_ERRORS = (
    "ncclSuccess",
    "ncclUnhandledCudaError",
    "ncclSystemError",
    "ncclInternalError",
    "ncclInvalidArgument",
    "ncclInvalidUsage",
    "ncclRemoteError",
    "ncclInProgress",
    "ncclTimeout",
)
"""By `ncclResult_t`. The last one came with NCCL 2.29 (nccl4py 0.6, `nccl.bindings.Result`)."""
CUDA_ERRORS = {
    2: "cudaErrorMemoryAllocation",
    46: "cudaErrorDevicesUnavailable",
    214: "cudaErrorECCUncorrectable",
    700: "cudaErrorIllegalAddress",
    701: "cudaErrorLaunchOutOfResources",
    702: "cudaErrorLaunchTimeout",
    710: "cudaErrorAssert",
    714: "cudaErrorHardwareStackError",
    715: "cudaErrorIllegalInstruction",
    716: "cudaErrorMisalignedAddress",
    717: "cudaErrorInvalidAddressSpace",
    718: "cudaErrorInvalidPc",
    719: "cudaErrorLaunchFailure",
    720: "cudaErrorCooperativeLaunchTooLarge",
    805: "cudaErrorMpsConnectionFailed",
    806: "cudaErrorMpsRpcFailure",
    807: "cudaErrorMpsServerNotReady",
    808: "cudaErrorMpsMaxClientsReached",
    809: "cudaErrorMpsMaxConnectionsReached",
    810: "cudaErrorMpsClientTerminated",
    999: "cudaErrorUnknown",
}
"""Those that end a context or that ranks on one GPU run into, by `cudaError_t` (CUDA 13, `driver_types.h`)."""
LONGEST = 160


class LastError:
    """NCCL's text on its last error. NCCL keeps it after an error that was expected; then it explains no later one."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask, self._expected = ask, ""

    def expect(self) -> None:
        """Note that the last error was expected."""
        self._expected = self._ask()

    def unexpected(self) -> str:
        """NCCL's text, unless it is on an error that was expected."""
        text = self._ask()
        return text if text != self._expected else ""


def describe(error: BaseException, last_error: str = "") -> str:
    """Such as `ncclInvalidArgument (size is zero) from comm_window_register (nccl.pyx:12)`.

    `last_error` is NCCL's own text on this error, if it has one.
    """
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _line(_nccl_name(status), error, _first_line(last_error))
    name = _cuda_name(error)
    return _line(name or type(error).__name__, error, _first_line(str(error)).removeprefix("CUDA error: "))


def _line(name: str, error: BaseException, detail: str) -> str:
    caller = _caller(error)
    return f"{name}{f' ({detail})' if detail else ''}{f' from {caller}' if caller else ''}"


def _nccl_name(status: int) -> str:
    return NCCL_ERRORS[status] if 0 <= status < len(NCCL_ERRORS) else f"ncclResult_t {status}"


def _cuda_name(error: BaseException) -> str:
    """From PyTorch's hint, or by the error's number; empty if it has neither."""
    hint = re.search(r"\bcudaError[A-Z]\w+", str(error))
    return hint[0] if hint else CUDA_ERRORS.get(getattr(error, "error_code", None) or 0, "")


def _caller(error: BaseException) -> str:
    """The innermost frame, which is the call that reported the error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name} ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""


def _first_line(text: str) -> str:
    """The first line that is not empty, cut at `LONGEST`. PyTorch's errors have hints below it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
