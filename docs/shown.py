"""Writes what `symm` prints below the commands of pages.

    python docs/shown.py

Invariant: a block begins with its command, and the rest of the block is what that command printed. The commands of a
page run in one folder, in their order, with the files that the page says to write before them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
PAGES = HERE / "layouts.md", HERE / "kernels.md"
PART = re.compile(
    r"an empty `(?P<file>[\w.]+)`:\n\n```python\n(?P<text>.*?)^```$"
    r"|In `(?P<changed>[\w.]+)`, this line goes before `(?P<place>[^`]+)`:\n\n```python\n(?P<line>[^\n]+)\n```$"
    r"|^```\n\$ symm (?P<command>[^\n]+)\n[^`]*^```$",
    re.MULTILINE | re.DOTALL,
)
"""A file to write, a line to add to one, or a block with a command."""
COLUMNS = 110
"""Characters of a line, so that no table wraps."""
LONGEST = 140
"""Characters of a line that is shown whole. Some lines never wrap."""
ENVIRONMENT = {"COLUMNS": str(COLUMNS), "CUDA_VISIBLE_DEVICES": "", "SYMM_SHRINK_SECONDS": "600"}
"""No GPU, and time to shrink to the end, however busy the machine is."""
TIMES = re.compile(r"\d+\.\d s \(\d+\.\d/s\)|\(\d+\.\d s\)")


def filled(text: str) -> str:
    """The page, with what its commands print."""
    with TemporaryDirectory() as folder:
        return PART.sub(lambda part: _done(part, Path(folder)), text)


def timeless(text: str) -> str:
    """The page without the times that commands took, and without where lines break behind one."""
    return re.sub(r"[ \n]+", " ", TIMES.sub("TIME", text))


def _done(part: re.Match[str], folder: Path) -> str:
    """Do what a part of a page says. Returns it with what was printed."""
    if part["file"]:
        (folder / part["file"]).write_text(part["text"])
    elif part["changed"]:
        path = folder / part["changed"]
        text = path.read_text()
        (found,) = re.findall(rf"^( +){re.escape(part['place'])}", text, re.MULTILINE)
        path.write_text(text.replace(f"{found}{part['place']}", f"{found}{part['line']}\n{found}{part['place']}"))
    else:
        return f"```\n$ symm {part['command']}\n{printed(part['command'].split(), folder)}\n```"
    return part[0]


def printed(arguments: list[str], folder: Path) -> str:
    """What a command prints in a folder, without spaces at the ends of lines and without how far it was on the way.
    Raises where it fails; findings are no failure."""
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    lines = (line.rstrip() for line in done.stdout.rstrip().splitlines())
    return "\n".join(_cut(line) for line in lines if not re.match(r"\d+:\d\d: ", line))


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: COLUMNS - 2].rstrip()} …"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
