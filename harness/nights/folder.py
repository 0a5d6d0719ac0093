"""The folder of a run: its JSON, its seed files, the findings that were known, and its corpus.

Invariant: one name for each, whoever writes or reads it. What is in the folder of a run that was killed is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps all that it leaves."""

    path: Path

    @property
    def run(self) -> Path:
        """The facts of the run, as `symm fuzz --json` writes them."""
        return self.path / "run.json"

    @property
    def seeds(self) -> Path:
        """A seed file for each finding."""
        return self.path / "seeds"

    @property
    def known(self) -> Path:
        """Seed files of findings that are known."""
        return self.path / "known"

    @property
    def corpus(self) -> Path:
        """Scenarios that are worth trying first."""
        return self.path / "corpus"

    @property
    def is_one(self) -> bool:
        """Whether a run left anything here."""
        return any(path.exists() for path in (self.run, self.seeds, self.known, self.corpus))
