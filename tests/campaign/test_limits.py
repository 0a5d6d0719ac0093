"""What a campaign may spend."""

from __future__ import annotations

from harness.campaign.limits import SHRINK_SECONDS, Limits


def test_the_time_for_shrinking_is_shared_equally() -> None:
    limits = Limits(more=3).within(10)
    assert (limits.shrink_seconds, limits.search_seconds, limits.seconds, limits.more) == (5, 5, 10, 3)


def test_what_a_user_gets_unasked_is_the_sum_of_both() -> None:
    assert Limits().within(SHRINK_SECONDS) == Limits()
