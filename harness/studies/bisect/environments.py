"""An environment with one version of a package, laid over the present one.

Invariant: the present environment stays as it is, and the folder with the version goes when its user is done, also
where that is interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from harness import interrupts
from harness.studies.bisect.versions import Source, error_of
from harness.world.zygote import import_path

NCCL = "libnccl.so.2"


class NotInstalled(Exception):
    """pip could not install a version. The message says why."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, which goes at the end. A signal cuts neither its making nor its end short."""
    with interrupts.held():
        folder = Path(mkdtemp(prefix="symm-bisect-"))
    try:
        interrupts.check()
        yield folder
    finally:
        with interrupts.held():
            shutil.rmtree(folder, ignore_errors=True)


def install(package: str, version: str, source: Source, folder: Path) -> Path:
    """Put one version, without what it depends on, into a new folder below `folder`. Raises `NotInstalled`."""
    place, own = folder / "site", folder / "pip"
    own.mkdir()
    options = "--quiet", "--no-deps", "--no-compile", "--no-user", "--target", str(place)
    ended = source.pip("install", *options, f"{package}=={version}", scratch=own)
    if ended.status:
        raise NotInstalled(error_of(ended))
    return place


def environment(place: Path) -> dict[str, str]:
    """All of the environment of a process that finds the packages in `place` before all others.

    Where they hold an NCCL, that is the one that the process and its ranks load: it comes first in the link map, so
    that torch and nccl4py, which ask for it by its soname, get it. Another one that was preloaded is left out.
    """
    found = {**os.environ, "PYTHONPATH": import_path(str(place))}
    library = next(iter(sorted(place.rglob(NCCL))), None)
    if library is not None:
        found["LD_PRELOAD"] = _joined(str(library), _preloaded())
        found["LD_LIBRARY_PATH"] = _joined(str(library.parent), os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return found


def _preloaded() -> list[str]:
    """What is preloaded already, besides an NCCL. ld.so takes spaces and colons between names."""
    names = os.environ.get("LD_PRELOAD", "").replace(os.pathsep, " ").split()
    return [name for name in names if Path(name).name != NCCL]


def _joined(first: str, others: Sequence[str]) -> str:
    return os.pathsep.join([first, *filter(None, others)])


def names(place: Path) -> set[str]:
    """What can be imported out of a folder: the names of its packages and modules."""
    entries = (path for path in place.iterdir() if not path.name.endswith((".dist-info", ".data")))
    return {path.name.partition(".")[0] for path in entries if path.is_dir() or path.suffix in (".py", ".so")} - {"bin"}
