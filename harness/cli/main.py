"""The command line: its commands, and the exit status that each way to end becomes.

Invariant: exit status 0 when nothing was found, 1 with findings, 2 with one clear sentence when the
request or the machine is wrong, 130 on Ctrl-C (143 and 129 on SIGTERM and SIGHUP). Where the reader of a pipe has gone
it is 141, as of a program that dies of it. Nothing is decided here; every command calls a room.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from hypothesis.configuration import set_hypothesis_home_dir

from harness import interrupts
from harness.cli import layouts, studies, watch
from harness.cli.agreement import agree
from harness.cli.bisection import bisect
from harness.cli.doctor import examine
from harness.cli.fuzz import fuzz
from harness.cli.nights.merge import merge
from harness.cli.options import JsonOption
from harness.cli.pages.report import report
from harness.cli.replay import replay
from harness.cli.setup import completion, panels, plug_ins, settings, versions
from harness.cli.setup.settings import Setting
from harness.errors import UsageError, did_you_mean
from harness.nights.shard import SHARD
from harness.report import data, terminal
from harness.report.listing import shown
from harness.world.hosts.gathering import dismiss, lead
from harness.world.hosts.launch import launched

app = typer.Typer(
    name="symm",
    pretty_exceptions_enable=False,
    help="Property tests for collectives over NCCL symmetric memory.",
)
app.command()(fuzz)
app.command()(merge)
app.command()(replay)
app.command()(bisect)
app.command()(plug_ins.check)
app.command()(layouts.show)
app.command()(report)
app.command(name="topologies")(layouts.topologies)
app.command()(studies.matrix)
app.command()(agree)
app.command()(studies.faults)
app.command()(watch.watch)
app.command()(watch.judge)
app.add_typer(studies.bench, name="bench")

_OptionError: Any = typer.BadParameter.__mro__[2]
"""click's `ClickException`, which typer carries inside itself from 0.26 on and takes from click before."""


@app.callback(invoke_without_command=True)
def _symm(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the versions that results depend on.")] = False,
) -> None:
    if version:
        print("\n".join(versions.lines()))
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise UsageError("no command was given; symm COMMAND --help shows the options of one")


@app.command()
def doctor(context: typer.Context, json_file: JsonOption = None) -> None:
    """Say what this machine can run, and why not more."""
    data.check_target(json_file)
    found = examine()
    chosen: list[Setting] = context.obj or []
    if json_file != "-":
        rows = [(row.what, row.found, row.means) for row in found.rows]
        rows += [(f"default --{each.option}", str(each.value), f"from {each.source}") for each in chosen]
        terminal.table(terminal.Screen(), ("what", "found", "means"), rows)
    facts = {"environment": found.environment, "checks": found.rows, "libraries": found.libraries}
    facts["defaults"] = [{**each._asdict(), "command": " ".join(each.command)} for each in chosen]
    data.write({"schema": data.SCHEMA, **facts}, json_file)


OVER_HOSTS = ("fuzz", "replay")
"""Commands that run in all tasks of torchrun or srun as one; any other runs in each task by itself."""


def _run_over_hosts(arguments: Sequence[str]) -> object:
    """The status of a command, which is one for all tasks of a launch, where it can be."""
    if not {*arguments[:1]} & {*OVER_HOSTS} or "--help" in arguments or completion.VARIABLE in os.environ:
        return _run_command()
    if any(each.partition("=")[0] == "--shard" for each in arguments):
        with suppress(UsageError):  # alone, it needs nothing of a launch
            if launched(os.environ) is not None:
                _say("symm: --shard is given, so this task draws its shard alone\n")
        return _run_command()
    shard = f"SYMM_SHARD={os.environ[SHARD]} " if os.environ.get(SHARD) else ""
    called = f"{shard}symm {shlex.join(arguments)}".encode(errors="backslashreplace").decode()
    return lead(_run_command, called)


def _run_command() -> object:
    """The status of the command that was asked for. Raises `KeyboardInterrupt` after Ctrl-C, whatever became of it."""
    command = typer.main.get_command(app)
    panels.arrange(command)
    if completion.complete(sys.argv[1:]):
        return 0
    is_completing = completion.VARIABLE in os.environ
    try:
        chosen = [] if is_completing else settings.apply(command, Path.cwd(), os.environ)
        status = command(standalone_mode=False, obj=chosen)
    except (Exception, SystemExit):
        interrupts.check()
        raise
    interrupts.check()
    return status


def main() -> None:
    """Entry point: turns every expected error into one sentence and its exit status."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    set_hypothesis_home_dir(cache / "symm-harness")  # or it leaves a folder wherever the command runs
    interrupts.heed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name and no arrow may cost a finding
    try:
        status = _run_over_hosts(sys.argv[1:])
    except (UsageError, _OptionError) as error:
        status = _refuse(_wrong_option(error) if isinstance(error, _OptionError) else str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = interrupts.STATUS
    except OSError as error:
        status = _out_of_reach(error)
    except SystemExit as error:  # typer exits where a pipe is closed, and after what completes a command in a shell
        status = _out_of_reach(error.__context__) if isinstance(error.__context__, OSError) else error.code
    except Exception:  # a mistake in the harness must not read as a finding
        _say(f"{traceback.format_exc()}symm: this is a mistake in the harness; please report it with the lines above\n")
        status = 2
    if status == interrupts.STATUS:  # which typer gives for Ctrl-C by itself, from 0.26 on
        _say(interrupts.WORDS)
        status = interrupts.status()
    status = status if isinstance(status, int) else 0
    dismiss(status)
    sys.exit(status)


def _wrong_option(error: Any) -> str:
    """What the parser of options says, with the choice that was meant, and where the value comes from."""
    message: str = error.format_message()
    if choice := re.search(r"'([^']*)' is not one of (.+?)\.?$", message):
        message = message.removesuffix(".") + did_you_mean(choice[1], re.findall(r"'([^']+)'", choice[2]))
    message = message.replace("Value error, ", "")
    parameter: Any = getattr(error, "param", None)
    source = getattr(parameter, "source", "")
    return f"{message} (from {source})" if source and not set(parameter.opts) & {*sys.argv} else message


def _out_of_reach(error: OSError) -> int:
    """The status of a command that the system refused a file, or its output."""
    if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO):
        gone = [name for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)) if not _flushes(stream)]
        if error.errno == errno.EPIPE:  # as with `symm topologies | head`: the reader has had enough
            return 128 + signal.SIGPIPE
        return _refuse(f"cannot write to {' and '.join(gone or ['stdout'])}: {error.strerror}")
    named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return _refuse(f"{named}{error.strerror or error}")


def _refuse(why: str) -> int:
    """Say why the request or the machine is wrong; its status."""
    _say(f"symm: {terminal.sentence(why)}\n")
    return 2


def _say(text: str) -> None:
    """Tell whoever reads stderr. Where nobody can, the status says it alone."""
    try:
        sys.stderr.write(shown(text))
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _flushes(stream: TextIO) -> bool:
    """Whether a stream takes what is still to be written to it; one that does not is silenced."""
    try:
        stream.flush()
    except OSError:
        _silence(stream)
        return False
    return True


def _silence(stream: TextIO) -> None:
    """Have what is still to be written to a stream go nowhere: Python would end with a status of its own over it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
