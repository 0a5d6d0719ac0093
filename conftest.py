"""Test configuration of this repository: GPU tests are skipped, with the reason, where they cannot run.

Ctrl-C means the same to the tests however they are started.
"""

import signal

import pytest

from harness.errors import MachineError
from harness.world.platform import choose

pytest_plugins = ["pytester"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        choose("nccl", 1)
    except MachineError as error:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=str(error)))
