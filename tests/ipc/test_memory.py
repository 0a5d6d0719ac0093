"""Shared memory: laid out without overlap, reset to zero, named where the system refuses it."""

from __future__ import annotations

import os

import pytest

from harness.errors import MachineError
from harness.ipc.memory import SharedMemory
from tests.tools.draws import descriptors


def refuse(*_: object) -> None:
    raise OSError(12, "Cannot allocate memory")


def test_memory_that_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError, match=r"\d+ MiB of shared memory: Cannot allocate memory"):
        SharedMemory.create(2)


def test_memory_that_is_refused_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError):
        SharedMemory.create(2)
    assert descriptors() == before
