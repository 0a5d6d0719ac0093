"""Seats of GPUs: each is a lock file, in one folder that all users of the machine share.

Invariant: a seat is held through an open file of one process (`flock`), so the kernel frees it when that
process ends, however it ends. What is taken is taken whole, in sorted order, or not at all. Nothing here
waits for a seat, and nothing looks at a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from harness.errors import MachineError

RANKS_PER_GPU = 16
"""Seats of a GPU: as many ranks came up on one (`docs/measurements.md`)."""
VARIABLE = "SYMM_LEASE_DIR"
MACHINE_WIDE = Path("/tmp/symm-gpu-leases")
"""Not `tempfile.gettempdir()`: a TMPDIR of its own would hide a run from all others."""
LOCKS = Path("/proc/locks")
GATE = "gate.lock"
GATE_PATIENCE = 2.0
"""Seconds for another process to end its attempt, which takes milliseconds."""


def seat(gpu: str, number: int) -> str:
    """Lock file of one seat. Names sort as GPUs and seats do."""
    return f"{gpu}.{number:02d}.lock"


def turn(gpu: str) -> str:
    """Lock file that a run holds while its workers take their seats on this GPU."""
    return f"{gpu}.turn.lock"


class Seats:
    """The lock files of one folder, which is made if it is not there. Raises `MachineError` if it cannot be."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get(VARIABLE) or MACHINE_WIDE)
        try:
            with _open_to_all():
                self.folder.mkdir(mode=0o1777)
        except FileExistsError:
            if self.folder.is_symlink():  # which another user may have put there, to have files made elsewhere
                raise MachineError(
                    f"{self.folder} is a link, and leases of GPUs are kept in a folder ({_HINT})"
                ) from None
            if not self.folder.is_dir():
                raise MachineError(f"{self.folder} is no folder, and leases of GPUs are kept there ({_HINT})") from None
        except OSError as error:
            raise MachineError(f"cannot make {self.folder} for leases of GPUs: {error.strerror} ({_HINT})") from error

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process is the only one on the machine that takes seats now. Two that each took a part of
        what both need would give it back, and might do so for ever."""
        with ExitStack() as taken:
            yield self._take(GATE, taken, GATE_PATIENCE)

    def take(self, names: Iterable[str]) -> ExitStack | None:
        """These lock files, or None if one of them is held. Closing gives them back."""
        with ExitStack() as taken:
            return taken.pop_all() if all(self._take(name, taken) for name in sorted(names)) else None

    def take_any(self, gpu: str, count: int) -> ExitStack | None:
        """The first `count` free seats of a GPU, or None if fewer are free. Closing gives them back."""
        free = 0
        with ExitStack() as taken:
            for number in range(RANKS_PER_GPU):
                free += self._take(seat(gpu, number), taken)
                if free == count:
                    return taken.pop_all()
                if number + 1 - free > RANKS_PER_GPU - count:
                    break
        return None

    def at_gate(self) -> list[int]:
        """Processes that take seats now, and let no other do so."""
        return self._holders([GATE])

    def holders(self, gpus: Iterable[str]) -> list[int]:
        """Processes that hold seats of these GPUs or the turn on them."""
        return self._holders(
            [name for gpu in gpus for name in (turn(gpu), *(seat(gpu, number) for number in range(RANKS_PER_GPU)))]
        )

    def _holders(self, names: Iterable[str]) -> list[int]:
        """Processes that hold these files, as far as the kernel shows them to this one."""
        files = {_kernel_name(self.folder / name) for name in names}
        try:
            locks = [line.split() for line in LOCKS.read_text().splitlines()]
        except OSError:
            return []
        # /proc/locks: number, kind, mode, access, pid, major:minor:inode; pid 0 or -1: of another pid namespace
        pids = {int(fields[4]) for fields in locks if fields[1] == "FLOCK" and fields[5] in files}
        return sorted(pid for pid in pids if pid > 0 and pid != os.getpid())

    def _take(self, name: str, taken: ExitStack, seconds: float = 0) -> bool:
        """Whether one file could be locked; then `taken` gives it back."""
        path = self.folder / name
        # Without flock filelock would fall back to files that outlive a killed process.
        lock = FileLock(path, mode=0o666, thread_local=False, fallback_to_soft=False)
        try:
            with _open_to_all():
                lock.acquire(timeout=seconds, poll_interval=0.01)
        except Timeout:
            return False
        except OSError as error:
            raise MachineError(f"cannot lock {path}{_owner(path)}: {error.strerror} ({_HINT})") from error
        taken.callback(lock.release)
        return True


_HINT = f"{VARIABLE} names the folder, which every user must be able to write, as its files"


@contextmanager
def _open_to_all() -> Iterator[None]:
    """No umask: what is made is at once for every user. A `chmod` afterwards would leave others a moment without."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _kernel_name(path: Path) -> str:
    """A file as `/proc/locks` names it, or nothing."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def _owner(path: Path) -> str:
    try:
        return f", a file of {path.owner()}"
    except (OSError, KeyError):
        return ""


def described(pid: int) -> str:
    """A process as a person reads it: whose it is and what it runs."""
    try:
        process = psutil.Process(pid)
        command = " ".join(" ".join(process.cmdline()).split())  # `python -c` may hold line ends
        return f"pid {pid} ({process.username()}: {command[:80]})"
    except psutil.Error:
        return f"pid {pid}"
