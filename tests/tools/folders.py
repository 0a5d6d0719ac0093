"""What commands find in their folder, a seed file and plug-ins, and what they leave there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.campaign import seeds
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Release
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.commands import Run

SIM = ("--substrate", "sim")
THREE = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),), "cp": ((0, 1), (2,))})
REUSE = (
    Allocate("first", "tp", 8),
    Release("first"),
    Allocate("second", "cp", 8),
    AllGather("cp", View("second"), 4, via="kernel"),
)
"""Wrong on one pool for all groups: the second buffer lies in the window of the first one's group."""
PLUG_INS = """
import torch
from harness.system.collectives import NotOwned, TritonCollectives
from harness.system.pools.per_group import PerGroup

class Right(PerGroup):
    pass

class RefusesAll(PerGroup):
    def use(self, group):
        raise torch.OutOfMemoryError("none left")

class Idle(TritonCollectives):
    def all_gather(self, context, output, source):
        pass

class RefusesEveryCall(TritonCollectives):
    def refuse(self, *operands):
        raise NotOwned
    def all_gather(self, context, output, source):
        raise NotOwned
    def reduce_scatter(self, context, output, source, op):
        raise NotOwned
    all_reduce = all_to_all = broadcast = refuse

class OnlyGathers:
    def all_gather(self, context, output, source):
        pass
"""
BROKEN_MODULES = {
    "torn.py": "def half(:\n",
    "rude.py": "raise RuntimeError('not today')\n",
    "quits.py": "import sys\nsys.exit(0)\n",
}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seed_file(folder: Path, name: str = "seed.json", pool: str = "shared-at-alloc") -> Path:
    path = folder / name
    seeds.save(seeds.Seed(seeds.SCHEMA, Scenario(THREE, REUSE, System(pool)), (), {}), path)
    return path


def facts(run: Run, name: str = "found.json") -> Any:
    return json.loads((run.folder / name).read_bytes())


def sentence(run: Run) -> str:
    """What a command that was refused says; it must be all of stderr, and one line."""
    lines = run.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("symm: ")
    return lines[0].removeprefix("symm: ")
