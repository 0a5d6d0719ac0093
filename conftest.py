"""Test configuration of this repository: GPU tests are skipped, with the reason, where they cannot run."""

import pytest

from harness.errors import MachineError
from harness.platforms import choose

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        choose("nccl", 1)
    except MachineError as error:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=str(error)))
