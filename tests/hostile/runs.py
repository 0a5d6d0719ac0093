"""A command under attack: started, awaited within a bound, and judged by its status, its words and what it left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.text import visible
from tests.hostile import forked
from tests.tools.commands import ALONE
from tests.tools.processes import VARIABLE, marked, new_mark

BOUND = 90.0
"""Seconds within which every command has to answer, on busy cores too."""
GONE = 15.0
"""Seconds after which nothing of it may be left."""
MOST = 4000
"""Characters of a sentence."""
MISTAKE = re.compile(r"mistake in the harness|Traceback \(most recent call last\)|Exception ignored")
REPLAY = re.compile(r"symm replay (\S+\.json)")


class Ended(NamedTuple):
    """A command that has ended; without a status it was ended, for it took too long."""

    status: int | None
    out: str
    err: str
    seconds: float
    left: tuple[str, ...]
    folder: Path


class Running:
    """A command that runs in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, program: str = "symm", is_real: bool = False) -> None:
        self.folder = folder / "run"
        self.temporary = folder / "temporary"
        self.folder.mkdir(exist_ok=True)
        self.temporary.mkdir(exist_ok=True)
        self._mark = new_mark()
        self._began = time.monotonic()
        environment = {
            **{name: value for name, value in os.environ.items() if name != VARIABLE},
            **ALONE,
            **self._mark,
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        if is_real:
            self._process: forked.Child | subprocess.Popen[bytes] = self._spawn(program, arguments, environment)
        else:
            main: Callable[[tuple[str, ...]], object] = getattr(forked, program)
            self._process = forked.fork(partial(forked.become, self.folder, environment, partial(main, arguments)))
        self.pid = self._process.pid

    def _spawn(self, program: str, arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        # the shell of the tests, which reads the name as bytes: no name is lost that only a command line can carry
        with open(f"{self.folder}.out", "wb") as out, open(f"{self.folder}.err", "wb") as err:
            return subprocess.Popen(
                [program, *map(os.fsencode, arguments)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_default_signals,  # noqa: PLW1509  (whoever forks here has one thread)
            )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """Those of its session and those with its mark, itself first, then by age."""
        pids = {*marked(self._mark), *(pid for pid in psutil.pids() if _session(pid) == self.pid)}
        found = []
        for pid in pids:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda each: (each.pid != self.pid, each.create_time()))

    def end(self, bound: float = BOUND) -> Ended:
        """Wait for its end and for what it leaves; end what is left."""
        status: int | None = None
        try:
            status = self._process.wait(bound)
        except subprocess.TimeoutExpired:
            _stack(self.pid)
            self._process.kill()
            self._process.wait(10)
        seconds = time.monotonic() - self._began
        end = time.monotonic() + GONE
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        names = tuple(_name(process) for process in left)
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        names += tuple(f"file {path.name}" for path in self.temporary.iterdir())
        return Ended(status, _read(f"{self.folder}.out"), _read(f"{self.folder}.err"), seconds, names, self.folder)


def run(folder: Path, *arguments: str, program: str = "symm", is_real: bool = False, bound: float = BOUND) -> Ended:
    """Run a command to its end."""
    return Running(folder, *arguments, program=program, is_real=is_real).end(bound)


def problems(ended: Ended, statuses: Collection[int] = (0, 1, 2), lines: int = 1) -> list[str]:
    """What is wrong with the end of a command: its status has to be one of these, and to mean what it says; a refusal
    has at most so many lines on stderr."""
    found = []
    if ended.status is None:
        found.append(f"no answer after {ended.seconds:.0f} s")
    elif ended.status not in statuses:
        found.append(f"status {ended.status}")
    if ended.left:
        found.append(f"left behind: {', '.join(ended.left)}")
    if MISTAKE.search(ended.err) or "mistake in the harness" in ended.out:
        found.append(f"an unexpected error: {last(ended.err)}")
    for name, text in (("stdout", ended.out), ("stderr", ended.err)):
        if visible(text) != text:
            raw = next(char for char in text if visible(char) != char)
            found.append(f"a raw {visible(raw)} on {name}")
    if ended.status == 2:
        found += refusal(ended.err, lines)
    found += [f"announced and not there: {path}" for path in announced(ended) if not is_whole(ended.folder / path)]
    return found


def refusal(err: str, lines: int = 1) -> list[str]:
    """What is wrong with the sentence of a refusal."""
    said = err.splitlines()
    if not said or not said[-1].startswith("symm: "):
        return ["status 2 without a sentence"]
    if len(said) > lines and not said[0].startswith("substrate "):  # a run that came to nothing has its summary first
        return [f"a refusal of {len(said)} lines"]
    return [f"a sentence of {len(said[-1])} characters"] if len(said[-1]) > MOST else []


def announced(ended: Ended) -> set[str]:
    """The seed files that it named as kept, on lines of their own."""
    return {match[1] for match in re.finditer(r"^ *replay: symm replay (\S+\.json)", ended.out, re.MULTILINE)}


def is_whole(path: Path) -> bool:
    """Whether a seed file can be read."""
    from harness.campaign import seeds

    try:
        seeds.load(path)
    except seeds.SeedError:
        return False
    return True


def last(text: str) -> str:
    """Its last line."""
    return visible((text.strip().splitlines() or ["nothing said"])[-1])[:300]


def _default_signals() -> None:
    for number in forked.SIGNALS[:4]:
        signal.signal(number, signal.SIG_DFL)


def _stack(pid: int) -> None:
    """Have py-spy write where it stands, beside its output."""
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["py-spy", "dump", "--pid", str(pid)], timeout=10, check=False)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _name(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({process.status()})"
    except psutil.Error:
        return f"process {process.pid}"


def _read(name: str) -> str:
    with suppress(FileNotFoundError):
        return Path(name).read_bytes().decode(errors="backslashreplace")
    return ""
