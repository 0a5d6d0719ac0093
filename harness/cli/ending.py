"""What a command does however it ends: it writes and shows what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import interrupts


@contextmanager
def at_the_end(show: Callable[[], None]) -> Iterator[None]:
    """Call `show` when the block ends: by itself, by an error or by Ctrl-C. A further signal does not interrupt it."""
    try:
        yield
    finally:
        with interrupts.held():
            show()
