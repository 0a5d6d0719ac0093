"""The machine code that NVRTC makes of the built-in kernels in CUDA C++ for H100: words of 16 bytes, and signals at
system scope."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from harness.kernels.cuda.collectives import BITS, HERE, NUMBERS, THREADS
from harness.kernels.cuda.queued import QUEUERS, SLOT, STAGES
from harness.system.cuda import CudaSource
from tests.tools.nvrtc import needs_nvrtc

nvidia = pytest.importorskip("triton.backends.nvidia", reason="this Triton has no disassembler for NVIDIA's code")
pytestmark = needs_nvrtc
NVDISASM = Path(nvidia.__file__).parent / "bin" / "nvdisasm"
OPERATION = re.compile(r"\b(?:LDG?|STG?|MEMBAR|CCTL|UBLKCP)(?:\.\w+)+")
WAIT = "ACQBULK"
"""What `griddepcontrol.wait` becomes on sm_90."""
SMALL = [f"all_gather<{each}>" for each in BITS.values()], [f"reduce_all<{each}>" for each in NUMBERS.values()]
LARGE = (
    [f"all_gather<{each}>" for each in BITS.values()],
    [f"{kind}<{each}>" for kind in ("reduce_scatter", "all_reduce", "all_reduce_staged") for each in NUMBERS.values()],
)
QUEUED = [f"{kind}<{each}>" for kind in ("reduce_scatter", "all_reduce") for each in NUMBERS.values()]
SHARED = 227 << 10
"""Bytes of a multiprocessor's shared memory that blocks may have (H100)."""


@cache
def code(file: str, name: str) -> bytes:
    return CudaSource(HERE / file).compiled(name, "sm_90")


def listing(tmp_path: Path, machine_code: bytes) -> str:
    (tmp_path / "kernel").write_bytes(machine_code)
    return subprocess.run([NVDISASM, "-c", tmp_path / "kernel"], capture_output=True, text=True, check=True).stdout


def operations(tmp_path: Path, machine_code: bytes) -> Counter[str]:
    """How often each operation on memory stands in a kernel."""
    return Counter(OPERATION.findall(listing(tmp_path, machine_code)))


def registers(machine_code: bytes, tmp_path: Path) -> list[int]:
    (tmp_path / "kernel").write_bytes(machine_code)
    asked = [NVDISASM.with_name("cuobjdump"), "--dump-resource-usage", tmp_path / "kernel"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True)
    return [int(each) for each in re.findall(r"REG:(\d+)", listed.stdout)]


@pytest.mark.parametrize("name", [*SMALL[0], *SMALL[1]])
def test_a_packet_is_stored_and_loaded_at_once(name: str, tmp_path: Path) -> None:
    found = operations(tmp_path, code("ll.cu", name))
    assert {"STG.E.128.STRONG.SYS", "LDG.E.128.STRONG.SYS"} <= found.keys()
    assert not {"STG.E.64.STRONG.SYS", "LDG.E.64.STRONG.SYS"} & found.keys()
    assert not any(each.startswith("MEMBAR") and each.endswith("SYS") for each in found)


@pytest.mark.parametrize("name", [*SMALL[0], *SMALL[1]])
def test_a_kernel_that_may_start_early_waits_before_it_touches_memory(name: str, tmp_path: Path) -> None:
    before, wait, after = listing(tmp_path, code("ll.cu", name)).partition(WAIT)
    assert wait
    assert not OPERATION.search(before)
    assert OPERATION.search(after)


@pytest.mark.parametrize("name", [*LARGE[0], *LARGE[1]])
class TestOfALargeCall:
    def test_data_goes_by_words(self, name: str, tmp_path: Path) -> None:
        found = operations(tmp_path, code("fused.cu", name))
        loads, stores = (
            sum(many for each, many in found.items() if re.match(f"{kind}G?\\.E\\.128", each)) for kind in ("LD", "ST")
        )
        assert loads >= 4
        assert stores >= 4

    def test_blocks_signal_by_release_and_look_by_acquire(self, name: str, tmp_path: Path) -> None:
        found = operations(tmp_path, code("fused.cu", name))
        assert found["MEMBAR.ALL.SYS"] == found["STG.E.STRONG.SYS"] > 1
        assert found["LDG.E.STRONG.SYS"] > 1
        assert found["CCTL.IVALL"] > 1  # behind each wait; looks of one wait may share it

    def test_two_blocks_fit_on_a_multiprocessor(self, name: str, tmp_path: Path) -> None:
        assert max(registers(code("fused.cu", name), tmp_path)) * THREADS * 2 <= 65536


@pytest.mark.parametrize("name", QUEUED)
class TestOfAQueuedCall:
    def test_tiles_go_by_bulk_copies_and_sums_by_words(self, name: str, tmp_path: Path) -> None:
        machine_code = code("queues.cu", name)
        found = operations(tmp_path, machine_code)
        assert {"UBLKCP.S.G", "UBLKCP.G.S"} <= {each[:10] for each in found}
        assert sum(many for each, many in found.items() if re.match(r"LDG?\.E\.128", each)) >= 4

    def test_counts_are_released_and_acquired(self, name: str, tmp_path: Path) -> None:
        found = operations(tmp_path, code("queues.cu", name))
        assert found["MEMBAR.ALL.SYS"] == found["STG.E.STRONG.SYS"] > 1
        assert found["LDG.E.STRONG.SYS"] > 1

    def test_two_blocks_fit_on_a_multiprocessor(self, name: str, tmp_path: Path) -> None:
        assert max(registers(code("queues.cu", name), tmp_path)) * QUEUERS * 2 <= 65536
        assert 2 * (STAGES * SLOT + 1024 + 1024) <= SHARED  # with the block's own, and what the system takes of each


def test_a_signal_without_a_release_would_be_noticed(tmp_path: Path) -> None:
    for file in HERE.glob("*.cu*"):
        (tmp_path / file.name).write_text(file.read_text().replace("st.release.sys", "st.relaxed.sys"))
    assert "MEMBAR.ALL.SYS" not in operations(tmp_path, CudaSource(tmp_path / "fused.cu").compiled("barrier", "sm_90"))
    assert "MEMBAR.ALL.SYS" in operations(tmp_path, code("fused.cu", "barrier"))


def test_the_version_that_gives_up_compiles() -> None:
    for file, name in (("ll.cu", "all_gather<u8>"), ("fused.cu", "barrier"), ("queues.cu", "reduce_scatter<float>")):
        assert CudaSource(HERE / file, "SPIN_SECONDS=10").compiled(name, "sm_90") != code(file, name)
