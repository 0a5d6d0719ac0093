"""Communicators whose names PyTorch alone has: they are read from the frames in which it makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.observer.records import CommCreated
from tests.tools.fake_libnccl import recorded

INSIDE = """
def new_group(make, group_desc=None):
    return make()

def all_gather(make, group):
    return _gathered(make)

def _gathered(make):
    return make()
"""
HEAD = """
import sys
sys.path.insert(0, {folder!r})
import inside
class Group:
    group_desc = {name!r}
nccl = Nccl()
def make():
    return nccl.world()
"""


def names(program: str, folder: Path, place: str = "torch/distributed", name: str = "TENSOR_GROUP") -> list[str]:
    """The names of the communicators of a program that calls functions of a file in `place`."""
    (folder / place).mkdir(parents=True)
    (folder / place / "inside.py").write_text(INSIDE)
    (process,) = recorded(HEAD.format(folder=str(folder / place), name=name) + program, folder)
    return [fact.name for fact in process.facts if isinstance(fact, CommCreated)]


def test_a_group_is_named_where_it_is_made(tmp_path: Path) -> None:
    assert names("inside.new_group(make, 'TENSOR_GROUP')", tmp_path) == ["TENSOR_GROUP"]


def test_a_group_is_named_by_its_first_collective(tmp_path: Path) -> None:
    assert names("inside.all_gather(make, Group())", tmp_path) == ["TENSOR_GROUP"]


@pytest.mark.parametrize("given", ["", "undefined", "default_pg", 7, None])
def test_what_pytorch_calls_a_group_that_has_no_name_is_none(given: object, tmp_path: Path) -> None:
    made = f"inside.new_group(make, {given!r}); inside.all_gather(make, Group()); inside.all_gather(make, None)"
    assert names(made, tmp_path, name=given) == ["", "", ""]  # type: ignore[arg-type]


def test_a_variable_of_other_code_names_nothing(tmp_path: Path) -> None:
    assert names("inside.new_group(make, 'TENSOR_GROUP')", tmp_path, "engine/distributed") == [""]


def test_a_name_that_nccl_was_given_stays(tmp_path: Path) -> None:
    program = """
config = Config(ctypes.sizeof(Config), 0xcafebeef, 23203, name=b"tp")
def made():
    nccl.made("CommInitRankConfig", (), (1, nccl.unique_id(), 0, ctypes.byref(config)))
inside.new_group(made, "TENSOR_GROUP")
"""
    assert names(program, tmp_path) == ["tp"]


def test_an_exception_of_a_property_is_none_of_the_programs(tmp_path: Path) -> None:
    program = """
class Broken:
    @property
    def group_desc(self):
        raise RuntimeError("none of this")
inside.all_gather(make, Broken())
"""
    assert names(program, tmp_path) == [""]


def test_what_a_property_calls_of_nccl_is_the_programs(tmp_path: Path) -> None:
    program = """
class Allocating:
    @property
    def group_desc(self):
        nccl.alloc()
        return "TENSOR_GROUP"
inside.all_gather(make, Allocating())
"""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "inside.py").write_text(INSIDE)
    (process,) = recorded(HEAD.format(folder=str(tmp_path / "torch"), name="") + program, tmp_path)
    assert [type(process.facts[index]).__name__ for index in process.order] == ["Allocated", "CommCreated"]
