"""`symm`, and `python -m harness`: the command line, with Ctrl-C taken as it is meant from the first moment on.

Invariant: nothing slow is imported before Ctrl-C has a meaning.
"""

from __future__ import annotations

from harness import interrupts


def main() -> None:
    """Entry point. Exit statuses are those of `harness.cli`."""
    interrupts.leave_at_once()
    from harness import cli  # noqa: PLC0415  (half a second)

    cli.main()


if __name__ == "__main__":
    main()
