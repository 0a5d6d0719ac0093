"""The C compiler of this machine, for what the harness compiles when it is first needed."""

from __future__ import annotations

import os
import shutil
import subprocess

from harness.errors import MachineError

COMPILERS = ("cc", "gcc", "clang")
SECONDS = 60.0


def compiler() -> str:
    """Path of the compiler that `CC` names, or of the first one on the PATH. Raises `MachineError` without one."""
    names = [os.environ["CC"]] if os.environ.get("CC") else COMPILERS
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise MachineError(f"no C compiler is on the PATH ({', '.join(names)})")
    return found


def compile_source(command: list[str], source: str) -> None:
    """Run a compiler's command. Raises `MachineError` with the last line of its complaint about `source`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise MachineError(f"{command[0]} failed on {source}: {said[-1] if said else done.returncode}")
