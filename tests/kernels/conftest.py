"""One interpreter for every test of the kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.interpreter import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    running = Interpreter()
    yield running
    running.close()
