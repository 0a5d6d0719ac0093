"""What a command does however it ends: it shows what was found, and writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import interrupts


@contextmanager
def at_the_end(show: Callable[[], None], write: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Call `show`, then `write`, when the block ends: by itself, by an error or by Ctrl-C. A further signal does not
    interrupt them, and neither is left out because the other failed."""
    try:
        yield
    finally:
        with interrupts.held():
            try:
                show()
            finally:
                write()
