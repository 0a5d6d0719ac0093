"""The pytest plugin: `pytest -p harness.plugin`, or by itself where the package is installed.

Only what pytest looks for by name is here; what it does is in `harness.plugin.hooks`.
"""

from harness.plugin.hooks import (
    pytest_addoption,
    pytest_configure,
    pytest_pyfunc_call,
    pytest_report_header,
    pytest_report_teststatus,
    pytest_runtest_makereport,
    pytest_testnodedown,
    pytest_testnodeready,
    pytest_unconfigure,
    pytest_xdist_auto_num_workers,
    world,
)

__all__ = [
    "pytest_addoption",
    "pytest_configure",
    "pytest_pyfunc_call",
    "pytest_report_header",
    "pytest_report_teststatus",
    "pytest_runtest_makereport",
    "pytest_testnodedown",
    "pytest_testnodeready",
    "pytest_unconfigure",
    "pytest_xdist_auto_num_workers",
    "world",
]
