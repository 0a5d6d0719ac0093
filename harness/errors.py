"""What the harness says when a request or the machine is wrong.

Invariant: every error a user can cause is a `UsageError` whose message is one sentence that names
the offender. The command line prints that sentence and exits with status 2.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


class UsageError(Exception):
    """A malformed request: a file, an option, a name or a plug-in. The message names it."""


class MachineError(UsageError):
    """The machine cannot do what was asked, for example a GPU without NCCL."""


class JournalFull(MachineError):
    """A rank's journal has no room for an event. Plug-in code may be below it, and has no part in it."""


class PluginError(UsageError):
    """A pool or a collective given by the user does not import, does not fit, or raised."""


class CompileError(PluginError):
    """Device code of a plug-in does not compile, or nothing here compiles or runs it. It ends the command, wherever in
    the plug-in it is raised."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known name that a wrong one is nearest to, as the end of a sentence: `; did you mean per-group?`. Nothing
    where none is near. A part of exactly one known name is near to it."""
    lower = {each.lower(): each for each in known}
    parts = [each for each in lower if len(name) > 2 and name.lower() in each]
    close = get_close_matches(name.lower(), lower, 1) or (parts if len(parts) == 1 else [])
    return f"; did you mean {lower[close[0]]}?" if close else ""


def not_one_of(what: str, name: str, known: Collection[str]) -> UsageError:
    """The error for a name that is none of those known."""
    return UsageError(f"{what} {name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")
