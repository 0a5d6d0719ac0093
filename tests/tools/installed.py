"""The package as a user gets it: built, and installed into an environment that has nothing else of its own.

The environment sees what the harness depends on, torch and the rest, in the environment that runs the tests. Path files
found there are not read, so an editable install of this checkout stays out of sight.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SHIPPED = ("harness", "kernels", "topologies", "pyproject.toml", "README.md", "LICENSE")
STAND_IN = '"""A stand-in for another package of this name."""\n\nlayers = 1\n'
"""Hugging Face ships a package that is imported as `kernels`. A file of our own takes its place: the test needs no
network, and what matters is the folder's name alone."""


class Built(NamedTuple):
    """What was built from a copy of the sources."""

    wheel: Path
    sdist: Path

    def in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as file:
            return {name for name in file.namelist() if ".dist-info/" not in name}

    def in_sdist(self) -> set[str]:
        """The package's files, without the folder that an archive of sources is packed in."""
        with tarfile.open(self.sdist) as file:
            names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
        return {name for name in names if name.startswith("harness/")}


class Environment(NamedTuple):
    """An environment, and a folder that is not the checkout."""

    home: Path
    elsewhere: Path

    @property
    def python(self) -> str:
        return str(self.home / "bin" / "python")

    def packages(self) -> Path:
        return next(self.home.glob("lib/python3*/site-packages"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment in the other folder."""
        foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        own = {name: value for name, value in os.environ.items() if name not in foreign}
        path = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=self.elsewhere,
            env={**own, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def build(folder: Path) -> Built:
    """Build from a copy: a build leaves files beside its sources, and takes in what an older build left there."""
    copy, out = folder / "sources", folder / "built"
    copy.mkdir()
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    code = f"from setuptools import build_meta as b; b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})"
    done(subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False))
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


def install(wheel: Path, folder: Path) -> Environment:
    """Install a wheel beside a package named `kernels`."""
    home, elsewhere = folder / "environment", folder / "elsewhere"
    elsewhere.mkdir()
    venv.create(home, with_pip=False)
    environment = Environment(home, elsewhere)
    packages = environment.packages()
    (packages / "kernels").mkdir()
    (packages / "kernels" / "__init__.py").write_text(STAND_IN)
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    pip = [sys.executable, "-m", "pip", "--python", environment.python, "install"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    done(subprocess.run([*pip, *options, str(wheel)], capture_output=True, text=True, check=False))
    return environment


def done(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout + ended.stderr
