"""Pool policies that leave the process of their rank in another state, named `tests.tools.stateful:NAME` in a `System`.

Each is sound, ends its draw well, and makes one change of `CHANGES` when it is closed.
"""

from __future__ import annotations

import builtins
import gc
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch

from harness.system.context import ProcessGroup, RankContext
from tests.tools.planted import Sound

LONG = 600
"""Seconds that a process or a timer outlives every test by."""
kept: list[Any] = []
"""What has to stay alive to stay in force."""


class Changing(Sound):
    """A sound pool that makes a change when it is closed."""

    def __init__(self, change: Callable[[], object], context: RankContext) -> None:
        super().__init__(context)
        self.change = change

    def close(self) -> None:
        super().close()
        self.change()


class Blinds(Sound):
    """Has every comparison of torch say that all is equal, from before the first step."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        replace(torch, "equal", lambda one, other: True)


class AllocatesAtRandom(Sound):
    """A buffer lies where a random number puts it, the same on every rank of a group or not."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.scratch: list[torch.Tensor] = []

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with self.pool(group).use():
            self.scratch.append(torch.empty(random.randrange(1 << 18), dtype=torch.uint8))
        with super().use(group):
            yield

    def close(self) -> None:
        self.scratch.clear()
        super().close()


def __getattr__(name: str) -> Callable[[RankContext], Changing]:
    """The pool that makes the change of this name."""
    changes = CHANGES | HARMLESS
    if name not in changes:
        raise AttributeError(name)
    return partial(Changing, changes[name])


def pool(name: str) -> str:
    """The pool that makes the change of this name, as a scenario names it."""
    return f"{__name__}:{name}"


def replace(owner: object, name: str, by: Callable[..., object] | None = None) -> None:
    """Put another function in the place of one, or one that calls it."""
    original = getattr(owner, name)

    def same(*given: object, **named: object) -> object:
        return original(*given, **named)

    setattr(owner, name, by or same)


def set_soft_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))


def enter(context: Any) -> None:
    context.__enter__()
    kept.append(context)


def start_thread() -> None:
    threading.Thread(target=time.sleep, args=(LONG,), name="left by a pool", daemon=True).start()


def start_grandchild() -> None:
    """A process whose parent has ended, in a session of its own, as a daemon has it."""
    subprocess.run(["sh", "-c", f"setsid sleep {LONG} &"], check=True)


def silence_stdout() -> None:
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)


def replace_registration() -> None:
    from harness.substrate.sim.communicator import SimCommunicator

    replace(SimCommunicator, "register")


def fork() -> None:
    if os.fork() == 0:
        time.sleep(LONG)
        os._exit(0)


def register_kernel() -> None:
    library = torch.library.Library("aten", "IMPL")
    library.impl("clone", lambda tensor, memory_format=None: torch.zeros_like(tensor), "CPU")
    kept.append(library)


CHANGES: dict[str, Callable[[], object]] = {
    "working_directory": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(NCCL_ALGO="Ring"),
    "environment_of_c": lambda: os.putenv("NCCL_ALGO", "Ring"),
    "umask": lambda: os.umask(0o077),
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "default_device": lambda: torch.set_default_device("meta"),
    "torch_equal": lambda: replace(torch, "equal", lambda one, other: True),
    "torch_empty": lambda: replace(torch, "empty"),
    "tensor_method": lambda: replace(torch.Tensor, "copy_"),
    "builtin": lambda: replace(builtins, "sorted"),
    "function_of_python": lambda: replace(time, "sleep"),
    "function_of_the_harness": replace_registration,
    "garbage_collector": gc.enable,
    "garbage_thresholds": lambda: gc.set_threshold(1),
    "resource_limit": set_soft_limit,
    "trace_function": lambda: sys.settrace(lambda frame, event, given: None),
    "profile_function": lambda: sys.setprofile(lambda frame, event, given: None),
    "thread": start_thread,
    "descriptor": lambda: kept.append(os.open(os.devnull, os.O_RDONLY)),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, LONG),
    "timer_that_kills": lambda: signal.setitimer(signal.ITIMER_REAL, 0.1),
    "alarm": lambda: signal.alarm(LONG),
    "signal_handler": lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    "blocked_signal": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "module_path": lambda: sys.path.insert(0, "/nowhere"),
    "module": lambda: sys.modules.update(json=ModuleType("json")),
    "thread_count": lambda: torch.set_num_threads(2),
    "grad_mode": lambda: torch.set_grad_enabled(False),
    "inference_mode": lambda: enter(torch.inference_mode()),
    "autocast": lambda: enter(torch.autocast("cpu")),
    "deterministic_algorithms": lambda: torch._C._set_deterministic_algorithms(True),
    "kernel_of_an_operator": register_kernel,
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "denormals": lambda: torch.set_flush_denormal(True),
    "warnings_that_raise": lambda: warnings.simplefilter("error"),
    "recursion_limit": lambda: sys.setrecursionlimit(5000),
    "hook": lambda: replace(sys, "excepthook"),
    "priority": lambda: os.nice(1),
    "processors": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "standard_output": silence_stdout,
    "child": lambda: kept.append(subprocess.Popen(["sleep", str(LONG)])),
    "forked_child": fork,
    "grandchild": start_grandchild,
}
"""How each changes the process, by the name of the pool."""

HARMLESS: dict[str, Callable[[], object]] = {
    "import_on_first_use": lambda: __import__("wave"),
    "random_numbers": lambda: (random.random(), torch.rand(1)),
    "child_that_has_ended": lambda: kept.append(subprocess.run(["true"], check=True)),
    "descriptor_that_is_closed": lambda: os.close(os.open(os.devnull, os.O_RDONLY)),
    "thread_that_has_ended": lambda: threading.Thread(target=int).run(),
}
"""What a pool may do: nothing of it is left that a draw could inherit."""
