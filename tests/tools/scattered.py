"""Pool policies on ranks whose segments lie in different orders of address, as they may on GPUs."""

from harness.system.context import RankContext
from harness.system.pools import deferred, per_group, per_unique_id


def scatter(context: RankContext) -> None:
    """Addresses fall on odd ranks, and rise on even ones."""
    context._substrate.arena.is_falling = context.rank % 2 == 1


class PerGroup(per_group.PerGroup):
    def __init__(self, context: RankContext) -> None:
        scatter(context)
        super().__init__(context)


class Deferred(deferred.Deferred):
    def __init__(self, context: RankContext) -> None:
        scatter(context)
        super().__init__(context)


class PerUniqueId(per_unique_id.PerUniqueId):
    def __init__(self, context: RankContext) -> None:
        scatter(context)
        super().__init__(context)
