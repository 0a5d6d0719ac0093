"""Rule on the path: a call that owns its buffers and is eligible takes the symmetric path.

Rule: slow-path. It is off where the substrate has no evidence of the path (`Ran.evidence` is empty), and for a call of
which NCCL chose the path by itself (`Ran.is_free`): there the legacy path says nothing of ownership.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.findings import Finding, SlowPath
from harness.oracle.history import Use
from harness.oracle.peers import peer_operands
from harness.oracle.rules.ownership import is_owned
from harness.trace.events import Called

REDUCED = {"all_reduce": ("sum",), "reduce_scatter": ("sum", "avg")}
"""The ops of NCCL's symmetric kernels, by kind of call."""
REDUCIBLE = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def judge(case: Case) -> Iterator[Finding]:
    for uses in case.calls.values():
        use = uses[0]
        # A kernel under test is a path of its own, which NCCL's conditions do not bind.
        reason = "" if use.ran is not None and use.ran.path == "kernel" else _ineligible(case, uses)
        if use.called.claims and reason:
            yield SlowPath(
                f"{case.call(use)} claims the {_wanted(use)} path, which {reason} never takes; {case.path(use)}.",
                step=use.step,
                ranks=use.comm.group,
            )
        slow = [u for u in uses if u.ran and u.ran.path == "legacy" and u.ran.evidence and not u.ran.is_free]
        if slow and not reason and len(uses) == len(use.comm.group) and is_owned(case, uses):
            yield SlowPath(
                f"{case.call(use)} owns its {' and '.join(case.peer_roles(uses))} on every rank and is eligible, yet "
                f"on rank {slow[0].rank} {case.path(slow[0])}.",
                step=use.step,
                ranks=tuple(u.rank for u in slow),
            )


def _wanted(use: Use) -> str:
    return "copy-engine" if use.called.via == "copy-engine" else "symmetric"


def _ineligible(case: Case, uses: list[Use]) -> str:
    """Why NCCL takes no symmetric kernel for the call; empty if it does."""
    use = uses[0]
    roles = peer_operands(use.called.kind, use.called.via)  # without a source that a plug-in alone would reach
    if len(use.comm.group) < 2:
        return "a group of one rank"
    if not roles:
        return f"a call of kind {use.called.kind}"
    if use.called.is_uneven:
        # NCCL has no call for it: the harness makes one broadcast or reduction a rank, which no symmetric kernel runs.
        return "a call of unequal sizes"
    if not use.comm.has_windows:
        return "a communicator without window support"
    if any(case.is_declined(each, role) for role in roles for each in uses):
        return "a call on memory that the pool policy declined"
    return "a call without elements" if use.called.is_empty else _irreducible(use.called)


def _irreducible(called: Called) -> str:
    """Why NCCL's symmetric kernels cannot reduce what a call asks for; empty if they can, or need not."""
    # They move bytes of any type, and reduce these alone (2.32.3, forced path).
    if called.op is None:
        return ""
    what = "an all-reduce" if called.kind == "all_reduce" else "a reduce-scatter"
    if called.op not in REDUCED[called.kind]:
        return f"{what} with op {called.op}"
    return "" if called.dtype in REDUCIBLE else f"{what} of {called.dtype}"
