"""GPUs for tests that need several: the first few of those that this process sees, or a reason why not.

`gpu_of` is for `World.call`, on a rank with a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.machine import gpus


@contextmanager
def first(count: int) -> Iterator[list[str]]:
    """Under it, worlds of this process stand on the first `count` GPUs, whose UUIDs it gives. Skips the test where
    fewer are visible. No world may be open: one that shares its GPUs would share them with the next."""
    visible = [gpu.uuid for gpu in gpus.inventory()]
    if len(visible) < count:
        pytest.skip(f"{count} GPUs are needed, and {gpus.number(gpus.inventory())} can be seen (see --symm-world)")
    with pytest.MonkeyPatch.context() as patch:
        if len(visible) > count:
            patch.setenv(gpus.VISIBLE, ",".join(visible[:count]))
        yield visible[:count]


def own() -> dict[str, str]:
    """Environment of a run of pytest that is no part of the run of this test, on the GPUs of this test."""
    not_ours = "SYMM_LEASED_BY", "PYTEST_XDIST_", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"
    return {name: value for name, value in os.environ.items() if not name.startswith(not_ours)}


def gpu_of(substrate: Any, slots: object) -> str:
    """UUID of the GPU that this rank computes on."""
    import torch

    return str(torch.cuda.get_device_properties(substrate.device.torch_device).uuid)
