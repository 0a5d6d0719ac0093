"""Files that NCCL leaves in shared memory: those that ranks had mapped are removed, and no others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from harness.errors import MachineError
from harness.world import litter
from harness.world import world as world_module
from harness.world.platform import choose
from harness.world.world import World

MAPS = """
import mmap, os, sys
maps = []
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDWR)
    maps.append(mmap.mmap(file, 4096))
    os.close(file)
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def files() -> Iterator[tuple[Path, Path, Path]]:
    """Three of the names that NCCL gives."""
    named = tuple(Path(f"{litter.MADE_BY_NCCL}{uuid4().hex[:6]}") for _ in range(3))
    for path in named:
        path.write_bytes(bytes(4096))
    yield named
    for path in named:
        path.unlink(missing_ok=True)


def test_files_that_a_process_has_mapped_are_found_while_they_are_linked(files: tuple[Path, Path, Path]) -> None:
    kept, unlinked, foreign = files
    command = [sys.executable, "-c", MAPS, str(kept), str(unlinked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mapped\n"
        unlinked.unlink()
        found = litter.mapped([holder.pid])
        assert holder.stdin is not None
        holder.stdin.close()
    assert found == {kept}
    assert litter.mapped([holder.pid]) == set()
    litter.remove(found | {unlinked})
    assert [path.exists() for path in files] == [False, False, True]
    assert foreign.exists()


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_ranks_on_gpus_had_mapped_goes_with_them(
    end: str, files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        world_module, "choose", lambda *_: msgspec.structs.replace(choose("sim", 2), gpus=2, is_node_bound=False)
    )
    with World(2) as world:
        world.call("tests.tools.called:maps", files[0])
        if end == "killed":
            with pytest.raises(MachineError):
                world.call("tests.tools.called:raises")  # after which the ranks are killed
            assert not files[0].exists()
    assert [path.exists() for path in files] == [False, True, True]
