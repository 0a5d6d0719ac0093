"""What a command does however it ends: it shows what was found, and writes it with the facts of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from harness import interrupts
from harness.report import data, results
from harness.report.facts import Facts, Speed
from harness.report.results import Result


@contextmanager
def at_the_end(show: Callable[[], None], write: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Call `show`, then `write`, when the block ends: by itself, by an error or by Ctrl-C. A further signal does not
    interrupt them, and neither is left out because the other failed."""
    try:
        yield
    finally:
        with interrupts.held():
            try:
                show()
            finally:
                write()


class Outputs:
    """Where a command writes what it found: JSON, JUnit XML, and what a hosted runner reads. Made when it begins.

    Raises `UsageError` where one cannot be written, or would be written over a file that the command `reads`.
    """

    def __init__(
        self,
        context: typer.Context,
        json_file: str | None,
        junit_file: str | None = None,
        reads: Iterable[str] = (),
        html: str | None = None,
    ) -> None:
        reads = [*reads]
        data.check_target(json_file, reads)
        data.check_target(junit_file, reads, "JUnit XML")
        data.check_target(html, reads, "a page")
        self._facts, self._files, self.html = Facts(context.params), (json_file, junit_file), html

    @property
    def is_kept(self) -> bool:
        """Whether a file gets all that there is to say, pictures among it."""
        return self._files[0] is not None or self.html is not None

    @property
    def speed(self) -> Speed:
        """To be noted after each draw."""
        return self._facts.speed

    def refuse(self, console: Console, result: Result) -> None:
        """The command ends with a sentence and no facts: write that alone, for CI systems."""
        results.write([result], self._facts.as_data(), self._facts.seconds, self._files[1], console)

    def facts(self, found: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """What was found, with the facts of the run so far; `more` facts are of this command alone."""
        self._facts.more = more
        return {**found, **self._facts.as_data()}

    def write(self, console: Console, found: Mapping[str, Any], outcome: Sequence[Result] = (), **more: Any) -> None:
        """Write what was found, its results, and the facts of the run; `more` facts are of this command alone."""
        self.write_whole(console, found, self.facts(found, **more), outcome)

    def write_whole(
        self, console: Console, found: Mapping[str, Any], whole: dict[str, Any], outcome: Sequence[Result] = ()
    ) -> None:
        """The same, where `facts` has given the whole of it already."""
        json_file, junit_file = self._files
        try:
            data.write(whole, json_file)
        finally:
            facts = {name: value for name, value in whole.items() if name not in found}
            about = {**found.get("environment", {}), **facts}
            about.pop("speed", None)
            about |= {name: value for name, value in found.items() if isinstance(value, int | float)}
            results.write(outcome, about, self._facts.seconds, junit_file, console)
