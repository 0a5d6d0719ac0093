"""Names that a library offers are read from its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine.observer.elf import defined
from tests.tools.fake_libnccl import compiled, fake_nccl


def test_a_library_offers_what_it_defines_and_not_what_it_needs(tmp_path: Path) -> None:
    source = "int needed(void); static int hidden(void) { return needed(); } int offered(void) { return hidden(); }"
    names = defined(compiled(source, tmp_path, "-shared", "-fPIC"))
    assert "offered" in names
    assert not {"needed", "hidden"} & names


def test_both_names_of_a_function_are_there() -> None:
    assert {"ncclAllGather", "pncclAllGather"} <= defined(fake_nccl())


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01" + bytes(10)])
def test_a_file_that_is_no_library_is_one_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "libnccl.so.2"
    path.write_bytes(content)
    with pytest.raises(MachineError, match=re.escape(str(path))):
        defined(path)


def test_a_library_that_is_cut_off_is_one_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "libnccl.so.2"
    path.write_bytes(fake_nccl().read_bytes()[:2000])
    with pytest.raises(MachineError, match=re.escape(str(path))):
        defined(path)


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"gone\.so cannot be read as a shared library: .*No such file"):
        defined(tmp_path / "gone.so")
