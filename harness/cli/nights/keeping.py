"""Where a run keeps what it finds, and what earlier runs have left for it.

Invariant: a place that cannot be written to is refused before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.campaign import seeds
from harness.errors import UsageError
from harness.nights import observations
from harness.nights.corpus import Corpus
from harness.nights.corpus import check_folder as check_corpus
from harness.nights.folder import RunFolder
from harness.nights.guide import Observer
from harness.nights.known import Folder
from harness.scenario.scenario import Scenario

SEEDS = Path("symm-seeds")


@dataclass(frozen=True)
class Keeping:
    """`folder` holds all of a run, where that is asked for. `seeds` gets a file for each finding, `corpus` one for each
    scenario that is worth trying again, and `observations` a line for each draw."""

    folder: RunFolder | None
    seeds: Path
    known: Folder
    corpus: Path | None
    observations: Path | None

    def check(self) -> None:
        """Raise `UsageError` for a place that cannot be written to."""
        seeds.check_folder(self.seeds)
        if self.corpus is not None:
            check_corpus(self.corpus)
        if self.observations is not None:
            observations.check_folder(self.observations)

    def opened_corpus(
        self, adapted: Callable[[Scenario], Scenario | None], environment: dict[str, Any]
    ) -> Corpus | None:
        """The corpus, if there is one. `adapted` is that of `Corpus`."""
        return None if self.corpus is None else Corpus(self.corpus, adapted, environment)

    @property
    def observer(self) -> Observer | None:
        """What writes observations, if that is asked for."""
        return None if self.observations is None else observations.Observations(self.observations).take


def keeping(
    run_dir: Path | None,
    seeds_dir: Path | None,
    known: Path | None,
    corpus_dir: Path | None,
    observations_dir: Path | None,
    is_dry: bool,
) -> Keeping:
    """What the options say. Raises `UsageError` for options that do not go together."""
    if run_dir is None:
        return Keeping(None, seeds_dir or SEEDS, Folder(known), corpus_dir, observations_dir)
    if is_dry:
        raise UsageError("--run keeps a run, and --dry makes none")
    if seeds_dir is not None:
        raise UsageError("--seeds-dir does not go with --run, which keeps seed files in DIR/seeds")
    folder = RunFolder(run_dir)
    return Keeping(folder, folder.seeds, Folder(known), corpus_dir or folder.corpus, observations_dir)
