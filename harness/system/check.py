"""The named system under test, checked in the parent before ranks start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from harness.errors import MachineError
from harness.scenario.system import KERNELS, POOLS
from harness.system.loading import load_attribute

PREPARING = 900.0
"""Seconds for a pool to make ready what its ranks need."""


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
        if collectives is not None and collectives not in ("library", *KERNELS):
            load_attribute("collectives", collectives, ("library", *KERNELS))
            from harness.system.collectives import load_collectives  # noqa: PLC0415

            load_collectives(collectives)


def built_in_collectives() -> list[str]:
    """The names of the kernels that ship here."""
    from harness.system.collectives import BUILT_IN  # noqa: PLC0415

    return [*BUILT_IN]


def observed(*pools: str | None) -> dict[str, str]:
    """Those of the pools that call NCCL by themselves, each with the design that stands in for it without NCCL, or
    nothing. Loads what is not built in."""
    found = {}
    for pool in pools:
        if pool is not None and pool not in POOLS:
            from harness.system.pools.built_in import load_pool  # noqa: PLC0415
            from harness.system.shape import is_observed  # noqa: PLC0415

            factory = load_pool(pool)
            if is_observed(factory):
                found[pool] = getattr(factory, "fallback", "")
    return found


def fallbacks(*collectives: str | None) -> dict[str, str]:
    """Those of the collectives that need a GPU, each with those that the simulation runs in their place. Loads what is
    not built in."""
    found = {}
    for name in collectives:
        if name is None or name == "library":
            continue
        if (instead := KERNELS.get(name)) is None:
            from harness.system.collectives import fallback_of  # noqa: PLC0415

            instead = fallback_of(load_attribute("collectives", name, ("library", *KERNELS)))
        if instead:
            found[name] = instead
    return found


def pulls(collectives: str | None) -> bool:
    """Whether peers read the sources of these collectives. Loads what is not built in."""
    if collectives is None or collectives in ("library", *KERNELS):
        return False
    return getattr(load_attribute("collectives", collectives, ("library", *KERNELS)), "pulls", False) is True


def prepare(pools: Iterable[str], import_path: str) -> None:
    """Have pools make ready what their ranks need, such as a library to be built: each that has `prepare`.

    Each does so in a process of its own, which may use a GPU and looks for modules on `import_path`. Raises
    `MachineError` with the last line that such a process printed.
    """
    from harness.system.pools.built_in import load_pool  # noqa: PLC0415

    for pool in pools:
        if callable(getattr(load_pool(pool), "prepare", None)):
            _prepare(pool, import_path)


def _prepare(pool: str, import_path: str) -> None:
    command = [
        sys.executable,
        "-P",
        "-c",
        f"from harness.system.pools.built_in import load_pool; load_pool({pool!r}).prepare()",
    ]
    try:
        subprocess.run(
            command, env={**os.environ, "PYTHONPATH": import_path}, capture_output=True, timeout=PREPARING, check=True
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"pool {pool!r} was not prepared within {PREPARING:.0f} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [f"status {error.returncode}"]
        raise MachineError(f"pool {pool!r} cannot be prepared: {lines[-1]}") from None


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
