"""A process in which Triton interprets kernels, and the parent's side of it.

Triton reads TRITON_INTERPRET when it is imported, and half of its library stays compiled if it was
imported without. Whether another test has imported it here cannot be known, so kernels run elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Interpreter:
    """Answers calls to the functions of `tests.tools.interpreted`, one at a time; arrays go there and back.

    The process starts with the first call, and again with the next one after it was lost. The test's own timeout
    is the only one: on a busy machine, importing torch and Triton alone has taken 37 s, at 2.6 s of CPU.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, function: str, *arguments: Any) -> Any:
        """The function's result. Raises what it raised, and `RuntimeError` where the process died."""
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, arguments))
            result = self._connection.recv()
        except BaseException as error:
            self.close()  # also where the test's timeout came up: a late answer would be taken for the next call's
            if isinstance(error, OSError | EOFError):
                raise RuntimeError("the interpreter died") from error
            raise
        if isinstance(result, BaseException):
            raise result
        return result

    def _start(self) -> None:
        self._connection, inside = Pipe()
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.tools.interpreted", str(inside.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[inside.fileno()], env=environment, cwd=ROOT)
        inside.close()

    def close(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = None


def serve(connection: Connection, functions: dict[str, Any]) -> None:
    """Answer calls until the parent closes the connection."""
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(functions[function](*arguments))
        except Exception as error:
            connection.send(RuntimeError(f"{type(error).__name__}: {error}"))
