"""Folders for commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A new folder, named after what runs in it."""
    return lambda name: tmp_path_factory.mktemp(name.replace(" ", "-"))
