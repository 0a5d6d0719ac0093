"""Cases handed to forked workers, one at a time.

Invariant: every case has an outcome, also where its worker dies; what had a problem is kept.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from tests.hostile import forked
from tests.hostile.case import Case, Outcome

Listed = tuple[str, int, Case]
"""A case with its kind and number."""


class Worker(NamedTuple):
    child: forked.Child
    line: Connection


def run(listed: Sequence[Listed], jobs: int, keep: Path) -> Iterator[tuple[Listed, Outcome, float, float]]:
    """Each case with its outcome, its seconds and those of a core that its processes used, as they come."""
    waiting, under_way = [*range(len(listed))][::-1], {}
    workers = [_start(listed, keep) for _ in range(min(jobs, len(listed)))]
    try:
        while True:
            for worker in workers:
                if worker.line not in under_way and waiting:
                    under_way[worker.line] = waiting.pop()
                    worker.line.send(under_way[worker.line])
            if not under_way:
                return
            for line in wait([*under_way]):
                assert isinstance(line, Connection)
                index = under_way.pop(line)
                try:
                    yield listed[index], *line.recv()
                except EOFError:
                    dead = next(worker for worker in workers if worker.line is line)
                    workers[workers.index(dead)] = _start(listed, keep)
                    yield listed[index], Outcome((f"its worker ended with {dead.child.wait()}",)), 0.0, 0.0
    finally:
        for worker in workers:
            worker.line.close()
        for worker in workers:
            worker.child.wait()


def _start(listed: Sequence[Listed], keep: Path) -> Worker:
    ours, theirs = Pipe()

    def work() -> None:
        ours.close()
        while True:
            try:
                index = theirs.recv()
            except EOFError:
                return
            theirs.send(_outcome(listed[index], keep))

    child = forked.fork(work)
    theirs.close()
    return Worker(child, ours)


def _outcome(listed: Listed, keep: Path) -> tuple[Outcome, float, float]:
    """Act in a new folder, which stays where there is a problem."""
    kind, number, case = listed
    began, used = time.monotonic(), _used()
    place = Path(tempfile.mkdtemp(prefix="symm-hostile-"))
    try:
        outcome = case.run(place)
    except Exception:
        outcome = Outcome((f"the tool itself failed: {traceback.format_exc()}",))
    seconds = time.monotonic() - began
    if outcome.problems:
        keep.mkdir(parents=True, exist_ok=True)
        kept = keep / f"{kind}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(place, kept)
        (kept / "problems.txt").write_text("\n".join(outcome.problems) + "\n", errors="backslashreplace")
    shutil.rmtree(place, ignore_errors=True)
    return outcome, seconds, _used() - used


def _used() -> float:
    """Seconds of a core that this process used, and those of its descendants that were waited for."""
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(each.ru_utime + each.ru_stime for each in both)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
