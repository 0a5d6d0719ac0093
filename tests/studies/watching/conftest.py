"""The observer is compiled into a folder of the tests."""

from __future__ import annotations

from tests.tools.observer_cache import anew, kept

__all__ = ["anew", "kept"]
