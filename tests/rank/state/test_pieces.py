"""Pieces of a process, as they are read."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from harness.rank.state.pieces import Held, of_process

READ = of_process("/")


class Incomparable:
    """As a tensor, which has no one answer to `==`."""

    def __call__(self, *given: object) -> None: ...

    def __eq__(self, other: object) -> bool:
        raise ValueError("compared")

    def __hash__(self) -> int:
        return 0


def test_a_variable_that_is_taken_out_and_put_back_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SYMM_ONE", "SYMM_OTHER"):
        monkeypatch.setenv(name, "1")
    before = READ["environment"]()
    os.environ["SYMM_ONE"] = os.environ.pop("SYMM_ONE")
    assert READ["environment"]() == before


@pytest.mark.parametrize("piece", ["hooks", "standard streams", "module path", "warnings that raise"])
def test_objects_of_a_plug_in_are_compared_by_identity(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def put() -> None:
        monkeypatch.setattr(sys, "excepthook", Incomparable())
        monkeypatch.setattr(sys, "stdin", Incomparable())
        monkeypatch.setattr(sys, "path", [Incomparable()])
        monkeypatch.setattr(warnings, "filters", [("error", Incomparable(), Warning, None, 0)])

    put()
    before = READ[piece]()
    assert READ[piece]() == before
    put()
    assert READ[piece]() != before


def test_held_objects_are_equal_where_they_are_one() -> None:
    one = Incomparable()
    assert (Held(one) == Held(one), Held(one) == Held(Incomparable())) == (True, False)
