"""Mutated seed and topology files, read by the command line.

Reading and checking run in one forked process for a batch of files, with a world that starts no ranks. Of every batch
one file goes through a whole command, if possible one that was taken: then ranks run what it says.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import NamedTuple

import typer

from tests.hostile import forked, runs
from tests.hostile.case import Case, Outcome
from tests.hostile.mutations import mutate

NUMBER = 3000
BATCH = 50
DEMANDED = "status 0, 1 or 2 that means what it says; a refusal names the file or the topology; each in 10 s"
LIMIT = 10.0
"""Seconds for one file."""
MEMORY = 8 << 30
"""Bytes of address space for the process that reads a batch."""
TOPOLOGIES = Path(__file__).parents[2] / "topologies"
NAME = "damaged.json"


class Read(NamedTuple):
    """How the command line took one file."""

    status: int | None
    out: str
    err: str
    seconds: float


class _Taken(SystemExit):
    """The file is right, and ranks would start."""


class _TooLong(BaseException):
    pass


def cases(random: Random, number: int) -> list[Case]:
    """Batches of files."""
    seeds = [random.getrandbits(32) for _ in range(-(-number // BATCH))]
    sizes = [min(BATCH, number - BATCH * index) for index in range(len(seeds))]
    return [
        Case(f"batch {index}", partial(_act, seed, size), size)
        for index, (seed, size) in enumerate(zip(seeds, sizes, strict=True))
    ]


def _act(seed: int, size: int, folder: Path) -> Outcome:
    random = Random(seed)
    originals = [path.read_bytes() for path in sorted(TOPOLOGIES.rglob("*.json"))]
    written, requests, ways = folder / "files", [], []
    written.mkdir()
    for index in range(size):
        original = random.choice(originals)
        data, way = mutate(random, original)
        (written / f"{index}.json").write_bytes(data)
        requests.append(random.choice(_requests(b'"scenario"' in original)))
        ways.append(way)
    read = _read_all(folder, written, requests)
    found = [
        f"{'symm ' + ' '.join(requests[index])} on files/{index}.json ({ways[index]}): {problem}"
        for index, each in enumerate(read)
        for problem in _problems(each)
    ]
    found += [] if len(read) == size else [f"the reader ended after files/{len(read)}.json: {_error(folder)}"]
    taken = [index for index, each in enumerate(read) if each.status == 0]
    if read:
        index = random.choice(taken or range(len(read)))
        whole = _whole(folder, written / f"{index}.json", requests[index], read[index], is_real=seed % 6 == 0)
        found += [f"files/{index}.json ({ways[index]}), the whole command: {problem}" for problem in whole]
    return Outcome(tuple(found), f"{len(taken)} of {size} taken")


def _requests(is_seed: bool) -> list[tuple[str, ...]]:
    if is_seed:
        return [
            ("replay", NAME, "--substrate", "sim", "--deadline", "2"),
            ("replay", NAME, "--substrate", "sim", "--pool", "per-group"),
        ]
    return [
        ("show", NAME),
        ("show", NAME, "--json", "-"),
        ("fuzz", "--topology", NAME, "--substrate", "sim", "--draws", "2"),
    ]


def _problems(read: Read) -> Iterator[str]:
    if read.status not in (0, 2):
        yield f"status {read.status}"
    if read.seconds > LIMIT:
        yield f"{read.seconds:.0f} s"
    yield from _words(read.status, read.out, read.err)


def _words(status: int | None, out: str, err: str) -> Iterator[str]:
    ended = runs.Ended(status, out, err, 0.0, (), Path())
    yield from runs.problems(ended, {status} if status is not None else ())
    if status == 2 and NAME not in err and "topology '" not in err:
        yield f"a sentence that does not name the file: {runs.last(err)}"


def _whole(folder: Path, file: Path, request: tuple[str, ...], read: Read, is_real: bool) -> list[str]:
    """Run one file through a whole command."""
    started = folder / "run"
    started.mkdir()
    (started / NAME).write_bytes(file.read_bytes())
    ended = runs.run(folder, *request, is_real=is_real)
    found = runs.problems(ended)
    if read.status == 2 and (ended.status, ended.err) != (2, read.err):
        found.append(
            f"ends with {ended.status}, {runs.last(ended.err)!r}, and not as it was read: {runs.last(read.err)!r}"
        )
    return found


def _read_all(folder: Path, written: Path, requests: Sequence[tuple[str, ...]]) -> list[Read]:
    """What the command line makes of each file, read in one forked process."""
    results = folder / "read"
    child = forked.fork(partial(_reader, folder, written, requests, results))
    end = time.monotonic() + runs.BOUND + LIMIT * 3
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    child.kill()
    lines = results.read_text().splitlines() if results.exists() else []
    return [Read(*json.loads(line)) for line in lines]


def _reader(folder: Path, written: Path, requests: Sequence[tuple[str, ...]], results: Path) -> None:
    """In the child: one line for each file."""
    from harness.cli import fuzz, main, replay

    def taken(*_: object, **__: object) -> None:
        raise _Taken(0)

    for module in (fuzz, replay):
        module.World = taken  # type: ignore[attr-defined, assignment]
    main.app = typer.main.get_command(main.app)  # type: ignore[assignment]  (or it is built for every file)
    (folder / "reading").mkdir()
    os.chdir(folder / "reading")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    error = os.open(f"{folder}/reader.err", os.O_RDWR | os.O_CREAT)
    os.dup2(error, 2)
    with results.open("w") as lines:
        for index, request in enumerate(requests):
            os.replace(written / f"{index}.json", NAME)
            read = _one(request, main.main)
            os.replace(NAME, written / f"{index}.json")
            lines.write(json.dumps(read) + "\n")
            lines.flush()


def _one(request: tuple[str, ...], main: object) -> Read:
    sys.argv = ["symm", *request]
    status: object = 0
    with _captured() as (out, err):
        began = time.monotonic()
        try:
            signal.signal(signal.SIGALRM, _alarm)
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            main()  # type: ignore[operator]
        except SystemExit as left:
            status = left.code
        except _TooLong:
            status = None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.monotonic() - began
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(errors="backslashreplace"))  # type: ignore[attr-defined]
    return Read(status if isinstance(status, int | None) else 1, *texts, seconds)


@contextmanager
def _captured() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    before = sys.stdout, sys.stderr
    fresh = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    sys.stdout, sys.stderr = fresh
    try:
        yield fresh
    finally:
        sys.stdout, sys.stderr = before


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise _TooLong


def _error(folder: Path) -> str:
    text = re.sub(r"\s+", " ", (folder / "reader.err").read_text(errors="replace"))
    return text[-300:]
