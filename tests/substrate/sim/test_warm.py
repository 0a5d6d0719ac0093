"""Importing the module runs a kernel in Triton's interpreter, which ranks forked later then find warm."""

from __future__ import annotations

import os
import subprocess
import sys

RUN = """
from harness.substrate.sim import warm
from triton.runtime.interpreter import InterpreterBuilder
print(warm._pad.tolist(), InterpreterBuilder.create_atomic_rmw.__module__)
"""


def test_a_kernel_has_run_and_later_ones_yield_once_the_module_is_imported() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "[1] harness.substrate.sim.spins\n"
