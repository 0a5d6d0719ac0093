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
    def cases(self) -> Path:
        """Seed files of further cases of its findings, where several runs were joined."""
        return self.path / "cases"

    @property
    def unsigned(self) -> Path:
        """The same of cases that kills left unsigned. Beside these there may be one of the same name, signed since."""
        return self.cases / "unsigned"

    def place_of(self, signature: str) -> Path:
        """Which of the two is for a case of that signature, or of none."""
        return self.cases if signature else self.unsigned

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
