"""Where the system under test raised: its own innermost frame, whatever library raised there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.system.collectives import TritonCollectives
from harness.system.frames import LINES, LONGEST, defined, innermost, is_own, raising
from harness.system.pools.per_group import PerGroup


def caught(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def own(error: BaseException, packages: tuple[str, ...] = ()) -> list[str]:
    return [frame.function for frame in raising("pool", error, packages).own]


def asserts() -> None:
    raise AssertionError


def loads() -> None:
    json.loads("{")


def softens() -> None:
    torch.nn.functional.softmax(torch.empty(2), dim=7)


def wraps() -> None:
    try:
        asserts()
    except AssertionError as error:
        raise ValueError("wrapped") from error


@pytest.mark.parametrize("call", [asserts, loads, softens], ids=lambda call: call.__name__)
def test_the_innermost_frame_is_the_systems_and_not_a_librarys(call: Callable[[], None]) -> None:
    assert own(caught(call))[0] == call.__name__


def in_compiled_code() -> None:
    """As Cython's frames say it: the file relative to where it was compiled."""
    scope: dict[str, Any] = {}
    exec(compile("def choice():\n raise ValueError", "engine/random/mtrand.pyx", "exec"), scope)
    scope["choice"]()


def test_a_frame_of_compiled_code_is_a_librarys_unless_the_plug_in_is_named_by_it() -> None:
    error = caught(in_compiled_code)
    assert (own(error)[0], own(error, ("engine",))[0]) == ("in_compiled_code", "choice")


def test_an_exception_that_the_system_makes_of_another_is_its_own() -> None:
    what = raising("pool", caught(wraps))
    assert (what.text, what.own[0].function) == ("ValueError: wrapped", "wraps")


def in_a_library(call: Callable[[], object]) -> None:
    """As Triton's interpreter raises: code of an installed package, with what it caught as the cause."""
    source = (
        "def run(call):\n try:\n  call()\n except Exception as error:\n  raise RuntimeError(repr(error)) from error"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, "/x/site-packages/engine/run.py", "exec"), scope)
    scope["run"](call)


def test_of_an_exception_that_a_library_made_of_the_systems_the_systems_is_said() -> None:
    what = raising("collectives", caught(lambda: in_a_library(asserts)))
    assert (what.kind, what.own[0].function) == ("AssertionError", "asserts")
    assert "RuntimeError: AssertionError()" in what.traceback


def test_an_installed_plug_in_has_frames_of_its_own() -> None:
    error = caught(lambda: in_a_library(loads))
    assert (own(error)[0], own(error, ("engine",))[0]) == ("loads", "run")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: PerGroup(None).use(None).__enter__(), "_pool"),  # type: ignore[arg-type]
        (lambda: TritonCollectives().all_gather(None, None, None), "all_gather"),  # type: ignore[arg-type]
    ],
    ids=["pool", "collectives"],
)
def test_a_built_in_system_is_named_where_a_user_has_no_part_in_it(call: Callable[[], None], name: str) -> None:
    error = caught(call)
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next and error.__traceback__.tb_next.tb_next
    assert own(error)[0] == name


def test_a_bare_assertion_is_said_by_its_line_of_source() -> None:
    assert raising("pool", caught(asserts)).text == "AssertionError: raise AssertionError"


class Odd(Exception):
    def __str__(self) -> str:
        raise TypeError("not a word")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Odd(), "Odd: its text raised TypeError"),
        (ValueError(), "ValueError"),
        (ValueError("\n one\ntwo"), "ValueError: one"),
        (ValueError("\udc80"), "ValueError: \\udc80"),
    ],
    ids=["unreadable", "empty", "lines", "half a character"],
)
def test_any_message_becomes_one_line_that_a_file_can_hold(error: Exception, text: str) -> None:
    what = raising("pool", error)
    assert (what.text, json.dumps(what.text).isascii()) == (text, True)
    what.text.encode()


def test_the_systems_frame_is_kept_however_deep_a_library_went_below_it() -> None:
    deep = "def run(call, depth=300):\n run(call, depth - 1) if depth else call()"
    scope: dict[str, Any] = {}
    exec(compile(deep, "/x/site-packages/engine/run.py", "exec"), scope)
    assert own(caught(lambda: scope["run"](lambda: json.loads("{"))))[-1] == "caught"


def test_causes_that_go_in_a_circle_are_read_once() -> None:
    first, second = caught(loads), caught(loads)
    first.__cause__, second.__cause__ = second, first
    assert raising("pool", first).own[0].function == "loads"


@pytest.mark.parametrize("call", [lambda: in_a_library(json.loads), loads], ids=["installed", "mine"])
def test_a_callback_of_a_plug_in_is_the_systems(call: Callable[[], None]) -> None:
    assert is_own(caught(call))


def test_an_error_of_the_harness_alone_is_not_the_systems() -> None:
    error = caught(lambda: raising("pool", None))  # type: ignore[arg-type]
    while error.__traceback__ and "harness" not in error.__traceback__.tb_frame.f_code.co_filename:
        error.__traceback__ = error.__traceback__.tb_next
    assert (bool(error.__traceback__), is_own(error)) == (True, False)


def recurses() -> None:
    recurses()


@pytest.mark.parametrize("error", [ValueError("x" * 10**6), caught(recurses)], ids=["a long message", "a deep one"])
def test_what_is_kept_of_an_exception_is_bounded(error: BaseException) -> None:
    what = raising("pool", error)
    assert sum(map(len, (*what.traceback, what.message, *map(str, what.frames)))) < LONGEST * LINES / 4


def test_a_debugger_begins_at_the_innermost_frame_of_the_system() -> None:
    traceback, index = innermost(caught(loads))
    for _ in range(index):
        assert traceback is not None
        traceback = traceback.tb_next
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_name == "loads"
    assert traceback.tb_next is not None


def test_a_definition_is_named_with_its_file_and_line() -> None:
    assert defined(loads) == f"loads, test_frames.py:{loads.__code__.co_firstlineno}"
    assert defined(Odd).startswith("Odd, test_frames.py:")
    assert defined(PerGroup.use).startswith("use, per_group.py:")
    assert defined(len) == "len"
