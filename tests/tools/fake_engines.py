"""Packages with the layout of released engines and code of our own, whose pools are as simple as can be.

A package itself cannot be imported. The library of a pool is compiled from C by `BUILDER`, in place of PyTorch.
"""

from __future__ import annotations

from pathlib import Path

LIBRARY = """
#include <stddef.h>
int ncclMemAlloc(void **, size_t);
int ncclMemFree(void *);
int ncclCommWindowRegister(void *, void *, size_t, void **, int);
static void *taken;
void *nccl_alloc_plug(size_t size, int device, void *stream) { return ncclMemAlloc(&taken, size) ? NULL : taken; }
void nccl_free_plug(void *address, size_t size, int device, void *stream) { ncclMemFree(address); }
int register_with(void *comm) { void *window; return ncclCommWindowRegister(comm, taken, 2 << 20, &window, 1); }
"""
BUILDER = """
import subprocess
from pathlib import Path
import torch
from torch.utils import cpp_extension
def load_inline(name, cpp_sources, extra_ldflags, build_directory, **given):
    code, made = Path(build_directory, name + ".c"), Path(build_directory, name + ".so")
    code.write_text(cpp_sources)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, code, *extra_ldflags], check=True)
cpp_extension.load_inline = load_inline
"""
SGLANG = f"""
import ctypes, os, tempfile
import torch
from sglang.srt.distributed.parallel_state import GroupCoordinator
from sglang.srt.environ import envs
from sglang.srt.runtime_context import get_exec
from sglang.srt.utils.common import torch_release
assert torch_release >= (2, 8)
library = None
def get_nccl_mem_pool():
    global library
    if library is None:
        import torch.utils.cpp_extension
        folder = os.path.join(tempfile.gettempdir(), "symm_allocator")
        os.makedirs(folder, exist_ok=True)
        torch.distributed.barrier()
        library = ctypes.CDLL(torch.utils.cpp_extension.load_inline(
            name="nccl_allocator", cpp_sources={LIBRARY!r}, with_cuda=True, extra_ldflags=["-lnccl"], verbose=True,
            is_python_module=False, build_directory=folder))
        library.register_with.argtypes = (ctypes.c_void_p,)
    return library
class Context:
    def __init__(self, coordinator):
        self.comm = coordinator.pynccl_comm.comm.value
    def __enter__(self):
        get_nccl_mem_pool().nccl_alloc_plug(2 << 20, 0, None)
    def __exit__(self, *_):
        assert get_nccl_mem_pool().register_with(self.comm) == 0
def use_symmetric_memory(coordinator):
    from contextlib import nullcontext
    is_off = not get_exec().comm.enable_symm_mem or coordinator.world_size == 1
    return nullcontext() if is_off else Context(coordinator)
"""
VLLM = {
    "utils/nccl.py": """
import vllm.envs as envs
from vllm.logger import init_logger
init_logger(__name__).debug_once("found %s", "one")
def find_nccl_library():
    return envs.VLLM_NCCL_SO_PATH or "libnccl.so.2"
""",
    "distributed/device_communicators/pynccl_wrapper.py": """
import ctypes
from vllm import envs
from vllm.platforms import current_platform
from vllm.utils.nccl import find_nccl_library
ncclComm_t = ctypes.c_void_p
class NCCLLibrary:
    def __init__(self):
        self.library = ctypes.CDLL(find_nccl_library())
    def ncclGetRawVersion(self):
        version = ctypes.c_int()
        self.library.ncclGetVersion(ctypes.byref(version))
        return version.value
    def ncclCommWindowRegister(self, comm, address, size, flags):
        window = ctypes.c_void_p()
        result = self.library.ncclCommWindowRegister(
            comm, ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.byref(window), flags)
        if result:
            raise RuntimeError(f"NCCL error {result}")
""",
    "distributed/device_communicators/pynccl.py": """
from vllm.distributed.device_communicators.pynccl_wrapper import NCCLLibrary, ncclComm_t
from vllm.distributed.utils import StatelessProcessGroup
from vllm.utils.torch_utils import current_stream
class PyNcclCommunicator:
    def __init__(self):
        raise ImportError("needs a process group")
    def register_comm_window_raw(self, address, size):
        return self.nccl.ncclCommWindowRegister(self.comm, address, size, 1)
""",
    "distributed/device_communicators/pynccl_allocator.py": f"""
import ctypes, tempfile
from torch.utils.cpp_extension import load_inline
from vllm import envs
from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
from vllm.platforms import current_platform
library, taken, registered = None, [], {{}}
def get_nccl_mem_pool():
    global library
    if library is None and current_platform.is_cuda():
        folder = tempfile.gettempdir()
        load_inline(name="nccl_allocator", cpp_sources={LIBRARY!r}, with_cuda=True, extra_ldflags=["-l:libnccl.so"],
            verbose=False, is_python_module=False, build_directory=folder, extra_include_paths=None)
        library = ctypes.CDLL(folder + "/nccl_allocator.so")
        library.nccl_alloc_plug.restype = ctypes.c_void_p
    return library
class nccl_symm_mem_context:
    def __init__(self, communicator):
        self.communicator = communicator
    def __enter__(self):
        assert self.communicator.nccl_version >= 22703
        taken.append(get_nccl_mem_pool().nccl_alloc_plug(2 << 20, 0, None))
    def __exit__(self, *_):
        known = registered.setdefault(bytes(self.communicator.unique_id.internal), set())
        for address in taken:
            if address not in known:
                self.communicator.register_comm_window_raw(address, 2 << 20)
                known.add(address)
""",
}
ENGINES = {
    "sglang": {"srt/distributed/device_communicators/pynccl_allocator.py": SGLANG},
    "vllm": VLLM,
}


def install(name: str, folder: Path) -> None:
    """Write a package into a folder that Python is to look in."""
    for path, text in {"__init__.py": "raise ImportError('needs the whole engine')\n", **ENGINES[name]}.items():
        place = folder / name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
