"""Sound pools, each of which changes one piece of its process's state for good, named `tests.hostile.pieces:PIECE`."""

from __future__ import annotations

import atexit
import ctypes
import decimal
import faulthandler
import gc
import locale
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from harness.system.context import ProcessGroup
from harness.system.pools.per_group import PerGroup


def _locale() -> None:
    locale.setlocale(locale.LC_ALL, "C")


def _files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 64), hard))


def _descriptors() -> None:
    for _ in range(20):
        os.open(os.devnull, os.O_RDONLY)


def _signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


PIECES: dict[str, Callable[[], object]] = {
    "folder": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(SYMM_CHANGED="1", LANG="C"),
    "umask": lambda: os.umask(0o777),
    "path": lambda: sys.path.insert(0, "/nowhere"),
    "recursion": lambda: sys.setrecursionlimit(300),
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "grad": lambda: torch.set_grad_enabled(False),
    "torch_threads": lambda: torch.set_num_threads(2),
    "torch_seed": lambda: torch.manual_seed(7),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "fill": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", True),
    "print_options": lambda: torch.set_printoptions(precision=1),
    "flush_denormal": lambda: torch.set_flush_denormal(True),
    "random_seed": lambda: random.seed(7),
    "numpy_errors": lambda: np.seterr(all="raise"),
    "garbage": lambda: gc.enable() or gc.set_threshold(1, 1, 1),
    "warnings": lambda: warnings.simplefilter("error"),
    "logging": logging.disable,
    "decimal": lambda: setattr(decimal.getcontext(), "prec", 2),
    "locale": _locale,
    "files": _files,
    "descriptors": _descriptors,
    "signals": _signals,
    "thread": _thread,
    "switch_interval": lambda: sys.setswitchinterval(1.0),
    "excepthook": lambda: setattr(sys, "excepthook", lambda *_: None),
    "atexit": lambda: atexit.register(lambda: os._exit(9)),
    "faulthandler": faulthandler.disable,
    "alarm": lambda: signal.alarm(3600),
    "name": lambda: ctypes.CDLL(None).prctl(15, b"changed"),
    "empty": lambda: setattr(torch, "empty", torch.zeros),
}
"""By name, what changes it."""


class Stateful(PerGroup):
    piece: str

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            yield
        if self._context.rank == 1:
            PIECES[self.piece]()


def __getattr__(name: str) -> type:
    if name not in PIECES:
        raise AttributeError(name)
    return type(name, (Stateful,), {"piece": name})
