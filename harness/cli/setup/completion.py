"""`--install-completion` and `--show-completion`, for the shell that this one is called from.

Invariant: both work wherever `symm` does. Where the caller is no shell that can complete, as in a script or a
container, the shell is that of `SHELL`, or else bash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import shellingham
from typer.completion import (  # type: ignore[attr-defined]  # it passes them on
    Shells,
    get_completion_script,
    install,
)

NAME, VARIABLE = "symm", "_SYMM_COMPLETE"
INSTALL, SHOW = "--install-completion", "--show-completion"


def shell() -> str:
    """The shell to complete in."""
    known = [each.value for each in Shells]
    try:
        called_from = shellingham.detect_shell()[0]
    except (shellingham.ShellDetectionFailure, OSError):
        called_from = ""
    found = (called_from, os.path.basename(os.environ.get("SHELL", "")))
    return next((name for name in found if name in known), "bash")


def complete(arguments: Sequence[str]) -> bool:
    """Do what the arguments ask for, if that is completion."""
    if [*arguments] == [INSTALL]:
        name, path = install(shell=shell(), prog_name=NAME, complete_var=VARIABLE)
        print(f"{name} completion is in {path}; shells that start from now on have it")
    elif [*arguments] == [SHOW]:
        print(get_completion_script(prog_name=NAME, complete_var=VARIABLE, shell=shell()))
    else:
        return False
    return True
