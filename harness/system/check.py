"""The named system under test, checked in the parent before ranks start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from harness.scenario.system import KERNELS, POOLS
from harness.system.loading import load_attribute


def check_system(pool: str | None, collectives: str | None) -> None:
    """Load what the names stand for, so that a wrong one ends a command before ranks start. Raises `PluginError`.

    None, the collectives `library`, and what is built in need no loading: it would import torch, which takes seconds
    and which most commands do without.
    """
    # what a plug-in prints when it is imported is no result of the command
    with _same_directory(), redirect_stdout(sys.stderr):
        if pool is not None and pool not in POOLS:
            load_attribute("pool", pool, POOLS)  # a name that cannot be right is refused without torch
            from harness.system.pools.built_in import load_pool  # noqa: PLC0415

            load_pool(pool)
        if collectives not in (None, "library", *KERNELS):
            load_attribute("collectives", collectives, ("library", *KERNELS))
            from harness.system.collectives import load_collectives  # noqa: PLC0415

            load_collectives(collectives)


@contextmanager
def _same_directory() -> Iterator[None]:
    """A plug-in that changes the working directory when it is imported does so on its ranks alone."""
    # ranks start in the parent's directory and look for the plug-in there, and the command writes its files there
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)
