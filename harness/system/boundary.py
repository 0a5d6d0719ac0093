"""The line between the harness and the system under test, on a rank."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from harness.errors import CompileError, JournalFull
from harness.system.frames import defined, described, is_own, raising
from harness.trace.raising import Part, Raising

T = TypeVar("T")


class SystemRaised(Exception):
    """A part of the system under test raised `error`."""

    def __init__(self, where: Part, error: BaseException) -> None:
        super().__init__(described(error))
        self.where, self.error = where, error

    def raising(self, packages: Collection[str] = ()) -> Raising:
        """What it raised. `packages` are those that the plug-ins are named by."""
        return raising(self.where, self.error, packages)


class Misshapen(Exception):
    """A plug-in has not the shape of its part. The text says what is wrong, and where `subject` is defined; `instead`
    is what to write there."""

    def __init__(self, where: Part, subject: object, text: str, instead: str = "") -> None:
        super().__init__(f"{text} ({defined(subject)})")
        self.where, self.instead = where, instead


def call_system(where: Part, call: Callable[[], T], *handled: type[Exception]) -> T:
    """Run code of the system under test. An exception ends the draw, unless the caller handles it, as engines do. A
    full journal is the harness's own, and code that does not compile ends the command."""
    passing: tuple[type[Exception], ...] = (*handled, Misshapen, JournalFull, CompileError)
    try:
        return call()
    except passing:
        raise
    except BaseException as error:  # a plug-in that exits, or raises what is no `Exception`, ends the draw and no rank
        raise SystemRaised(where, error) from error


def call_back(call: Callable[[], T]) -> T:
    """Run code of the harness that calls a pool policy back. What its callbacks raise is the system's."""
    try:
        return call()
    except JournalFull:
        raise
    except BaseException as error:
        if is_own(error):
            raise SystemRaised("pool", error) from error
        raise
