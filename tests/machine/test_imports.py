"""Processes that the harness starts find the harness, and the user's packages before those beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.imports import import_path

ROOT = str(Path(__file__).parents[2])


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
