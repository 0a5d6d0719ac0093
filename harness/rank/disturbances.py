"""What disturbs one rank: pauses of its host or of a stream, and segments that it is refused. Local."""

from __future__ import annotations

from harness.clock import Clock
from harness.scenario.steps import Deny, Refuse, Stall, Straggle
from harness.substrate.base import Substrate

Disturbance = Straggle | Stall | Deny | Refuse


def disturb(step: Disturbance, substrate: Substrate, clock: Clock) -> None:
    """Do to this rank what a step says, if it is meant."""
    if step.rank != substrate.rank:
        return
    match step:
        case Straggle():
            clock.sleep(step.milliseconds / 1000)
        case Stall():
            with substrate.device.stream(step.stream):
                substrate.device.stall(step.milliseconds)
        case Deny():
            substrate.deny()
        case Refuse():
            substrate.refusal.is_due = True
