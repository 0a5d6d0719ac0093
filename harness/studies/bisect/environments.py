"""An environment with one version of a package, laid over the present one.

Invariant: the present environment stays as it is, and the folder with the version goes when its user is done, also
where that is interrupted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness import interrupts
from harness.machine.inherited import import_path, inherited
from harness.studies.bisect.versions import Source, error_of
from harness.world.hosts.launch import OPT_OUT

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


def install(package: str, version: str, source: Source, folder: Path, along: Collection[str] = ()) -> list[Path]:
    """Put one version into a new folder below `folder`, without what it depends on.

    Of its dependencies, those named in `along` get folders of their own, in the versions that it asks for. Returns all
    of the folders. Raises `NotInstalled`.
    """
    place = _put(package, f"{package}=={version}", source, folder)
    return [place, *(_put(name, wanted, source, folder) for name, wanted in _wanted(place, along).items())]


def _put(name: str, wanted: str, source: Source, folder: Path) -> Path:
    # one folder a package: pip leaves a folder alone that is in its target already, as `nvidia` would be
    place, own = folder / "site" / name, folder / "pip"
    own.mkdir(exist_ok=True)
    options = "--quiet", "--no-deps", "--no-compile", "--no-user", "--target", str(place)
    ended = source.pip("install", *options, wanted, scratch=own)
    if ended.status:
        raise NotInstalled(error_of(ended))
    return place


def _wanted(place: Path, along: Collection[str]) -> dict[str, str]:
    """What a version asks for of the packages named: each with its limits, as pip takes them."""
    (installed,) = metadata.distributions(path=[str(place)])
    asked = [
        each for each in map(Requirement, installed.requires or ()) if each.marker is None or each.marker.evaluate()
    ]
    named = {str(canonicalize_name(each.name)): f"{each.name}{each.specifier}" for each in asked}
    return {name: named[name] for name in along if name in named}


def environment(places: Sequence[Path]) -> dict[str, str]:
    """All of the environment of a process that finds the packages in `places` before all others, and runs alone.

    Where they hold an NCCL, that is the one that the process and its ranks load: it comes first in the link map, so
    that torch and nccl4py, which ask for it by its soname, get it. Another one that was preloaded is left out.
    """
    found = inherited({"PYTHONPATH": import_path(*map(str, places))}, dict([OPT_OUT]))
    library = next((file for place in places for file in sorted(place.rglob(NCCL))), None)
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


def names(places: Sequence[Path]) -> set[str]:
    """What can be imported out of folders: the names of their packages and modules."""
    entries = (path for place in places for path in place.iterdir() if path.suffix not in (".dist-info", ".data"))
    return {path.name.partition(".")[0] for path in entries if path.is_dir() or path.suffix in (".py", ".so")} - {"bin"}
