"""Results as JSON, each with its schema number."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.campaign.seeds import write_whole
from harness.campaign.tally import Tally
from harness.errors import UsageError
from harness.nights.shard import Shard
from harness.report import leftovers
from harness.scenario.topology import Topology
from harness.studies.agree.comparison import Agreement
from harness.studies.faults.proof import Outcome
from harness.studies.matrix import Cell
from harness.world.world import World

SCHEMA = 1


def fuzz(
    tally: Tally, world: World, environment: dict[str, Any], seed: int = 0, shard: Shard | None = None
) -> dict[str, Any]:
    """A campaign's outcome. `world` and `steps` of a finding are those of its shrunk scenario; a hang has `stacks`."""
    return {
        "schema": SCHEMA,
        "seed": seed,
        "shard": {"index": shard.index, "of": shard.of, "source": shard.source} if shard else None,
        "draws": tally.draws,
        "shrinking": tally.shrinking,
        "seconds": round(tally.seconds, 3),
        "draws_per_second": round(tally.draws_per_second, 2),
        "layouts": len(tally.layouts),
        "groups": len(tally.groups),
        "collectives": tally.collectives,
        "windows": tally.windows,
        "vacuous": tally.vacuous,
        "vacuous_by_reason": tally.vacuous_by,
        "by_kernel": tally.by_kernel,
        "fell_back": tally.fell_back,
        "unsupported": tally.unsupported,
        "paths_unknown": tally.unseen,
        "paths_free": tally.free,
        "oracles": oracles_on(world, is_path_seen=tally.seen > 0 or not tally.collectives),
        "environment": environment,
        "left": leftovers.data(world),
        "findings": [
            {
                "rule": found.finding.rule,
                **({"cause": found.finding.cause} if found.finding.cause else {}),
                "explanation": found.finding.explanation,
                "seed_file": found.seed_file,
                "world": found.scenario.world,
                "steps": len(found.scenario.steps),
                "draws_to_find": found.draws_to_find,
                "found_at": dict(zip(("world", "steps"), found.found_at, strict=True)),
                "shrunk": found.shrunk,
                "reruns": found.reruns,
                "signature": found.signature,
                "status": "new",
                "rate": None if found.reruns is None else [found.reruns.failed, found.reruns.runs],
                **({"stacks": found.finding.stacks} if found.finding.stacks else {}),
            }
            for found in tally.found.values()
        ],
    }


def matrix(cells: Sequence[Cell], environment: dict[str, Any]) -> dict[str, Any]:
    """The verdict matrix."""
    return {"schema": SCHEMA, "environment": environment, "cells": [cell.as_data() for cell in cells]}


def faults(outcomes: Sequence[Outcome], clean: Tally, environment: dict[str, Any]) -> dict[str, Any]:
    """What came of the planted faults, and of draws without any."""
    return {
        "schema": SCHEMA,
        "faults": [outcome.as_data() for outcome in outcomes],
        "clean": {"draws": clean.draws, "findings": [found.finding.rule for found in clean.found.values()]},
        "expected": clean.expected,
        "environment": environment,
    }


def agreement(compared: Agreement, environment: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """A comparison of two sides. By its name, each side of a disagreement holds only what differs, by where it does."""
    return {
        "schema": SCHEMA,
        "draws": compared.draws,
        "compared": compared.compared,
        "accounted": compared.accounted,
        "disagreements": [
            {
                "fact": found.fact,
                names[0]: {str(each.where): each.first for each in found.differences},
                names[1]: {str(each.where): each.second for each in found.differences},
                "seed_file": found.seed_file,
                **({f"{names[1]}_seed_file": found.second_file} if found.second_file else {}),
            }
            for found in compared.found.values()
        ],
        "environment": environment,
    }


def topology(shown: Topology) -> dict[str, Any]:
    """A topology: what its file says, the families that follow, and node and NVLink domain of each rank."""
    families = {name: [list(group) for group in partition] for name, partition in shown.families.items()}
    return {
        "schema": SCHEMA,
        "name": shown.name,
        "world": shown.world,
        "convention": shown.convention,
        "degrees": shown.degrees,
        "node_of": list(shown.node_of),
        "nvlink_domain_of": list(shown.domain_of),
        "note": shown.note,
        "families": families,
        "communicators": {name: [group.number for group in ids] for name, ids in shown.ids.items()},
    }


def check_target(target: str | None, read: Iterable[str] = (), form: str = "JSON") -> None:
    """Raise `UsageError` now if `write` could not write there later, or would write over what is `read`."""
    if target is None or target == "-":
        return
    if any(os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target) for source in read):
        raise UsageError(f"cannot write {form} to {target}: it is what the command reads")
    if not target:
        raise UsageError(f"cannot write {form} to a file without a name")
    path = Path(target)
    folder = Path(os.path.realpath(path)).parent  # Path.resolve raises RuntimeError for links in a circle
    if path.is_symlink() and not path.exists():
        raise UsageError(f"cannot write {form} to {target}: it is a link that leads nowhere")
    if path.is_dir() or not folder.is_dir():
        raise UsageError(
            f"cannot write {form} to {target}: {'it is a directory' if path.is_dir() else 'no such directory'}"
        )
    if path.is_file() or not path.exists():  # written beside its place first; a pipe or a device is written to
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(f"cannot write {form} to {target}: {error.strerror}") from error


def write(data: dict[str, Any], target: str | None) -> None:
    """Write to a file, or to standard output for `-`; nothing for None."""
    if target is None:
        return
    text = msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"
    if target == "-":  # as ASCII, since it may be a terminal
        sys.stdout.write(json.dumps(json.loads(text), indent=2) + "\n")
        sys.stdout.flush()  # whatever becomes of stderr
    else:
        write_whole(Path(target), text)


ORACLES = ("ownership", "registration", "capture", "lifetime", "path", "data", "fate")


def oracles_on(world: World, is_path_seen: bool = True) -> list[str]:
    """The kinds of rule that can be judged on this world; `path` names its evidence, or is left out without any, and
    where that never showed a path that NCCL had to take."""
    evidence = world.description.get("path_evidence")
    path_oracle = [f"path ({evidence})"] if evidence and is_path_seen else []
    return [*(name for name in ORACLES if name != "path"), *path_oracle]
