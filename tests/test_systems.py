"""The named system under test: what is built in is known without loading it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import collectives, pools, systems
from harness.errors import PluginError


def test_built_in_names_are_those_that_can_be_loaded() -> None:
    assert {*pools.BUILT_IN} == {*systems.POOLS}
    assert {*collectives.BUILT_IN} == {*systems.KERNELS}


def test_checking_what_is_built_in_does_not_import_torch() -> None:
    check = "import sys; from harness.systems import check_system; check_system('deferred', 'triton')"
    told = subprocess.check_output([sys.executable, "-c", f"{check}; print('torch' in sys.modules)"], text=True)
    assert told == "False\n"


@pytest.mark.parametrize("names", [("puddle", None), (None, "kettle"), ("deferred", "kettle")])
def test_an_unknown_name_is_refused(names: tuple[str | None, str | None]) -> None:
    with pytest.raises(PluginError, match=r"puddle|kettle"):
        systems.check_system(*names)
