"""Names the changes of a route in its history, for the Routes page and the command line."""

from collections.abc import Mapping
from typing import Final

from harness.domain.canary.rollout import CanaryEnd, find_end
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.table import RouteRecord

CHANGE_WORDS: Final[Mapping[str, str]] = {
    "baseline": "route created",
    "canary": "canary started",
    "weight": "share raised",
    "promotion": "candidate promoted",
    "abort": "canary {end}",
    "restore": "rolled back by hand",
    "settings": "settings or fallbacks changed",
}


def describe_change(record: RouteRecord) -> str:
    """Says what a change did: of a canary's end, which end it was; of a break-glass, which of
    its two changes.
    """
    end = find_end(record.reason)
    if record.kind == "restore":
        if record.route.break_glass is not None:
            return "served without proof from here"
        if record.ended_break_glass is not None:
            return "break-glass over: the former incumbent is back"
        if end is CanaryEnd.TAKEN_BACK:
            return end.value
        if record.actor == SYSTEM.name:
            return f"promotion {end}"
    return CHANGE_WORDS.get(record.kind, record.kind).format(end=end)
