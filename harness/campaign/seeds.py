"""Seed files: a failing scenario with its findings and environment, as versioned JSON that replays.

Invariant: a seed file is whole or not there (written beside its place, then renamed), it is on disk before the finding
that it holds is raised, and it is never replaced by one of another scenario. A file that cannot be read is named and
left alone.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Container, Sequence
from contextlib import suppress
from importlib import resources
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec

from harness.errors import UsageError, did_you_mean
from harness.oracle.findings import Record
from harness.scenario.scenario import Scenario
from harness.scenario.system import KERNELS, POOLS, System
from harness.scenario.topology import LARGEST, parse, read_file

SCHEMA = 1
PLANTED = "harness.system.planted."
"""Where the harness has plug-ins of its own."""
Writing = tuple[int, int]


class SeedError(UsageError):
    """A seed file of another schema, damaged, or not there."""


class Reruns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often a scenario failed when it ran again, on rank processes that had run nothing else."""

    failed: int
    runs: int
    after: int | None = None
    """Where it failed in none: how many draws before it have to run there for it to fail; None if it did not even
    after all that are known."""


class Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a seed file holds."""

    schema: int
    scenario: Scenario
    findings: tuple[Record, ...]
    environment: dict[str, Any]
    reruns: Reruns | None = None
    preceded_by: tuple[Scenario, ...] = ()
    """Draws to run before the scenario, in this order and in the same rank processes, where it does not fail alone."""
    signature: str = ""
    """Of its first finding (`harness.campaign.signatures`); empty in files from before there were any."""
    symptoms: tuple[str, ...] = ()
    """What draws show that were seen to shrink to it (`harness.campaign.symptoms`)."""
    states: tuple[str, ...] = ()
    """In a corpus, the states of the oracle that the scenario reached."""
    note: str = ""
    """What a person wrote down about it."""
    is_smallest: bool = True
    """Whether it was shrunk to its end, as far as that is known."""

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """All that a replay runs, in order."""
        return *self.preceded_by, self.scenario


def load(path: Path | str) -> Seed:
    """Read a seed file. Raises `SeedError` naming the file and what is wrong with it."""
    try:
        data = read_file(path)
    except ValueError as error:
        raise SeedError(f"seed file {path or repr(path)}: {error}") from error
    try:
        schema = _schema(data)
        if schema != SCHEMA:
            raise SeedError(f"it has schema {schema!r}; this version reads {SCHEMA}")
        return msgspec.json.decode(data, type=Seed)
    except (ValueError, RecursionError, UsageError) as error:
        raise SeedError(f"seed file {path}: {error}") from error


def _schema(data: bytes) -> object:
    found = parse(data)
    return found.get("schema") if isinstance(found, dict) else None


def named() -> dict[str, Path]:
    """The seeds that ship with the harness: file stem to path."""
    # a folder of the package, not a package: `harness.topologies`, imported, would hide the strategy of that name
    folder = resources.files("harness") / "topologies" / "seeds"
    files = (Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {path.stem: path for path in sorted(files)}


def signed(folder: Path) -> dict[str, str]:
    """The seed files of a folder that have a signature: signature to path."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.json"), reverse=True):
        with suppress(SeedError):
            found[load(path).signature] = str(path)
    return {signature: path for signature, path in found.items() if signature}


def find(name: str) -> Seed:
    """A seed by file path, or by the name of one that ships with the harness; a file of that name comes first.

    Raises `SeedError` that names the file and its error, or the seeds that ship.
    """
    shipped = named()
    if not os.path.exists(name) and name in shipped:
        return load(shipped[name])
    is_path = not name or os.path.exists(name) or Path(name).name != name or Path(name).suffix == ".json"
    if not is_path:
        meant = did_you_mean(name, shipped)
        raise SeedError(f"seed {name!r} is neither a file nor one of {', '.join(shipped)}{meant}")
    return load(name)


def command(path: str, system: System, *options: str) -> str:
    """What replays a seed file. It names the plug-ins that the seed needs, as a seed runs no code by itself."""
    named = [option for part, name in plug_ins(system).items() for option in (f"--{part}", name)]
    return shlex.join(["symm", "replay", path, *named, *options])


def plug_ins(system: System) -> dict[str, str]:
    """The parts of a system that are no part of the harness: `pool`, `collectives`, each with its name."""
    built_in = {"pool": POOLS, "collectives": tuple(KERNELS)}
    names = {"pool": system.pool, "collectives": system.collectives}
    return {part: name for part, name in names.items() if name not in built_in[part] and not name.startswith(PLANTED)}


def check_plug_ins(what: str, system: System, named: Container[str | None]) -> None:
    """Raise `SeedError` for a plug-in that the seed `what` names and that is not among those `named` by the user."""
    for part, name in plug_ins(system).items():
        if name not in named:
            raise SeedError(
                f"seed {what} names {part} {name!r}, and a seed runs no code by itself: if you trust it, add "
                f"--{part} {shlex.quote(name)}, or --allow-plugins"
            )


def save(seed: Seed, path: Path) -> None:
    """Write a seed file, whole or not at all."""
    write_whole(path, encoded(seed))


def encoded(seed: Seed) -> bytes:
    """What its file holds."""
    return _text(seed) + b"\n"


def _text(data: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(data), indent=2)


def last_that_fit(draws: Sequence[Scenario], room: int = LARGEST // 2) -> tuple[Scenario, ...]:
    """The last of some draws that a seed file has room for, beside its own scenario and its stacks."""
    left = accumulate(len(_text(draw)) for draw in reversed(draws))
    # inside the file each line is indented further
    return tuple(draws[len(draws) - sum(2 * size <= room for size in left) :])


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it there, making its folder if need be. A link stays one.

    Raises `UsageError` where that is impossible.
    """
    is_special = path.exists() and not path.is_file()
    # of a pipe, such as /dev/fd/63, realpath gives a name that is no file
    path = path if is_special else Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if is_special:
            path.write_bytes(data)  # a pipe or a device is written to, not replaced
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        raise


class SeedFile:
    """The file of a failure that is being shrunk, in `folder`. It is named after what failed, by which cause, and after
    its scenario; once a smaller one is saved, the file before goes, unless others may count on it: it was there
    already, or another process has written it since."""

    def __init__(self, folder: Path, what: str, cause: str = "") -> None:
        self._folder, self._what, self._cause = folder, what, cause
        self._own: tuple[Path, Writing] | None = None
        """The file that was made here, and which writing of it was that."""

    def save(self, seed: Seed) -> str:
        """Write it. Returns its path."""
        path = self._folder / name_for(self._what, seed.scenario, self._cause)
        former = self._former()
        is_own = path == former or not path.exists()
        save(seed if is_own else _with_what_is_there(seed, path), path)
        if former is not None and former != path:
            former.unlink(missing_ok=True)
        self._own = (path, _writing(path)) if is_own else None
        return str(path)

    def drop(self) -> None:
        """Remove it, unless others may count on it."""
        former = self._former()
        if former is not None:
            former.unlink(missing_ok=True)
        self._own = None

    def _former(self) -> Path | None:
        """The file that was made here before, if no other process has written it since."""
        if self._own is None:
            return None
        path, writing = self._own
        return path if _writing(path) == writing else None


def _with_what_is_there(seed: Seed, path: Path) -> Seed:
    """A seed with what a file of the same scenario says besides: a person's note, what draws showed that shrank to it,
    and how it ran and what it was signed as, where the seed does not say that itself."""
    try:
        there = load(path)
    except SeedError:
        return seed
    if there.scenario != seed.scenario:
        return seed
    known: dict[str, Any] = {"note": seed.note or there.note, "symptoms": union(there.symptoms, seed.symptoms)}
    if seed.reruns is None:
        known |= {"reruns": there.reruns, "preceded_by": there.preceded_by}
    if not seed.signature and there.signature:
        known |= {"signature": there.signature, "is_smallest": there.is_smallest}
    return msgspec.structs.replace(seed, **known)


def sign(path: Path, signature: str, symptoms: Sequence[str]) -> None:
    """Note in a file that is there the signature of its finding, and further symptoms. What it says by now stays.

    Raises `SeedError` where the file is gone, and `UsageError` where it cannot be written.
    """
    there = load(path)
    signed = msgspec.structs.replace(there, signature=signature, symptoms=union(there.symptoms, symptoms))
    if signed != there:
        save(signed, path)


def union(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Symptoms of files that are of one case."""
    return tuple(sorted({*some, *others}))


def _writing(path: Path) -> Writing:
    """What differs between one writing of a file and the next, which replaces it."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return 0, 0


def name_for(what: str, scenario: Scenario, cause: str = "") -> str:
    """A file name for what failed, a rule as a rule, by one of its causes, on a scenario."""
    digest = hashlib.sha256(msgspec.json.encode(scenario) + cause.encode()).hexdigest()[:10]
    return f"{what}-{digest}.json"


def check_folder(path: Path, what: str = "seeds directory") -> None:
    """Raise `UsageError` now if files could not be kept in `path` later, by what it is. Leaves nothing."""
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{what} {path}: it is a link that leads nowhere")
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise UsageError(f"{what} {path}: {existing} is not a directory")
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"{what} {path}: {existing} is not writable ({error.strerror})") from error
