"""Processes that lease GPUs in the folder of `SYMM_LEASE_DIR`, for tests of who meets whom."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.machine.leases import Patience, Share, lease
from harness.machine.seats import RANKS_PER_GPU, Seats

WHOLE = Share(1)


@contextmanager
def lessee(*gpus: str, share: Share = WHOLE, number: int = 0, seconds: float = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lease; what it leased is the first line that it prints."""
    arguments = ["hold", ",".join(gpus), str(share.gpus), str(share.seats), str(number), str(seconds)]
    with started(*arguments) as process:
        yield process
        process.kill()


def free(folder: Path, gpus: Iterable[str]) -> list[str]:
    """Those of these GPUs of which nobody holds a seat in a folder of leases."""
    seats, found = Seats(folder), []
    for gpu in gpus:
        if (held := seats.take_any(gpu, RANKS_PER_GPU)) is not None:
            held.close()
            found.append(gpu)
    return found


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.tools.lessee", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def first_line(process: subprocess.Popen[str]) -> str:
    """What a lessee says first: its lease."""
    stdout: IO[str] | None = process.stdout
    assert stdout is not None
    return stdout.readline().strip()


def hold(gpus: str, each: str, seats: str, number: str, seconds: str) -> None:
    """Lease, say what, and hold it until stdin ends."""
    held = lease(Share(int(each), int(seats)), gpus.split(","), int(number), Patience(float(seconds), print))
    print(held, flush=True)
    sys.stdin.read()


def contend(gpus: str, each: str, times: str, marks: str) -> None:
    """Lease and give back, again and again. Another process on the same GPU is found by its mark there."""
    names = gpus.split(",")
    for _ in range(int(times)):
        held = lease(Share(int(each)), names, 0, Patience(60, lambda text: None))
        for gpu in held.gpus:
            (Path(marks) / gpu).touch(exist_ok=False)
        time.sleep(0.002)
        for gpu in held.gpus:
            (Path(marks) / gpu).unlink()
        held.close()
    print("done", flush=True)


def gate() -> None:
    """Let nobody else take seats until stdin ends."""
    with Seats().alone():
        print("alone", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"hold": hold, "contend": contend, "gate": gate}[sys.argv[1]](*sys.argv[2:])
