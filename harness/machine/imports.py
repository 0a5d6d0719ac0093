"""Where the processes that the harness starts look for modules.

Invariant: they find the same packages as the process that starts them.
"""

from __future__ import annotations

import os
import site
from pathlib import Path


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
