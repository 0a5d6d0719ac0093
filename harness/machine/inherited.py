"""What the processes that the harness starts have from the one that starts them: its variables and its packages.

Invariant: they find the same packages as it does, whatever its threads do meanwhile.
"""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path


def inherited(*changes: Mapping[str, str]) -> dict[str, str]:
    """All variables of this process with these changes. Any thread may ask."""
    # dict(os.environ) lists the names, then asks for each: KeyError where another thread takes one away in between,
    # as pytest does with every test
    own = {name: value for name in os.environ if (value := os.environ.get(name)) is not None}
    for change in changes:
        own |= change
    return own


def import_path(*first: str) -> str:
    """A PYTHONPATH with which another process finds this harness, and other packages as this one does.

    The folders `first` come before all others. The harness's own folder goes in front of the user's where nothing else
    leads to it, as with a checkout. Installed, it would bring all packages beside it in front of the user's.
    """
    root = Path(__file__).resolve().parents[2]
    given = os.environ.get("PYTHONPATH", "")
    places = [*filter(None, given.split(os.pathsep)), *site.getsitepackages(), site.getusersitepackages()]
    is_found = root in map(Path.resolve, map(Path, places))
    return os.pathsep.join(filter(None, [*first, "" if is_found else str(root), given]))
