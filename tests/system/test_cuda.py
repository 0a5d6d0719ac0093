"""CUDA C++ of plug-ins: what is compiled, what is passed, and what is said where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from harness import judge
from harness.errors import CompileError, UsageError
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.system import cuda
from harness.system.boundary import call_system
from harness.system.cuda import CudaSource
from harness.world.world import World
from tests.tools.nvrtc import needs_nvrtc

ALONE = "tests.tools.unsimulated:OnGpusAlone"
ADD = """#include "more.cuh"
template <typename T> __global__ void add(T* into) { *into += MORE; }
extern "C" __global__ void put(int* into) { *into = MORE; }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "more.cuh").write_text("#ifndef MORE\n#define MORE 1\n#endif\n")
    (tmp_path / "add.cu").write_text(ADD)
    return tmp_path / "add.cu"


@needs_nvrtc
class TestWithNvrtc:
    @pytest.mark.parametrize("name", ["add<float>", "add<unsigned char>", "put"])
    def test_a_kernel_is_a_function_or_an_instance_of_a_template(self, source: Path, name: str) -> None:
        assert CudaSource(source).compiled(name, "sm_90").startswith(b"\x7fELF")

    def test_a_kernel_is_compiled_once_for_its_text_architecture_and_options(self, source: Path) -> None:
        before = cuda._compiled.cache_info().misses
        for options in ((), (), ("MORE=2",)):
            for arch in ("sm_90", "sm_90", "sm_80"):
                CudaSource(source, *options).compiled("put", arch)
        assert cuda._compiled.cache_info().misses - before == 4
        source.write_text(ADD + "// another text\n")
        CudaSource(source).compiled("put", "sm_90")
        assert cuda._compiled.cache_info().misses - before == 5

    def test_an_error_has_the_log_with_file_and_line(self, source: Path) -> None:
        source.write_text(ADD.replace("= MORE", "= missing"))
        with pytest.raises(CompileError) as error:
            CudaSource(source).compiled("put", "sm_90")
        assert "add.cu does not compile for sm_90 with kernel 'put'" in str(error.value)
        assert f'{source}(3): error: identifier "missing" is undefined' in str(error.value)

    def test_a_kernel_that_is_not_there_is_named(self, source: Path) -> None:
        with pytest.raises(CompileError, match="gone<int>"):
            CudaSource(source).compiled("gone<int>", "sm_90")


def test_without_cuda_core_the_error_names_the_extra(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(CompileError, match=r"add.cu is CUDA .* install the extra `cuda`"):
        CudaSource(source).compiled("put", "sm_70")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_a_launch_says_so_and_names_the_way_out(source: Path) -> None:
    with pytest.raises(CompileError, match=r"kernel 'put' of add.cu needs a GPU.*`fallback`"):
        CudaSource(source).launch("put", 1, 1, torch.zeros(1))


@pytest.mark.parametrize("argument", [5, 1.0, None, "text", [1]])
def test_an_argument_without_a_width_is_refused(source: Path, argument: object) -> None:
    with pytest.raises(TypeError, match=r"argument 1 of 'put' is .*no tensor and no number of numpy or ctypes"):
        CudaSource(source).launch("put", 1, 1, torch.zeros(1), argument)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"CUDA source '.*gone.cu' cannot be read"):
        CudaSource(tmp_path / "gone.cu").compiled("put", "sm_90")


def test_it_ends_the_command_and_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(CompileError):
        call_system("collectives", lambda: CudaSource(tmp_path / "gone.cu").compiled("put", "sm_90"))


@pytest.mark.parametrize(("name", "runs"), [("examples.cuda_push:LeavesTheRest", True), (ALONE, False)])
def test_on_the_simulation_its_fallback_runs_or_one_sentence_says_that_it_cannot(
    simulation: World, name: str, runs: bool
) -> None:
    steps = Allocate("a", "tp", 64), AllGather("tp", View("a"), 9, via="kernel")
    scenario = Scenario(Topology("pair", "sglang", {"tp": 2}), steps, System(collectives=name))
    if runs:
        assert judge(simulation.run(scenario)) == []
    else:
        with pytest.raises(UsageError, match=r"kernel 'push' of push.cu needs a GPU"):
            simulation.run(scenario)


def test_nothing_of_cuda_is_imported_before_it_is_needed(source: Path) -> None:
    import subprocess

    asked = "import sys, harness.system.cuda, harness.kernels.cuda.collectives; print('cuda.core' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
