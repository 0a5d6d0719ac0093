"""The GPUs of this machine, looked at without touching a device.

Invariant: nothing here creates a CUDA context or changes a setting.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from harness.text import counted

CONTROL_DEVICE = "/dev/nvidiactl"
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER, BY_BUS = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"


class Gpu(msgspec.Struct, frozen=True):
    """A GPU as the driver sees it."""

    uuid: str
    name: str
    memory: int
    driver: str


def number(found: Sequence[Gpu]) -> str:
    """How many GPUs, as a person reads it."""
    return counted(len(found), "GPU")


def inventory() -> list[Gpu]:
    """GPUs that a process started here would see, in CUDA order; empty without a driver."""
    return visible(present(), os.environ.get(VISIBLE))


def present() -> list[Gpu]:
    """All GPUs of this machine, in the order of their bus; empty without a driver."""
    try:
        import pynvml  # noqa: PLC0415  (absent on some machines)

        pynvml.nvmlInit()
    except Exception:
        return []
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [
            Gpu(
                pynvml.nvmlDeviceGetUUID(handle),
                pynvml.nvmlDeviceGetName(handle),
                pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                driver,
            )
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()


def why_no_gpu() -> str:
    """Why `inventory` is empty where a driver, its binding or `CUDA_VISIBLE_DEVICES` is to blame, as ` (…)`; empty
    where there is no GPU, or where none is to be seen."""
    try:
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
    except Exception as error:
        return f" ({error})" if os.path.exists(CONTROL_DEVICE) else ""
    pynvml.nvmlShutdown()
    setting = os.environ.get(VISIBLE, "")
    return f" ({VISIBLE}={setting!r} leaves none of {number(found)})" if setting and (found := present()) else ""


def only(gpu: int) -> dict[str, str]:
    """Environment in which a process sees the GPU of that CUDA index alone, as its first."""
    setting = by_uuid().get(VISIBLE, os.environ.get(VISIBLE))
    return {VISIBLE: str(gpu) if setting is None else _words(setting)[gpu]}


def by_uuid() -> dict[str, str]:
    """Environment that names the GPUs which `CUDA_VISIBLE_DEVICES` leaves, by UUID. Empty where it is not set, names
    what is no whole GPU, or has numbers that may mean other GPUs to CUDA.

    An MPS daemon numbers anew the GPUs that it is left. Its clients then find none under an old number.
    """
    words = _words(os.environ.get(VISIBLE, ""))
    found = inventory() if words else []
    is_sure = len(found) == len(words) and not (any(map(str.isdigit, words)) and _may_be_sorted())
    return {VISIBLE: ",".join(gpu.uuid for gpu in found)} if found and is_sure else {}


def _may_be_sorted() -> bool:
    """Whether CUDA may number the cards otherwise than the driver, which goes by their bus: it takes the fastest
    first, unless it is told not to."""
    return os.environ.get(ORDER) != BY_BUS and len({gpu.name for gpu in present()}) > 1


def visible(found: list[Gpu], setting: str | None) -> list[Gpu]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order: indices or UUID prefixes, up to the
    first that names none, or several. None where one is named twice (CUDA's own rules, as `torch.cuda` has them in
    `_parse_visible_devices` and `_transform_uuid_to_ordinals`)."""
    if setting is None:
        return found
    chosen: list[Gpu] = []
    for word in _words(setting):
        if word.isdigit():
            named = found[int(word) : int(word) + 1]
        else:
            named = [gpu for gpu in found if gpu.uuid.startswith(word)]
        if len(named) != 1:
            break
        if named[0] in chosen:
            return []
        chosen.append(named[0])
    return chosen


def _words(setting: str) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` names, up to the first empty word: there CUDA stops."""
    return [*takewhile(bool, (part.strip() for part in setting.split(",")))]
