"""Where a compiler finds NCCL by `-lnccl` and `#include <nccl.h>`. Packages of NCCL have no `libnccl.so`.

Invariant: what a rank loads is not changed: a library linked here asks for NCCL by its soname.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from harness.machine.observer.build import real_nccl


def variables() -> dict[str, str]:
    """The environment for a compiler: a folder of the user's cache with a link `libnccl.so`, and NCCL's header where
    its package has it. Raises `MachineError` where there is no NCCL."""
    real = real_nccl().resolve()
    found = {"LIBRARY_PATH": str(_folder(real))}
    if (header := real.parents[1] / "include" / "nccl.h").exists():
        found["CPATH"] = str(header.parent)
    return {name: os.pathsep.join(filter(None, [path, os.environ.get(name)])) for name, path in found.items()}


def _folder(real: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "symm-harness" / f"nccl-{hashlib.sha256(str(real).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "libnccl.so").symlink_to(real)
    return folder
