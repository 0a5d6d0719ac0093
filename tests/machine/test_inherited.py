"""Processes that the harness starts have its variables, and find the harness and the user's packages before those
beside it."""

from __future__ import annotations

import os
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine.inherited import import_path, inherited

ROOT = str(Path(__file__).parents[2])


class Changing(UserDict[str, str]):
    """An environment in which another thread takes a variable away as soon as the names are listed."""

    def __iter__(self) -> Iterator[str]:
        names = [*self.data]
        self.data.pop("TAKEN", None)
        return iter(names)


def test_variables_are_those_of_this_process_with_the_last_change_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", UserDict(KEPT="here", CHANGED="here"))
    assert inherited({"CHANGED": "first", "NEW": "first"}, {"CHANGED": "second"}) == {
        "KEPT": "here",
        "CHANGED": "second",
        "NEW": "first",
    }


def test_another_thread_may_take_a_variable_away_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", Changing(KEPT="here", TAKEN="here"))
    assert inherited() == {"KEPT": "here"}


def test_a_checkout_comes_before_what_the_user_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    assert import_path("/first") == f"/first:{ROOT}:/theirs"


def test_a_checkout_that_the_user_named_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/theirs:{ROOT}")
    assert import_path() == f"/theirs:{ROOT}"


def test_packages_beside_an_installed_harness_come_after_what_the_user_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank would import another torch than the command otherwise."""
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.setattr("site.getsitepackages", lambda: [ROOT])
    assert import_path("/first") == "/first:/theirs"
