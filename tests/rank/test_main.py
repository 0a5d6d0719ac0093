"""A rank's process: it ends with its parent, whichever way the parent's end is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

FORK = """
import os, sys, time
from harness.rank.main import die_with_parent, hold_lifeline
reading, writing = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    {child}
    os.write(1, b"ready %d\\n" % os.getpid())
    time.sleep(600)
os.close(reading)
{parent}
"""


def start(child: str, parent: str = "time.sleep(600)") -> tuple[subprocess.Popen[bytes], int]:
    """A process that forks a child, and the child, once it has done this."""
    script = FORK.format(child=child, parent=parent)
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline().split()[1])


def end_of_output(process: subprocess.Popen[bytes]) -> bytes:
    """Comes once every process that holds the output has ended."""
    assert process.stdout is not None
    with process.stdout as output:
        return output.read()


def test_a_child_that_asked_for_it_dies_with_its_parent() -> None:
    process, _ = start("os.close(writing); die_with_parent(parent)")
    process.kill()
    process.wait()
    assert end_of_output(process) == b""


def test_a_child_whose_parent_died_before_it_asked_ends_at_once() -> None:
    script = FORK.format(child="os.close(writing); die_with_parent(parent + 1)", parent="os.wait()")
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert ended.stdout == b""


def test_a_child_ends_when_the_other_end_of_its_lifeline_closes() -> None:
    process, child = start(
        "os.close(writing); hold_lifeline(reading)", "sys.stdin.read(); os.close(writing); os.wait()"
    )
    assert process.stdin is not None
    process.stdin.close()
    assert (end_of_output(process), process.wait()) == (b"", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
