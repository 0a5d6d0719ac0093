"""The command line: its commands, and the exit status that each way to end becomes.

Invariant: exit status 0 when nothing was found, 1 with findings, 2 with one clear sentence when the
request or the machine is wrong, 130 on Ctrl-C. Nothing is decided here; every command calls a room.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from hypothesis.configuration import set_hypothesis_home_dir
from rich.console import Console

from harness import interrupts
from harness.cli import studies
from harness.cli.doctor import examine
from harness.cli.fuzz import fuzz
from harness.cli.options import JsonOption
from harness.cli.replay import replay
from harness.errors import UsageError
from harness.report import data, terminal
from harness.scenario import topology

app = typer.Typer(
    name="symm",
    pretty_exceptions_enable=False,
    help="Property tests for collectives over NCCL symmetric memory.",
)
app.command()(fuzz)
app.command()(replay)
app.command()(studies.matrix)
app.command()(studies.agree)
app.command()(studies.faults)
app.add_typer(studies.bench, name="bench")

_OptionError: Any = typer.BadParameter.__mro__[2]
"""click's `ClickException`, which typer carries inside itself from 0.26 on and takes from click before."""


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="TOPOLOGY", help="A file, or the name of one that ships here.")],
    json_file: JsonOption = None,
) -> None:
    """Print a topology's families."""
    data.check_target(json_file)
    shown = topology.find(name)
    if json_file != "-":
        terminal.topology(Console(), shown)
    data.write(data.topology(shown), json_file)


@app.command(name="topologies")
def list_topologies(json_file: JsonOption = None) -> None:
    """List the named topologies."""
    data.check_target(json_file)
    loaded = [topology.load(path) for path in topology.named().values()]
    if json_file != "-":
        terminal.topologies(Console(), loaded)
    data.write({"schema": data.SCHEMA, "topologies": [data.topology(t) for t in loaded]}, json_file)


@app.command()
def doctor(json_file: JsonOption = None) -> None:
    """Say what this machine can run, and why not more."""
    data.check_target(json_file)
    found = examine()
    if json_file != "-":
        terminal.table(Console(), ("what", "found", "means"), ((row.what, row.found, row.means) for row in found.rows))
    data.write({"schema": data.SCHEMA, "environment": found.environment, "checks": found.rows}, json_file)


def _run_command() -> object:
    """The status of the command that was asked for. Raises `KeyboardInterrupt` after Ctrl-C, whatever became of it."""
    try:
        status = app(standalone_mode=False)
    except Exception:
        interrupts.check()
        raise
    interrupts.check()
    return status


def main() -> None:
    """Entry point: turns every expected error into one sentence and its exit status."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    set_hypothesis_home_dir(cache / "symm-harness")  # or it leaves a folder wherever the command runs
    interrupts.heed()
    try:
        status = _run_command()
    except (UsageError, _OptionError) as error:
        text = error.format_message() if isinstance(error, _OptionError) else str(error)
        sys.stderr.write(f"symm: {' '.join(text.split())}\n")
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = interrupts.STATUS
    except (SystemExit, OSError) as error:  # typer exits with the former where a pipe is closed
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise
        why = error.strerror if isinstance(error, OSError) else "its reader is gone"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.stderr.write(f"symm: cannot write to stdout: {why}\n")
        status = 2
    except Exception:  # a mistake in the harness must not read as a finding
        traceback.print_exc()
        sys.stderr.write("symm: this is a mistake in the harness; please report it with the lines above\n")
        status = 2
    if status == interrupts.STATUS:  # which typer gives for Ctrl-C by itself, from 0.26 on
        sys.stderr.write(interrupts.WORDS)
        status = interrupts.status()
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
