"""`symm --version`: the versions that a result depends on, and the substrate that `auto` takes here."""

from __future__ import annotations

from harness.errors import MachineError
from harness.world import environment
from harness.world.platform import choose


def lines() -> list[str]:
    """The harness itself first. Imports no torch and touches no device."""
    facts = environment.describe()
    try:
        platform = choose("auto", 1)
        substrate = f"{platform.name} ({platform.why})"
    except MachineError as error:
        substrate = f"none ({error})"
    return [f"symm {facts['symm-harness'] or 'not installed'}", environment.shown(facts), f"substrate {substrate}"]
