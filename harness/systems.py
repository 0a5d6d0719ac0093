"""The named system under test, checked before ranks start."""

from __future__ import annotations


def check_system(pool: str | None, collectives: str | None) -> None:
    """Load what the names stand for, so that a wrong one ends a command before ranks start. Raises `PluginError`.

    None and the collectives `library` need no loading.
    """
    if pool is not None:
        from harness.pools import load_pool  # noqa: PLC0415  (imports torch, which most commands do without)

        load_pool(pool)
    if collectives not in (None, "library"):
        from harness.collectives import load_collectives  # noqa: PLC0415

        load_collectives(collectives)
