"""Writes what `symm` prints below the commands of `docs/layouts.md`.

    python docs/shown.py

Invariant: a block begins with its command, and the rest of the block is what that command printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "layouts.md"
BLOCK = re.compile(r"^```\n\$ symm (.*)\n[^`]*^```$", re.MULTILINE)
COLUMNS = "110"
"""Characters of a line, so that no table wraps."""


def filled(text: str) -> str:
    """The page, with what its commands print."""
    return BLOCK.sub(lambda block: f"```\n$ symm {block[1]}\n{printed(block[1].split())}\n```", text)


def printed(arguments: list[str]) -> str:
    """What a command prints, without spaces at the ends of lines. Raises where it fails."""
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": COLUMNS}, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
