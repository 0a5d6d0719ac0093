"""The corpus: a folder of scenarios that reached states which none before them had, for the nights that follow.

Invariant: a file is whole or not there (written beside its place, then renamed), so that two nights may share a folder.
A file that cannot be read is counted and left alone; it ends no night. Pruning keeps every state that a file covers,
within the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from harness.campaign import seeds
from harness.errors import UsageError
from harness.oracle.states.state import KINDS, State
from harness.scenario.scenario import Scenario

MOST_FILES = 512
MOST_BYTES = 16 << 20
LOCK = ".lock"
SUFFIX = ".json"
LOCK_SECONDS = 5.0


class Entry(NamedTuple):
    """A file of a corpus: its scenario, the states that it reached, and its length in bytes."""

    path: Path
    scenario: Scenario
    states: frozenset[State]
    size: int


class Corpus:
    """The files of `folder`, which need not be there. `adapted` gives a scenario as this run would draw it, or None
    where the run does not draw such ones or cannot run them."""

    def __init__(
        self,
        folder: Path,
        adapted: Callable[[Scenario], Scenario | None] = lambda scenario: scenario,
        environment: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self._environment = folder, environment or {}
        self.broken: list[str] = []
        """A sentence for each file that cannot be read, or is of another version."""
        self.skipped = 0
        """Scenarios that this run does not draw, or cannot run."""
        self.added = 0
        self.scenarios: list[Scenario] = []
        """Those to try, as this run would draw them: of each the states that are rarest in the folder come first."""
        entries = self._read()
        self.states = frozenset(state for entry in entries for state in entry.states)
        """The states that earlier runs reached."""
        for entry in covering(entries, len(entries)):
            scenario = adapted(entry.scenario)
            if scenario is None:
                self.skipped += 1
            else:
                self.scenarios.append(scenario)

    def add(self, scenario: Scenario, states: Iterable[State]) -> None:
        """Keep a scenario that reached these states. Raises `UsageError` where the folder cannot be written."""
        names = tuple(map(str, states))
        path = self.folder / seeds.name_for("corpus", scenario)
        seeds.save(seeds.Seed(seeds.SCHEMA, scenario, (), self._environment, states=names), path)
        self.added += 1

    def prune(self, files: int = MOST_FILES, size: int = MOST_BYTES) -> int:
        """Remove the files that no state needs, and where there are too many those that add least. Returns how many.

        Nothing is removed while another process prunes the folder.
        """
        if not self.folder.is_dir():
            return 0
        try:
            with FileLock(self.folder / LOCK, timeout=LOCK_SECONDS):
                entries = self._read()
                kept = {entry.path for entry in covering(entries, files, size)}
                removed = [entry.path for entry in entries if entry.path not in kept]
                for path in removed:
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                return len(removed)
        except (Timeout, OSError):
            return 0

    def _read(self) -> list[Entry]:
        """Every file that can be read. What is wrong with the others is noted."""
        self.broken = []
        entries = (self._entry(path) for path in sorted(self.folder.glob(f"[!.]*{SUFFIX}")))
        return [entry for entry in entries if entry is not None]

    def _entry(self, path: Path) -> Entry | None:
        try:
            size = path.stat().st_size
            seed = seeds.load(path)
        except FileNotFoundError:
            return None  # another process has pruned it
        except (UsageError, OSError) as error:
            if path.exists():
                self.broken.append(str(error))
            return None
        return Entry(path, seed.scenario, frozenset(_states(seed.states)), size)

    def as_data(self) -> dict[str, Any]:
        """Plain data: what was there, what this run left out, and what it added."""
        return {
            "folder": str(self.folder),
            "tried": len(self.scenarios),
            "added": self.added,
            "skipped": self.skipped,
            "unreadable": self.broken,
        }


def _states(names: Iterable[str]) -> Iterable[State]:
    for name in names:
        kind, _, rest = name.partition(": ")
        if kind in KINDS:
            yield State(kind, rest)


def covering(entries: Sequence[Entry], files: int, size: int = MOST_BYTES) -> list[Entry]:
    """A small set of entries that covers every state of them all, within `files` and `size` bytes.

    The entry with most states that are still to cover is taken first, of several the shortest.
    """
    left, found, room = [*entries], list[Entry](), size
    covered: set[State] = set()
    while left and len(found) < files:
        best = min(left, key=lambda entry: (-len(entry.states - covered), entry.size, entry.path.name))
        left.remove(best)
        if not best.states - covered:
            break
        if best.size <= room:
            found.append(best)
            covered |= best.states
            room -= best.size
    return found


def check_folder(path: Path) -> None:
    """Raise `UsageError` now if files could not be kept in `path` later. Leaves nothing."""
    seeds.check_folder(path, "corpus directory")
