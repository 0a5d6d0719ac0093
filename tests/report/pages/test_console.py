"""An account in a terminal: the same facts, in lines that fit."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from harness.report.pages import console
from harness.report.pages.account import NOT_RUN, Outcome
from tests.report.pages.conftest import SEEDS, Accounts


def shown(accounts: Accounts, rule: str, width: int = 80) -> list[str]:
    out = io.StringIO()
    console.show(Console(file=out, width=width), accounts[rule])
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("rule", SEEDS)
def test_no_line_is_wider_than_the_terminal(accounts: Accounts, rule: str, width: int) -> None:
    assert max(map(len, shown(accounts, rule, width))) <= width


def test_the_missing_window_is_drawn_below_the_operand(accounts: Accounts) -> None:
    lines = shown(accounts, "wrong-owner")
    (operand, *_) = (line for line in lines if "output 'b1'" in line and "[" in line and "rank" not in line)
    (wanted, *_) = (line for line in lines if "!!" in line)
    assert operand.index("[") == wanted.index("[")
    assert any("no window of moe_ep[0,2] here: the call needs one" in line for line in lines)


def test_other_systems_are_listed_with_the_first_difference(accounts: Accounts) -> None:
    text = " ".join(" ".join(shown(accounts, "wrong-owner", 140)).split())
    assert "pool mine ✗ wrong-owner (this seed)" in text
    assert "pool other ✓ clean; step 1, rank 0, registration: nothing in the seed, tp here" in text


def test_a_hang_says_who_waits_for_whom(accounts: Accounts) -> None:
    assert "  rank 0 waits for rank 1: in register of tp[0,1], entered for the second time" in shown(
        accounts, "registration-skew", 100
    )


def test_a_system_that_refused_the_seed_has_no_mark_of_a_failure(accounts: Accounts) -> None:
    refused = (Outcome("pool other", NOT_RUN, difference="needs a GPU"),)
    account = msgspec.structs.replace(accounts["wrong-owner"], outcomes=refused)
    out = io.StringIO()
    console.show(Console(file=out, width=140), account)
    assert "pool other  – not run; needs a GPU" in out.getvalue()
