"""Options in groups, as `--help` shows them.

Invariant: every option is in a group, and one of a name is in the same group under every command.
"""

from __future__ import annotations

from typing import Any

GROUPS = {
    "How much": (
        *("draws", "minutes", "times", "seed", "seeds", "clean", "only", "schedules", "dry", "shard", "shrink"),
        *("runs", "spawns", "steps", "repeats", "op", "sizes", "dtype"),
    ),
    "Layouts": ("world", "topology", "nodes", "nvlink-domain", "from-dump", "name", "rename"),
    "What is compared": ("over", "from", "to", "wheels", "with", "pre", "metamorphic", "against"),
    "System under test": ("pool", "collectives", "sites", "nccl", "allow-plugins"),
    "Programs": ("flow", "tokens", "hazard", "graphs", "streams", "same-order", "no-guide"),
    "How it runs": (
        *("substrate", "evidence", "deadline", "shrink-seconds", "pdb"),
        *("no-run", "every", "stacks", "graph-memory"),
    ),
    "What is kept from night to night": ("run", "seeds-dir", "known", "corpus"),
    "Results": (
        *("json", "junitxml", "html", "perfetto", "observations", "traceback", "show-output", "note"),
        *("into", "out", "output", "seed-file"),
    ),
}
METAVARS = {
    **dict.fromkeys(("draws", "times", "clean", "seeds", "seed", "runs", "spawns", "steps", "repeats"), "N"),
    "minutes": "MINUTES",
    "seeds-dir": "DIR",
}
"""What is shown for a value in place of its type."""
PANEL = {name: panel for panel, names in GROUPS.items() for name in names}


def arrange(command: Any) -> None:
    """Put the options of a command, and of those below it, into their groups."""
    for parameter in command.params:
        name = next((option[2:] for option in parameter.opts if option.startswith("--")), "")
        if name in PANEL:
            parameter.rich_help_panel = PANEL[name]
        if parameter.metavar is None and parameter.param_type_name == "option":
            # Typer would write <bool> for a flag, which no one types
            parameter.metavar = "" if parameter.is_flag else METAVARS.get(name)
    for below in getattr(command, "commands", {}).values():
        arrange(below)
