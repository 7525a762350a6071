"""Names the changes of a route in its history, for the Routes page and the command line."""

from collections.abc import Mapping
from typing import Final

from harness.domain.canary.rollout import CanaryEnd, find_end
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.table import Route

CHANGE_WORDS: Final[Mapping[str, str]] = {
    "baseline": "route created",
    "canary": "canary started",
    "weight": "share raised",
    "promotion": "candidate promoted",
    "abort": "canary {end}",
    "restore": "rolled back by hand",
    "settings": "settings or fallbacks changed",
}


def describe_change(
    route: Route, kind: str, actor: str, reason: str, ended_break_glass: str | None = None
) -> str:
    """Says what a change of that kind did: of a canary's end, which end it was; of a
    break-glass, which of its two changes. route: as the change left it. ended_break_glass: the
    one whose end it was, by what is stored of it; None for another change.
    """
    end = find_end(reason)
    if kind == "restore":
        if route.break_glass is not None:
            return "served without proof from here"
        if ended_break_glass is not None:
            return "break-glass over: the former incumbent is back"
        if end is CanaryEnd.TAKEN_BACK:
            return end.value
        if actor == SYSTEM.name:
            return f"promotion {end}"
    return CHANGE_WORDS.get(kind, kind).format(end=end)
