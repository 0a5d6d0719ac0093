"""The line between the harness and the system under test, on a rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from harness.substrate.communicator import NotOwned

T = TypeVar("T")


class SystemRaised(Exception):
    """The system under test raised. `where` is pool or collectives."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.where = where


def call_system(where: str, call: Callable[[], T]) -> T:
    """Run code of the system under test. An exception ends the draw, unless it is part of the draw."""
    try:
        return call()
    except (torch.OutOfMemoryError, NotOwned):  # an engine handles both: it frees memory, or calls the library
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise SystemRaised(where, error) from error
