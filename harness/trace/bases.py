"""The base of events.

Invariant: an event is plain data that a journal can hold, and never changes.
"""

from __future__ import annotations

import msgspec


class BaseEvent(msgspec.Struct, frozen=True, array_like=True):
    """What happened on one rank."""
