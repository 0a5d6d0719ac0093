"""Compares a rank's process after a draw with what it was before.

Invariant: a look changes nothing but what it is for: children that a draw left are ended. Those that a plug-in started
when it was imported are its own, and live as long as the rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import getcwd

from harness.ipc.messages import Change
from harness.rank.state import children, pieces, shown
from harness.rank.state.names import Watch
from harness.rank.state.pieces import Read, Value, held


class Fingerprint:
    """This process as it is when this is made, and then at each look."""

    def __init__(self, is_on_gpu: bool = False) -> None:
        more = pieces.OF_GPU if is_on_gpu else pieces.OF_SIMULATION
        self._pieces: dict[str, Read] = pieces.of_process(getcwd()) | more
        self._reads = [*self._pieces.values()]
        self._names: Watch | None = None
        self._spared: frozenset[int] = frozenset()
        """Children of the plug-ins that this rank has imported."""
        self._seen = self._read()

    def settle(self) -> None:
        """Take this process as it is now."""
        self._seen = self._read()
        if self._names:
            self._names.replaced()

    def watch_names(self) -> None:
        """From here on, look at functions and modules too. Call it before the first plug-in is loaded: draws take a
        tenth longer from then on."""
        self._names = self._names or Watch()

    def changes_of_import(self) -> tuple[Change, ...]:
        """What has changed since the last look, where a plug-in was imported. Its children are spared from here on."""
        new = {pid: command for pid, command in children.every().items() if pid not in self._spared}
        self._spared |= new.keys()
        return tuple(_started(filter(None, new.values()))) + self._others(has_plug_in=True)

    def changes(self, has_plug_in: bool = True) -> tuple[Change, ...]:
        """What has changed since the last look. Ends what children there are, but those of an import.

        Functions and modules are looked at if a plug-in ran, `has_plug_in`: nothing else puts others in their place.
        """
        ended = _started(children.end(self._spared)) if children.has_any() else []
        if self._spared:
            self._spared &= {*children.pids()}  # the number of one that has ended may be that of another child later
        return tuple(ended) + self._others(has_plug_in)

    def _others(self, has_plug_in: bool) -> tuple[Change, ...]:
        """What has changed but children."""
        found: list[Change] = []
        before, state = self._seen, self._read()
        if state != before:
            self._seen = state
            pairs = zip(self._pieces, before, state, strict=True)
            found += [Change(what, *shown.difference(what, old, new)) for what, old, new in pairs if old != new]
        for what, (was, now) in (self._names.replaced() if has_plug_in and self._names else {}).items():
            one, other = ({name: held(each) for name, each in names.items()} for names in (was, now))
            found.append(Change(what, *shown.difference(what, one, other)))
        return tuple(found)

    def _read(self) -> list[Value]:
        try:
            return [read() for read in self._reads]
        except Exception:  # such as no working directory any more
            return [_read_or_reason(read) for read in self._reads]


def _started(commands: Iterable[str]) -> list[Change]:
    listed = ", ".join(commands)
    return [Change("child processes", "none", shown.clipped(listed))] if listed else []


def _read_or_reason(read: Read) -> Value:
    try:
        return read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
