"""What the harness says when a request or the machine is wrong.

Invariant: every error a user can cause is a `UsageError` whose message is one sentence that names
the offender. The command line prints that sentence and exits with status 2.
"""

from __future__ import annotations


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
