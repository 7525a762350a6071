"""Mirroring decides which callers' requests are mirrored (`is_mirrored`), and whether a
change of the route ends its shadow (`end_reason`): another incumbent or class of data, tools
that act on the world, a canary of the same candidate. Pure: budget and time are not its matter.
"""

from harness.domain.routing.table import Route, hash_bucket
from harness.domain.shadow.shadow import Shadow


def is_mirrored(shadow: Shadow, key: str) -> bool:
    """Whether a caller's requests are mirrored. It has a salt of its own, so it is independent
    of the canary's callers.
    """
    return hash_bucket(key, salt=f"shadow:{shadow.id}") < shadow.limits.share_bps


def end_reason(shadow: Shadow, route: Route | None) -> str:
    """Says why the route as it is now takes no such shadow any more; empty if it does."""
    if route is None:
        return f"there is no route {shadow.route!r} any more"
    if route.settings.side_effects:
        return "the route's tools act on the world now (side_effects)"
    if route.settings.data_class != shadow.data_class:
        return "the route carries another class of data now"
    if route.incumbent != shadow.incumbent:
        return "the route has another incumbent now"
    if route.canary is not None and route.canary.target == shadow.candidate.id:
        return "the candidate has its canary now, and answers users"
    return ""
