"""The difference of two values as text shows what differs, and not more than a line of it."""

from __future__ import annotations

import re

import pytest

from harness.rank.state.pieces import Held, Value, Variables
from harness.rank.state.shown import LONGEST, difference


@pytest.mark.parametrize(
    ("what", "old", "new", "shown"),
    [
        ("umask", "0o022", "0o077", ("0o022", "0o077")),
        ("timers", {"real": "off", "virtual": "off"}, {"real": "armed", "virtual": "off"}, ("real=off", "real=armed")),
        ("environment", Variables((b"A=1", b"B=2")), Variables((b"A=1",)), ("B=2", "no B")),
        ("module path", ("/a",), ("/b", "/a"), ("none", "/b")),
        ("module path", ("/a", "/b"), ("/b", "/a"), ("in one order or number", "in another")),
        ("blocked signals", frozenset(), frozenset({10, 12}), ("none", "SIGUSR1, SIGUSR2")),
        ("signal handlers", {"SIGINT": 0}, {"SIGINT": print}, ("SIGINT=SIG_DFL", "SIGINT=print")),
    ],
)
def test_a_difference_shows_what_differs(what: str, old: Value, new: Value, shown: tuple[str, str]) -> None:
    assert difference(what, old, new) == shown


def test_a_long_value_is_cut() -> None:
    assert [len(text) for text in difference("module path", (), ("x" * 1000,))] == [len("none"), LONGEST]


def test_bytes_that_are_no_characters_are_shown_as_escapes() -> None:
    old, new = difference("environment", Variables((b"A=1",)), Variables((b"A=\xff",)))
    assert (old, new) == ("A=1", r"A=\udcff")
    new.encode()


def one() -> None: ...


def function_of_the_same_name() -> Value:
    def one() -> None: ...

    one.__qualname__ = "one"
    return one


def test_two_functions_of_one_name_are_shown_with_their_places() -> None:
    shown = difference("functions", {"f": one}, {"f": function_of_the_same_name()})
    assert [re.fullmatch(r"f=tests\.\S+\.one \(.*test_shown\.py:\d+\)", text) is not None for text in shown] == [
        True,
        True,
    ]
    assert shown[0] != shown[1]


def test_two_objects_of_one_kind_are_shown_as_two() -> None:
    assert difference("hooks", {"h": Held(LONGEST)}, {"h": Held(-1)}) == (
        "h=builtins.int",
        "h=another of the name builtins.int",
    )


def test_long_values_that_differ_late_are_cut_before_the_difference() -> None:
    old, new = difference("environment", *(Variables((b"P=" + b"x" * 1000 + end,)) for end in (b"1", b"2")))
    assert (old[:4], old[-2:], new[-2:], len(old)) == ("P=xx", "x1", "x2", len(new))
    assert len(new) <= LONGEST
