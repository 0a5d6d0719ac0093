"""Wheels of small packages, made on the spot: a bisection needs versions, and no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

SOUND = """
from harness.system.pools.per_group import PerGroup

class Pool(PerGroup):
    pass
"""
NEVER_REGISTERS = """
from contextlib import contextmanager
from harness.system.pools.per_group import PerGroup

class Pool(PerGroup):
    @contextmanager
    def use(self, group):
        with self._pool(group).use():
            yield
"""
"""Breaks `unregistered`."""
LEAKS = """
from harness.system.pools.per_group import PerGroup

class Pool(PerGroup):
    def close(self):
        pass
"""
"""Breaks `leak`."""
RAISES = """
from harness.system.pools.per_group import PerGroup

class Pool(PerGroup):
    def use(self, group):
        raise RuntimeError("not in this version")
"""
"""Breaks `raised`."""
DOES_NOT_IMPORT = "import there_is_no_such_package\n"


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
) -> Path:
    """A wheel that holds these files, by their paths in it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    record = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{name}-{version}-{tag}.whl"
    with ZipFile(path, "w") as file:
        for each, content in contents.items():
            file.writestr(each, content)
    return path


def pools(folder: Path, sources: Mapping[str, str], name: str = "brokenpool") -> Path:
    """A folder of wheels of a package that is a pool policy: its source by version."""
    for version, source in sources.items():
        wheel(folder, name, version, {f"{name}/__init__.py": source})
    return folder


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
