"""What of Triton's interpreter is replaced on a rank."""

from __future__ import annotations

from harness.substrate.base import Substrate


def hooks(substrate: Substrate, slots: object) -> list[str]:
    """Methods of the builder that are not its class's, and a launch that is not Triton's."""
    from triton.runtime import interpreter

    replaced = [name for name in vars(interpreter.interpreter_builder) if name.startswith("create_")]
    launch = interpreter.GridExecutor.__call__.__module__
    return replaced + [launch] * (launch != interpreter.__name__)
