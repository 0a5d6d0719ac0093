"""The page in a browser: it fits a phone, and follows the dark. Skipped where there is no chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from harness.report.pages import page, runs
from tests.report.pages.conftest import SEEDS, Accounts

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine (apt-get install chromium)")
MEASURE = """<script>addEventListener('load', () => { const root = document.documentElement;
document.title = JSON.stringify({wide: root.scrollWidth, view: innerWidth,
dark: getComputedStyle(document.body).backgroundColor, errors: document.querySelectorAll('parsererror').length});
})</script></body>"""


def browse(folder: Path, text: str, *options: str) -> str:
    """The document after it was laid out; its title says how wide it became. Skips where the browser does not start."""
    (folder / "page.html").write_text(text.replace("</body>", MEASURE) if "<script" not in text else text)
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    try:
        ended = subprocess.run(
            [*command, *options, "--dump-dom", f"file://{folder / 'page.html'}"],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={**os.environ, "HOME": str(folder)},
        )
    except subprocess.TimeoutExpired:
        pytest.skip("chromium did not answer within 90 s")
    if ended.returncode or "<title>{" not in ended.stdout:
        pytest.skip(f"chromium does not run here: {ended.stderr[-200:]}")
    return ended.stdout


def measured(dom: str, name: str) -> str:
    found = re.search(rf'"{name}":"?([^",}}]+(?:,[^"}}]*\))?)', dom.partition("</title>")[0])
    assert found, dom[:500]
    return found[1]


def on_a_phone(folder: Path, text: str) -> tuple[int, int]:
    """How wide a page becomes in 390 pixels, and how wide the view is."""
    # headless chromium makes no window narrower than 500 pixels, so the page is held in a frame
    (folder / "inner.html").write_text(text)
    frame = (
        "<!DOCTYPE html><title>x</title><body><iframe src='inner.html' style='width:390px;height:800px'></iframe>"
        "<script>addEventListener('load', () => { const root = document.querySelector('iframe').contentDocument"
        ".documentElement; document.title = JSON.stringify({wide: root.scrollWidth, view: root.clientWidth}); })"
        "</script></body>"
    )
    dom = browse(folder, frame, "--allow-file-access-from-files")
    return int(measured(dom, "wide")), int(measured(dom, "view"))


@pytest.mark.parametrize("rule", SEEDS)
def test_the_body_does_not_scroll_sideways_on_a_phone(accounts: Accounts, rule: str, tmp_path: Path) -> None:
    wide, view = on_a_phone(tmp_path, page.seed_page(accounts[rule]))
    assert wide <= view


def test_a_report_of_several_runs_does_not_either(accounts: Accounts, tmp_path: Path) -> None:
    findings = [
        {"rule": rule, "explanation": rule, "account": json.loads(msgspec.json.encode(account)), "status": "new"}
        for rule, account in accounts.items()
    ]
    made = {"draws": 100, "seconds": 9.0, "findings": findings, "speed": [[1, 4], [2, 9]], "oracles": ["data"]}
    wide, view = on_a_phone(tmp_path, page.report_page(runs.report({"first-of-the-week": made, "second": made})))
    assert wide <= view


def test_a_page_that_is_too_wide_is_seen(accounts: Accounts, tmp_path: Path) -> None:
    text = page.seed_page(accounts["wrong-data"]).replace("</main>", "<div style='width:900px'>wide</div></main>")
    wide, view = on_a_phone(tmp_path, text)
    assert wide > view


def test_the_page_follows_the_dark(accounts: Accounts, tmp_path: Path) -> None:
    text = page.seed_page(accounts["wrong-owner"])
    light = measured(browse(tmp_path, text), "dark")
    dark = measured(browse(tmp_path, text, "--blink-settings=preferredColorScheme=0"), "dark")
    assert light != dark
