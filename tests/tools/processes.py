"""Processes of one run, known from all others by a mark in the environment that they inherit."""

from __future__ import annotations

import time
from uuid import uuid4

import psutil

VARIABLE = "SYMM_TEST_RUN"


def new_mark() -> dict[str, str]:
    """Environment to start a run with, unlike that of any other run."""
    return {VARIABLE: uuid4().hex}


def marked(mark: dict[str, str]) -> list[int]:
    """Live processes that were started with this mark, the zygote and the ranks among them."""
    return [process.pid for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: dict[str, str]) -> bool:
    try:
        return process.environ().get(VARIABLE) == mark[VARIABLE]
    except psutil.Error:  # it is gone, or another user's
        return False


def left(mark: dict[str, str], seconds: float) -> list[int]:
    """Marked processes that are still there after this time; returns at once when there are none."""
    end = time.monotonic() + seconds
    while (found := marked(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    return found
