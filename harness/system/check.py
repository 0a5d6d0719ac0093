"""The named system under test, checked in the parent before ranks start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from harness.errors import MachineError, PluginError
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


class Looked(NamedTuple):
    """A plug-in that was looked at: which part it is, and a sentence for each thing that is wrong."""

    part: str
    problems: list[str]


def look(name: str) -> Looked:
    """Look at a plug-in, whichever part it is, for everything that its shape lacks. Runs no method but `__init__` of
    collectives. Raises `PluginError` where it does not load."""
    with _same_directory(), redirect_stdout(sys.stderr):
        found = load_attribute("plug-in", name, ())
        from harness.system.shape import COLLECTIVES, POOL  # noqa: PLC0415

        if callable(found) and not isinstance(found, type) and not any(hasattr(found, each) for each in COLLECTIVES):
            return Looked("pool", _problems_of(name, found, "pool"))  # a function that makes policies
        parts = {"pool": POOL, "collectives": COLLECTIVES}
        has = {part: sum(hasattr(found, each) for each in methods) for part, methods in parts.items()}
        if not any(has.values()):
            text = "has neither use(self, group) of a pool nor all_gather(self, context, output, source) of collectives"
            return Looked("none", [text])
        part = max(has, key=lambda each: has[each])
        return Looked(part, _problems_of(name, found, part))


def plug_ins_of(module: str) -> list[str]:
    """The plug-ins that a module defines, as `module:Class`. Raises `PluginError` where it does not import."""
    with _same_directory(), redirect_stdout(sys.stderr):
        members = load_attribute("plug-in", f"{module}:__dict__", ())
    mine = {name: each for name, each in members.items() if getattr(each, "__module__", None) == module}
    methods = ("use", "all_gather", "reduce_scatter")
    is_part = {
        name: isinstance(each, type) and any(hasattr(each, one) for one in methods) for name, each in mine.items()
    }
    return [f"{module}:{name}" for name, is_one in is_part.items() if is_one and not name.startswith("_")]


def _problems_of(name: str, found: Any, part: str) -> list[str]:
    from harness.system.collectives import find_collectives  # noqa: PLC0415
    from harness.system.pools.built_in import load_pool  # noqa: PLC0415
    from harness.system.shape import collectives_problems, pool_problems  # noqa: PLC0415

    try:
        if part == "collectives":
            # collectives without a device are built here, as a command does before its ranks start
            problems = [*collectives_problems(found)] or [*collectives_problems(find_collectives(name)())]
        else:
            problems = [*pool_problems(found)] if isinstance(found, type) else []
    except (Exception, SystemExit) as error:
        return [f"raised when looked at: {type(error).__name__}: {error}"]
    if problems:
        return [f"{each}; write {each.instead}" if each.instead else str(each) for each in problems]
    try:
        _ = load_pool(name) if part == "pool" else None  # what it is built with
    except PluginError as error:
        return [str(error).removeprefix(f"pool {name!r} ")]
    return []


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


def made(collectives: str | None) -> frozenset[str] | None:
    """The operations that these collectives make, with equal counts; None for what is built in. Builds what is not."""
    if collectives is None or collectives in ("library", *KERNELS):
        return None
    from harness.system.collectives import load_collectives  # noqa: PLC0415
    from harness.system.shape import COLLECTIVES, MORE_COLLECTIVES, OPS, runs  # noqa: PLC0415

    with _same_directory(), redirect_stdout(sys.stderr):
        found = load_collectives(collectives)
    kinds = {**COLLECTIVES, **MORE_COLLECTIVES}
    return frozenset(
        kind for kind in kinds if runs(found, kind, OPS[0] if "op" in kinds[kind].split(", ") else None, False, 4)
    )


def prepare(pools: Iterable[str], environment: Mapping[str, str]) -> None:
    """Have pools make ready what their ranks need, such as a library to be built: each that has `prepare`.

    Each does so in a process of its own, which may use a GPU and has these variables. Raises `MachineError` with the
    last line that such a process printed.
    """
    from harness.system.pools.built_in import load_pool  # noqa: PLC0415

    for pool in pools:
        if callable(getattr(load_pool(pool), "prepare", None)):
            _prepare(pool, environment)


def _prepare(pool: str, environment: Mapping[str, str]) -> None:
    command = [
        sys.executable,
        "-P",
        "-c",
        f"from harness.system.pools.built_in import load_pool; load_pool({pool!r}).prepare()",
    ]
    try:
        subprocess.run(command, env=environment, capture_output=True, timeout=PREPARING, check=True)
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
