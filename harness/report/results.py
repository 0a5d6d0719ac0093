"""Results as a CI system counts them: one a finding, a run, a cell or a fault, as JUnit XML and as annotations.

Invariant: a report has at least one result, so that a job which tested nothing is not taken for one without a report.
No text in it is a control character, which XML cannot hold, or a command to the CI system.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import msgspec
from rich.console import Console

from harness.campaign import seeds
from harness.campaign.keeper import Found
from harness.campaign.replay import Run
from harness.campaign.seeds import write_whole
from harness.campaign.tally import Tally
from harness.oracle.findings import Record
from harness.report import verdicts
from harness.report.listing import listing
from harness.scenario.scenario import Scenario
from harness.studies.faults.proof import Outcome as Fault
from harness.studies.matrix import Cell
from harness.text import counted, visible

Outcome = Literal["passed", "failed", "skipped", "error"]
ELEMENTS = {"failed": "failure", "skipped": "skipped", "error": "error"}
"""The elements of JUnit XML, by outcome."""
LONGEST = 900
"""Characters of the message of an annotation."""


class Result(msgspec.Struct, frozen=True):
    """One thing that passed or did not. `kind` says which of several of a name it is, as a class says of tests."""

    kind: str
    name: str
    outcome: Outcome = "passed"
    message: str = ""
    """In a sentence, why it did not pass."""
    text: str = ""
    """All there is to say of it: the program, and how to run it again."""
    file: str = ""
    """Its seed file, if it has one."""
    seconds: float = 0.0


def of_found(kind: str, found: Iterable[Found]) -> Iterator[Result]:
    """Findings of a campaign."""
    for each in found:
        record = each.finding
        again = seeds.command(each.seed_file, each.scenario.system) if each.seed_file else "it could not be kept"
        lines = (record.explanation, "", *listing(each.scenario, record.step), "", verdicts.story(each), again)
        name = f"{record.rule} ({record.cause})" if record.cause else record.rule
        yield Result(kind, name, "failed", record.explanation, "\n".join(lines), each.seed_file)


def of_campaign(kind: str, tally: Tally, has_met: bool = False) -> list[Result]:
    """A campaign: a result for each finding; without any, one for all of its draws. Where it `has_met` known ones,
    something was tested."""
    found = [*of_found(kind, tally.found.values())]
    if found:
        return found
    if tally.draws == tally.vacuous and not has_met:
        why = ", ".join(f"{draws} {reason}" for reason, draws in tally.vacuous_by.items()) or "no draw"
        return [Result(kind, "draws", "skipped", f"nothing was tested: {why}", seconds=tally.seconds)]
    return [Result(kind, "draws", seconds=tally.seconds)]


def of_run(name: str, number: int, run: Run, scenario: Scenario) -> Result:
    """A run of a seed. Runs count from 1."""
    kind = f"symm.replay.{name}"
    if not run.findings:
        return Result(kind, f"run {number}")
    first = run.findings[0]
    lines = (*map(_sentence, run.findings), "", *listing(scenario, first.step))
    return Result(kind, f"run {number}", "failed", _sentence(first), "\n".join(lines), name)


def _sentence(record: Record) -> str:
    """A finding in a line."""
    return f"{record.rule}: {record.explanation}"


def of_cell(cell: Cell) -> Result:
    """A cell of the verdict matrix."""
    name = f"{cell.sites} {cell.tokens} {cell.pool}"
    outcome: Outcome = "failed" if cell.found else "passed" if cell.tested else "skipped"
    message = "; ".join(_sentence(found.finding) for found in cell.found) or verdicts.of_cell(cell)
    file = cell.found[0].seed_file if cell.found else ""
    return Result(f"symm.matrix.{cell.topology}", name, outcome, message, verdicts.of_cell(cell), file)


def of_fault(outcome: Fault) -> Result:
    """A planted fault, which passes if it is found."""
    name, verdict = f"{outcome.fault.id} {outcome.fault.name}", verdicts.of_fault(outcome)
    seconds = sum(hunt.seconds for hunt in outcome.hunts)
    return Result("symm.faults", name, "passed" if outcome.is_found else "failed", verdict, verdict, seconds=seconds)


def junit(results: Sequence[Result], facts: Mapping[str, Any], seconds: float) -> bytes:
    """JUnit XML as Jenkins and GitLab read it. `facts` become properties of its one suite."""
    counts = {outcome: str(sum(each.outcome == outcome for each in results)) for outcome in ELEMENTS}
    totals = {
        "tests": str(len(results)),
        "failures": counts["failed"],
        "errors": counts["error"],
        "skipped": counts["skipped"],
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "symm", **totals})
    about = {"timestamp": str(facts.get("started", "")).removesuffix("Z"), "hostname": str(facts.get("host", ""))}
    suite = ElementTree.SubElement(root, "testsuite", {"name": "symm", **totals, **about})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _text(value)})
    for each in results:
        _case(suite, each)
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root) + b"\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    place = {"file": visible(result.file)} if result.file else {}
    named = {"classname": visible(result.kind), "name": visible(result.name), "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", {**named, **place})
    if result.outcome in ELEMENTS:
        kind = {} if result.outcome == "skipped" else {"type": visible(result.name)}
        within = ElementTree.SubElement(
            case, ELEMENTS[result.outcome], {"message": visible(result.message).replace("\n", " "), **kind}
        )
        within.text = visible(result.text)


def _text(value: Any) -> str:
    return visible(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def annotate(console: Console, results: Sequence[Result]) -> None:
    """On GitHub's runners, an annotation for each result that did not pass, and a summary of the job; elsewhere
    nothing."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for each in results:
        if each.outcome in ("failed", "error"):
            place = f"file={_property(each.file)}," if each.file else ""
            message = each.message if len(each.message) <= LONGEST else f"{each.message[:LONGEST]} …"
            line = f"::error {place}title={_property(each.name)}::{_data(message)}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(target, "a", encoding="utf-8") as file:
            file.write("\n".join(_summary(results)) + "\n")


def _data(text: str) -> str:
    """Text behind a command of a workflow, which has one line."""
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _summary(results: Sequence[Result]) -> Iterator[str]:
    """Markdown: the verdict first, then what did not pass."""
    wrong = [each for each in results if each.outcome in ("failed", "error")]
    skipped = [each for each in results if each.outcome == "skipped"]
    yield f"### symm: {counted(len(wrong), 'finding') if wrong else 'nothing tested' if skipped else 'no finding'}"
    yield ""
    for each in wrong:
        fence = "`" * max(3, 1 + _longest_run(each.text))
        yield f"<details><summary>{_html(each.kind)}: {_html(each.name)}</summary>"
        yield from ("", fence, visible(each.text), fence, "", "</details>", "")
    yield from (f"- {_html(each.kind)}: {_html(each.message)}" for each in skipped)


def _longest_run(text: str) -> int:
    """Of backticks, which would end a block of code."""
    return max((len(run) for run in "".join(char if char == "`" else " " for char in text).split()), default=0)


def _html(text: str) -> str:
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def write(
    results: Sequence[Result], facts: Mapping[str, Any], seconds: float, target: str | None, console: Console
) -> None:
    """Write JUnit XML to a file, or none for None, and annotations where a hosted runner reads them."""
    if results:
        annotate(console, results)
    if target is not None:
        write_whole(Path(target), junit(results, facts, seconds))
