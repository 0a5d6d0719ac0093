"""Where a run keeps what it finds, and what earlier runs have left for it.

Invariant: a place that cannot be written to is refused before anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.campaign import seeds
from harness.errors import UsageError
from harness.nights.folder import RunFolder
from harness.nights.known import Folder

SEEDS = Path("symm-seeds")


@dataclass(frozen=True)
class Keeping:
    """`folder` holds all of a run, where that is asked for. `seeds` gets a file for each finding."""

    folder: RunFolder | None
    seeds: Path
    known: Folder

    def check(self) -> None:
        """Raise `UsageError` for a place that cannot be written to."""
        seeds.check_folder(self.seeds)


def keeping(run_dir: Path | None, seeds_dir: Path | None, known: Path | None, is_dry: bool) -> Keeping:
    """What the options say. Raises `UsageError` for options that do not go together."""
    if run_dir is None:
        return Keeping(None, seeds_dir or SEEDS, Folder(known))
    if is_dry:
        raise UsageError("--run keeps a run, and --dry makes none")
    if seeds_dir is not None:
        raise UsageError("--seeds-dir does not go with --run, which keeps seed files in DIR/seeds")
    folder = RunFolder(run_dir)
    return Keeping(folder, folder.seeds, Folder(known))
