"""How every command ends: it shows what was found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.cli.ending import at_the_end
from harness.errors import UsageError


def test_what_was_found_is_shown_when_a_command_ends_by_itself() -> None:
    shown: list[int] = []
    with at_the_end(lambda: shown.append(1)):
        assert shown == []
    assert shown == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UsageError])
def test_what_was_found_is_shown_when_something_ends_a_command(error: type[BaseException]) -> None:
    shown: list[int] = []
    with pytest.raises(error), at_the_end(lambda: shown.append(1)):
        raise error
    assert shown == [1]


def test_what_was_found_is_shown_before_it_is_written() -> None:
    told: list[str] = []
    with at_the_end(lambda: told.append("shown"), lambda: told.append("written")):
        pass
    assert told == ["shown", "written"]


def test_what_cannot_be_shown_is_written_all_the_same() -> None:
    told: list[str] = []

    def show() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), at_the_end(show, lambda: told.append("written")):
        pass
    assert told == ["written"]


PRESSED = """
import signal
from harness import interrupts
from harness.cli.ending import at_the_end

def show():
    signal.raise_signal(signal.SIGINT)
    print("all of it", interrupts.has_come())

interrupts.heed()
with at_the_end(show):
    pass
"""


def test_a_signal_does_not_interrupt_what_is_shown() -> None:
    """In a process of its own: one that was interrupted stays so."""
    run = subprocess.run([sys.executable, "-c", PRESSED], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "all of it True\n")
