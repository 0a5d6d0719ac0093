"""The observer as a library of this machine: compiled for one NCCL when it is first needed, and kept.

Invariant: a kept file is whole. It is made under another name and moved, and its name tells what it was made from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import MachineError
from harness.machine.compiler import compile_source, compiler
from harness.machine.inherited import inherited
from harness.machine.observer.elf import defined
from harness.machine.profiler import VARIABLE as PLUGIN

HERE = Path(__file__).parent
NCCL = "libnccl.so.2"
"""The name by which every program asks for NCCL, and which the observer bears."""
OUT = "SYMM_OBSERVER_OUT"
"""The environment variable with the folder for recordings."""
STACKS, HISTORY_WANTED = "SYMM_OBSERVER_STACKS", "SYMM_OBSERVER_HISTORY"
"""Which call sites get a Python stack, `first` or `all`; and, where it is set, PyTorch's memory history is kept."""
PRELOAD = "LD_PRELOAD"
ON_STREAMS = (
    *("cudaStreamBeginCapture", "cudaStreamBeginCaptureToGraph", "cudaStreamEndCapture"),
    *("cudaGraphInstantiateWithParams", "cudaGraphLaunch"),
)
"""Of libcudart, each with a twin for programs whose default stream is the thread's."""
ON_GRAPHS = (
    *("cudaGraphInstantiate", "cudaGraphInstantiateWithFlags", "cudaGraphClone", "cudaGraphExecUpdate"),
    *("cudaGraphDestroy", "cudaGraphExecDestroy"),
)
OWN = ("ncclProfiler_v7", "symm_*", *ON_GRAPHS, *ON_STREAMS, *(f"{name}_ptsz" for name in ON_STREAMS))
HISTORY = HERE / "history.py"
"""What the observer runs in the Python of a program."""
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-ftls-model=initial-exec")
FIND = f"""
import ctypes
ctypes.CDLL({NCCL!r})
print(*(line.split(maxsplit=5)[5] for line in open("/proc/self/maps") if "/libnccl.so" in line), sep="", end="")
"""


def environment(out: Path | None, real: Path | None = None) -> dict[str, str]:
    """What the environment of a process needs so that its calls of NCCL are observed.

    `out` is the folder for its recording; None: nothing is written, and `control` alone sees the calls. `real` is the
    NCCL that the process is to get. Raises `MachineError` as `library` does.
    """
    path = str(library(real))
    if set(path) & set(" :"):
        raise MachineError(f"{PRELOAD} cannot name {path!r}: set XDG_CACHE_HOME to a path without spaces and colons")
    others = [each for each in re.split("[ :]", os.environ.get(PRELOAD, "")) if each and each != path]
    found = {PRELOAD: " ".join([path, *others])}
    if out is not None:
        found[OUT] = str(out.absolute())
    return found if os.environ.get(PLUGIN) else found | {PLUGIN: path}


def library(real: Path | None = None) -> Path:
    """Path of the observer in front of the NCCL at `real`, or of the one that `real_nccl` finds.

    Raises `MachineError` where there is no NCCL, no C compiler, or no place for what it makes.
    """
    return _library((real or real_nccl()).resolve())


@cache
def _library(real: Path) -> Path:
    path, names = compiler(), _offered(real)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symm-harness"
    made = folder / f"observer-{_fingerprint(real, path, names)}.so"
    try:
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="observer-", dir=folder) as scratch:
                os.replace(_built(path, real, names, Path(scratch)), made)
    except OSError as error:
        raise MachineError(f"the observer cannot be kept in {folder}: {error.strerror or error}") from error
    return made


def _built(path: str, real: Path, names: list[str], scratch: Path) -> Path:
    """Compile the observer. It needs a library whose name is the path of the real one, where its other symbols lie."""
    stub, empty = scratch / "real.so", scratch / "empty.c"
    built, exports = scratch / "observer.so", scratch / "exports"
    exports.write_text(f"{{ global: {' '.join(f'{name};' for name in (*names, *OWN))} local: *; }};\n")
    empty.write_text("typedef int empty;\n")
    compile_source([path, "-shared", *_to_linker("-soname", real), "-o", str(stub), str(empty)], empty.name)
    code = ", ".join(map(str, HISTORY.read_bytes()))
    (scratch / "history.h").write_text(f"static const unsigned char code_of_history[] = {{{code}, 0}};\n")
    sources = sorted(str(each) for each in HERE.glob("*.c"))
    named = [*_to_linker("-soname", NCCL), *_to_linker("--version-script", exports)]
    linked = [*_to_linker("--no-as-needed"), str(stub), *named, "-ldl", "-lpthread"]
    flags = (*FLAGS, f"-I{scratch}", _define("SYMM_REAL", real))
    compile_source([path, *flags, "-o", str(built), *sources, *linked], "the observer")
    return built


def _to_linker(*words: object) -> list[str]:
    return [part for word in words for part in ("-Xlinker", str(word))]


def _define(name: str, path: Path) -> str:
    """A definition of `name` as a C string."""
    quoted = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'-D{name}="{quoted}"'


def _offered(real: Path) -> list[str]:
    """Functions that the observer stands in front of and that this NCCL has.

    A program asks for a function to learn whether NCCL has it, so the observer offers no other.
    """
    wrapped = re.findall(r"\bX\((\w+)[,)]", (HERE / "nccl.h").read_text())
    twins = [f"{name}Config" for name in wrapped]
    there = defined(real)
    found = sorted(f"nccl{name}" for name in {*wrapped, *twins} if f"pnccl{name}" in there)
    if not found:
        raise MachineError(f"{real} is no NCCL: it has no function that begins with pnccl")
    return found


def _fingerprint(real: Path, path: str, names: list[str]) -> str:
    sources = [each.read_bytes() for each in sorted([HISTORY, *HERE.glob("*.[ch]"), *HERE.parent.glob("*.h")])]
    words = [str(real), path, *FLAGS, *names, *OWN]
    return hashlib.sha256(b"\0".join([*sources, *(word.encode() for word in words)])).hexdigest()[:16]


def real_nccl() -> Path:
    """Path of the NCCL that a program of this interpreter gets. Raises `MachineError` where there is none.

    A library that `LD_PRELOAD` names comes first, as for the loader. Then comes that of the package `nvidia.nccl`,
    where PyTorch looks, and then what the loader finds.
    """
    found = _preloaded() or _packaged() or _loaded()
    if found is None:
        raise MachineError(f"no NCCL is installed: neither the package nvidia.nccl nor the loader has {NCCL}")
    return found


def _preloaded() -> Path | None:
    named = map(Path, re.split("[ :]", os.environ.get(PRELOAD, "")))
    return next((path for path in named if path.name.startswith("libnccl.so") and path.exists()), None)


def _packaged() -> Path | None:
    try:
        spec = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        return None
    folders = map(Path, spec.submodule_search_locations or ()) if spec else ()
    return next((path for folder in folders if (path := folder / "lib" / NCCL).exists()), None)


def _loaded() -> Path | None:
    """The loader's own choice, asked in a process of its own: this one stays without NCCL."""
    plain = {name: value for name, value in inherited().items() if name != PRELOAD}
    asked = subprocess.run([sys.executable, "-c", FIND], capture_output=True, text=True, env=plain, check=False)
    lines = asked.stdout.splitlines()
    return Path(lines[0]) if lines else None
