"""The observer is compiled into a folder of the tests, and no plug-in of the user's is in its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine import profiler
from harness.machine.observer import build


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def anew(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that the user has set counts."""
    for name in (profiler.VARIABLE, build.PRELOAD, build.OUT, build.STACKS, build.HISTORY_WANTED, "CC", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    build._library.cache_clear()
    yield
    build._library.cache_clear()
