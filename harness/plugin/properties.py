"""Property tests on a tested world: Hypothesis draws, and the harness makes smaller and shows what fails.

Invariant: a finding that the test handles itself stays the test's. Where Hypothesis has no such part as is asked for
here, its own report stays.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, Verbosity, settings
from hypothesis.errors import HypothesisException

from harness.errors import UsageError
from harness.oracle.findings import Finding
from harness.plugin.failing import Enough, Failing
from harness.plugin.tested_world import TestedWorld

HARNESS = str(Path(__file__).parents[1]) + os.sep
DRAWN = re.compile(r"Draw \d+.*\bScenario\(", re.DOTALL)
"""How Hypothesis notes a scenario that came from `data.draw`."""
FAILED = pytest.StashKey[Exception]()
"""What a property test raised in the end."""


@contextmanager
def watched(item: pytest.Function, seconds: float) -> Iterator[None]:
    """Run a test. Of a property that uses a tested world, show what `check` found, made smaller for `seconds`."""
    handle = getattr(item.obj, "hypothesis", None)  # of a test under `given`; its `inner_test` is made to be replaced
    world = next((value for value in item.funcargs.values() if isinstance(value, TestedWorld)), None)
    if handle is None or world is None:
        yield
        return
    with world.failing() as failing, _replaced(handle, _body(handle.inner_test, world, failing)):
        try:
            yield
            return
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException:
            if not failing.is_failing:
                raise
        _shrink(failing, seconds)
        failed = item.stash[FAILED] = failing.outcome()
        if failing.raised is not None:
            failed.add_note(f"\n{_place(failing.raised)}")
            failed = failed.with_traceback(failing.raised.__traceback__)
    raise failed from None


def _shrink(failing: Failing, seconds: float) -> None:
    try:
        failing.shrink(seconds)
    except BaseException as ended:  # such as a timeout of the test
        if failing.found:
            ended.add_note("it ended the shrinking of:")
            outcome = failing.outcome()
            for line in (str(outcome), *outcome.__notes__):
                ended.add_note(line)
        raise


@contextmanager
def _replaced(handle: Any, body: Callable[..., Any]) -> Iterator[None]:
    former, handle.inner_test = handle.inner_test, body
    try:
        yield
    finally:
        handle.inner_test = former


def _body(test: Callable[..., Any], world: TestedWorld, failing: Failing) -> Callable[..., Any]:
    """The body of a property, as Hypothesis is to call it."""

    @wraps(test)
    def body(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        failing.go_on()
        notes: list[str] = []
        with _noted(notes):
            try:
                return test(*args, **kwargs)
            except Finding as finding:
                if finding is world.raised:
                    asked = _settings()
                    failing.may_shrink = Phase.shrink in asked.phases
                    failing.escaped(finding, notes, is_last=not asked.report_multiple_bugs)
                raise
            except UsageError as error:
                if error is not world.raised:
                    raise
                failing.error = error  # no failure to be made smaller
                raise Enough from error
            except HypothesisException:
                raise
            except (Exception, pytest.fail.Exception) as error:
                failing.others[type(error)] = "".join(traceback.format_exception_only(error)).rstrip()
                raise

    return body


def _settings() -> settings:
    """Those of the test that runs, with what its profile gives."""
    found = settings.default
    assert found is not None
    return found


@contextmanager
def _noted(lines: list[str]) -> Iterator[None]:
    """Collect what the test notes. Hypothesis reports notes in its last run only, and here none may follow."""
    try:
        from hypothesis.control import current_build_context  # noqa: PLC0415  (no part of its documented interface)
        from hypothesis.reporting import current_reporter, with_reporter  # noqa: PLC0415

        context = current_build_context()
        is_reported = context.is_final or _settings().verbosity >= Verbosity.verbose
        report = current_reporter()
        context.is_final = True
    except (ImportError, AttributeError):
        yield
        return

    def collect(text: Any) -> None:
        if not DRAWN.match(str(text)):
            lines.append(str(text))
        if is_reported:
            report(text)

    with with_reporter(collect):
        yield


def _place(error: BaseException) -> str:
    """The line of the test that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if not os.path.abspath(frame.filename).startswith(HARNESS)]
    return f"{os.path.relpath(mine[-1].filename)}:{mine[-1].lineno}: {mine[-1].line}" if mine else ""


def brief(failed: Exception) -> Any:
    """How pytest is to show what `watched` raised: its text, without sources and arguments."""
    text = "\n".join([str(failed), *getattr(failed, "__notes__", ())])
    shown = pytest.fail.Exception(text, pytrace=False).with_traceback(failed.__traceback__)
    return pytest.ExceptionInfo.from_exception(shown).getrepr(style="value", chain=False)
