"""The versions of a package that pip can install here: from the index that it is configured with, or from wheels.

Invariant: pip alone decides which files fit this interpreter. No source archive is taken, so no version runs code of
its own while it is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from harness.errors import MachineError, UsageError
from harness.machine.inherited import inherited
from harness.studies.bisect.children import Ended, run

LISTED = "Available versions:"
"""How the line of `pip index versions` begins (pip 21.2 and later)."""


class Source(msgspec.Struct, frozen=True):
    """Where versions come from: a folder of wheels, or the index."""

    wheels: Path | None = None
    is_pre_release_wanted: bool = False

    def __post_init__(self) -> None:
        if self.wheels is not None and not self.wheels.is_dir():
            raise UsageError(f"--wheels {self.wheels}: it is not a directory")

    @property
    def name(self) -> str:
        """The source in words."""
        return "pip's index" if self.wheels is None else str(self.wheels)

    @property
    def options(self) -> list[str]:
        """Options of pip that choose among its files."""
        chosen = ["--only-binary", ":all:"]
        if self.is_pre_release_wanted:
            chosen.append("--pre")
        return chosen if self.wheels is None else [*chosen, "--no-index", "--find-links", str(self.wheels.absolute())]

    def pip(self, *arguments: str, scratch: Path | None = None) -> Ended:
        """Run a command of pip, which puts its own temporary files into `scratch`.

        With a folder of wheels, pip's own configuration does not count: it may name further places. Raises
        `MachineError` where this Python has no pip.
        """
        if find_spec("pip") is None:
            raise MachineError(f"symm bisect needs pip, and {sys.executable} has none: python -m ensurepip brings it")
        environment = inherited()
        if self.wheels is not None:
            environment = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
            environment["PIP_CONFIG_FILE"] = os.devnull
        if scratch is not None:
            environment["TMPDIR"] = str(scratch)
        quiet = "--disable-pip-version-check", "--no-input"
        # -P: a file in the working directory must not be taken for one of pip's modules
        return run([sys.executable, "-P", "-m", "pip", *arguments, *quiet, *self.options], environment)


def distribution(package: str, option: str = "--over") -> str:
    """The name of a package as indexes write it. Raises `UsageError` for one that is none, such as `torch==2.13`."""
    try:
        return canonicalize_name(package, validate=True)
    except InvalidName:
        raise UsageError(f"{option} {package!r}: it is not the name of a package") from None


def available(package: str, source: Source) -> list[str]:
    """All versions that fit this interpreter, oldest first. Raises `UsageError` where there is none."""
    listed = source.pip("index", "versions", package)
    for line in listed.out.splitlines():
        if line.startswith(LISTED):
            return sorted(line.removeprefix(LISTED).replace(",", " ").split(), key=Version)
    raise UsageError(f"{source.name} has no wheel of {package!r} that fits this Python: {error_of(listed)}")


def between(versions: Sequence[str], first: str | None, last: str | None) -> list[str]:
    """The versions from `first` to `last`, both included, which need not be versions that there are.

    Raises `UsageError` where fewer than two are left: nothing can change then.
    """
    low, high = _bound("--from", first), _bound("--to", last)
    above = [each for each in versions if low is None or low <= Version(each)]
    chosen = [each for each in above if high is None or _is_within(each, high)]
    if len(chosen) < 2:
        found = f"only {chosen[0]}" if chosen else "none"
        limits = " ".join(f"{name} {bound}" for name, bound in (("--from", low), ("--to", high)) if bound is not None)
        left = f"{limits} leaves {found} of {', '.join(versions)}" if limits else f"there is {found}"
        raise UsageError(f"a change takes two versions, and {left}")
    return chosen


def among(versions: Sequence[str], version: str | None) -> str | None:
    """The version of these that is `version`, whatever it was built for: 2.13.0 is that of `2.13.0+cu130`."""
    try:
        public = None if version is None else Version(version).public
    except InvalidVersion:
        return None
    return next((each for each in versions if Version(each).public == public), None)


def _bound(option: str, text: str | None) -> Version | None:
    try:
        return None if text is None else Version(text)
    except InvalidVersion:
        raise UsageError(f"{option} {text!r}: it is not a version") from None


def _is_within(version: str, high: Version) -> bool:
    """Whether a version is at most `high`. A local one, such as `2.13.0+cpu`, counts as the version that it is of."""
    found = Version(version)
    return found <= high or (high.local is None and Version(found.public) <= high)


def error_of(ended: Ended) -> str:
    """Why pip failed, by its last error."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")] or lines
    return f"pip: {errors[-1].strip()}" if errors else f"pip ended with status {ended.status}"
