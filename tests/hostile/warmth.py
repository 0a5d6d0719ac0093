"""All that commands and ranks import, build or read once in a process, done in the parent of the forked ones.

Invariant: nothing that a command decides is decided here: the parent has one thread afterwards, no database of
Hypothesis, and the random numbers that it had.
"""

from __future__ import annotations

import gc
import importlib
import random
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import typer

from tests.hostile import forked, runs

OURS = ("harness.cli.main", "harness.plugin.tested_world", "harness.plugin.properties", "pytest", "hypothesis")
SHORT = ("fuzz", "--draws=2", "--world=2", "--substrate=sim", "--json=found.json")
"""A command that imports what most import late."""
NAMED = "imported"
"""The file in which it names all modules that it has."""


def warm() -> None:
    """Once, before the first fork."""
    from harness.rank.zygote import PRELOAD
    from harness.world.platform import choose

    for name in (*PRELOAD, *choose("sim", 1).preload, *OURS, "rich.progress"):
        importlib.import_module(name)
    for name in imported_late():
        with suppress(ImportError):
            importlib.import_module(name)
    from harness.cli.main import app

    forked.COMMAND = typer.main.get_command(app)
    read_constants()
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def imported_late() -> list[str]:
    """Modules that a short command has and this process has not."""
    forked.naming = _naming  # type: ignore[attr-defined]
    folder = Path(tempfile.mkdtemp(prefix="symm-hostile-"))  # a `TemporaryDirectory` would end with the child
    ended = runs.run(folder, *SHORT, program="naming")
    names = (ended.folder / NAMED).read_text().split() if ended.status == 0 else []
    shutil.rmtree(folder)
    if not names:
        raise RuntimeError(f"symm {' '.join(SHORT)} ended with {ended.status}: {runs.last(ended.err)}")
    return [name for name in names if name not in sys.modules]


def _naming(arguments: tuple[str, ...]) -> object:
    """In the child: the command line, and then the names of all modules."""
    try:
        return forked.symm(arguments)
    finally:
        Path(NAMED).write_text("\n".join(sys.modules))


def read_constants() -> None:
    """Have Hypothesis read the constants of all modules of the harness, as it does at the first draw of a process."""
    from hypothesis.configuration import set_hypothesis_home_dir

    from harness.strategies.batches import sample
    from harness.strategies.programs import scenarios

    state = random.getstate()
    with tempfile.TemporaryDirectory(prefix="symm-hostile-") as folder:
        set_hypothesis_home_dir(folder)
        sample(scenarios(2), 12)
    set_hypothesis_home_dir(None)  # pytest in a child has the folder that it would have
    random.setstate(state)
