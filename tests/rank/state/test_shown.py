"""The difference of two values as text shows what differs, and not more than a line of it."""

from __future__ import annotations

import pytest

from harness.rank.state.pieces import Value, Variables
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
