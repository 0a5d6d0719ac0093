"""Versions and hardware that a result was seen with."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from harness.machine import gpus, nccl

if TYPE_CHECKING:  # a header of pytest needs no world
    from harness.world.world import World

PACKAGES = ("torch", "triton", "hypothesis", "nccl4py", "cuda-core", "symm-harness")


def describe(world: World | None = None) -> dict[str, Any]:
    """Package versions, NCCL, GPUs, and what the world stands on. Local; touches no device."""
    version = nccl.version()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "nccl": ".".join(map(str, version)) if version else None,
        "gpus": [gpu.name for gpu in gpus.inventory()],
    }
    if world is not None:
        found["substrate"] = world.platform.name
        found["why"] = world.platform.why
        found |= world.description
    return found


def shown(facts: dict[str, Any]) -> str:
    """The versions that results depend on, in a line."""
    named = {"python": "Python", "torch": "torch", "triton": "Triton", "nccl": "NCCL", "hypothesis": "Hypothesis"}
    return ", ".join(f"{name} {facts[key] or 'missing'}" for key, name in named.items())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
