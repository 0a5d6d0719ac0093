"""The pytest plugin: a `world` fixture, options that say what it runs and tests, and GPUs for each worker.

Invariant: a run that uses none of it pays for none of it, but for the options. The world lives for the session (for
each worker under `pytest -n`) and leaves no process behind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from harness.campaign import seeds
from harness.campaign.limits import SHRINK_SECONDS
from harness.errors import UsageError, not_one_of
from harness.machine.evidence import NAMES
from harness.plugin import workers
from harness.scenario.system import Sites
from harness.system.check import check_system, fallbacks, observed, prepare
from harness.text import counted
from harness.world import environment
from harness.world.platform import Platform, Watched, choose

if TYPE_CHECKING:
    from harness.plugin.tested_world import TestedWorld


SUBSTRATES = ("auto", "sim", "nccl")


def _one_of(what: str, known: Sequence[str]) -> Callable[[str], str]:
    """A type of an option that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(str(not_one_of(what, text, known)))
        return text

    return parse


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("symm", "collectives over symmetric memory")
    group.addoption(
        "--symm-substrate",
        default="auto",
        type=_one_of("substrate", SUBSTRATES),
        metavar="|".join(SUBSTRATES),
        help="default: auto",
    )
    group.addoption("--symm-world", type=int, default=4, metavar="N", help="ranks of the world fixture (default: 4)")
    group.addoption("--symm-pool", metavar="NAME|module:attr", help="pool policy under test (default: the scenario's)")
    group.addoption(
        "--symm-collectives",
        metavar="NAME|module:attr",
        help="library, triton, or a kernel of yours (default: as drawn)",
    )
    group.addoption(
        "--symm-sites",
        type=_one_of("sites", get_args(Sites)),
        metavar="|".join(get_args(Sites)),
        help="whether buffer sites name their group (default: the scenario's)",
    )
    group.addoption(
        "--symm-evidence",
        action="append",
        default=[],
        metavar="|".join(NAMES),
        help="what shows the path and the owner of each call; repeatable (default: the sharpest there is of the path)",
    )
    group.addoption("--symm-seeds-dir", default="symm-seeds", metavar="DIR", help="where failing scenarios are kept")
    group.addoption(
        "--symm-shrink-seconds",
        type=float,
        default=SHRINK_SECONDS,
        metavar="SECONDS",
        help=f"about how long a failing property is made smaller (default: {SHRINK_SECONDS:g})",
    )
    group.addoption(
        "--symm-lease-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for GPUs that other runs have (default: 600)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Refuse a wrong option, and lease GPUs, before anything is collected."""
    try:
        check_system(config.getoption("--symm-pool"), config.getoption("--symm-collectives"))
        seeds.check_folder(Path(config.getoption("--symm-seeds-dir")))
        if config.getoption("--symm-world") < 1:
            raise UsageError(f"--symm-world={config.getoption('--symm-world')} is not positive")
        if not config.getoption("--symm-lease-timeout") >= 0:  # nor is nan
            raise UsageError(f"--symm-lease-timeout={config.getoption('--symm-lease-timeout')} is no time to wait")
        if not config.getoption("--symm-shrink-seconds") >= 0:
            raise UsageError(f"--symm-shrink-seconds={config.getoption('--symm-shrink-seconds')} is no time to shrink")
        if config.getoption("--symm-substrate") == "nccl" or config.getoption("--symm-evidence"):
            _platform(config)
        workers.settle(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_unconfigure(config: pytest.Config) -> None:
    workers.leave(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    platform = _platform(config)
    leased = config.stash.get(workers.HEADER, None)
    size = counted(config.getoption("--symm-world"), "rank")
    what = f"substrate {platform.name} ({platform.why}), world of {size}; {environment.shown(environment.describe())}"
    return [f"symm: {what}", *([f"symm: {leased}"] if leased else [])]


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport, config: pytest.Config
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """With `-v`, say beside the outcome how many scenarios a test ran, and why some tested nothing. A test that failed
    says it in its own text: pytest's summary would put it between the outcome and the name, which programs read."""
    if not isinstance(report, pytest.TestReport) or config.get_verbosity() < 1:
        return None
    has_draws = any(name == "symm_draws" for name, _ in report.user_properties)
    if report.when != "call" or not has_draws or hasattr(report, "wasxfail"):  # of expected failures, and of most tests
        return None
    from harness.plugin.facts import words  # noqa: PLC0415

    shown = words(report)
    if not shown or report.outcome != "passed":
        return None
    return report.outcome, ".", (f"PASSED {shown}", {"green": True})


def _platform(config: pytest.Config) -> Platform:
    """What the options ask for. Raises `UsageError` where there is none."""
    return choose(
        config.getoption("--symm-substrate"), config.getoption("--symm-world"), config.getoption("--symm-evidence")
    )


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    return workers.auto_workers(config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    if controlled := node.config.stash.get(workers.CONTROLLED, None):
        controlled.ready(node.gateway.id)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Ahead of xdist's own, which would print the traceback of a worker that got no lease."""
    if controlled := node.config.stash.get(workers.CONTROLLED, None):
        try:
            controlled.down(node.gateway.id, error)
        except UsageError as refused:
            raise pytest.UsageError(str(refused)) from refused


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> Iterator[TestedWorld]:
    """A world of `--symm-world` ranks, kept for the session."""
    from harness.plugin.tested_world import TestedWorld  # noqa: PLC0415  (for the runs that use it: it takes a while to import)
    from harness.world.world import World  # noqa: PLC0415

    option = request.config.getoption
    watched = Watched(observed(option("--symm-pool")), prepare, fallbacks(option("--symm-collectives")))
    with World(
        option("--symm-world"), option("--symm-substrate"), evidence=option("--symm-evidence"), watched=watched
    ) as running:
        folder = Path(option("--symm-seeds-dir"))
        system = option("--symm-pool"), option("--symm-collectives"), option("--symm-sites")
        yield TestedWorld(running, *system, folder)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if not _is_used():
        return (yield)
    from harness.plugin.facts import record, tested_world  # noqa: PLC0415
    from harness.plugin.properties import watched  # noqa: PLC0415

    used = tested_world(pyfuncitem)
    if used is not None:
        used.begin()
    try:
        with watched(pyfuncitem, pyfuncitem.config.getoption("--symm-shrink-seconds")):
            return (yield)
    finally:
        if used is not None:
            record(pyfuncitem, used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show a failing property in its own words, unless all of the traceback is asked for."""
    report = yield
    if not _is_used() or call.excinfo is None or item.config.getoption("fulltrace"):
        return report
    from harness.plugin.properties import FAILED, brief  # noqa: PLC0415

    if call.excinfo.value is item.stash.get(FAILED, None):
        report.longrepr = brief(call.excinfo.value)
    return report


def _is_used() -> bool:
    """Whether this process has a tested world."""
    return "harness.plugin.tested_world" in sys.modules
