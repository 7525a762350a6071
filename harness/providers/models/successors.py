"""Finds the model that could take an ending model's place: the newest of its family. Pure."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.model_names import parse_model_name

ALERT_AHEAD: Final = timedelta(days=90)  # how long before a model's end Swapproof warns


def find_successor(
    entry: CatalogueEntry,
    entries: Iterable[CatalogueEntry],
    today: date,
) -> CatalogueEntry | None:
    """Finds the newest model of the family with the same abilities that ends later."""
    # A successor that ends within ALERT_AHEAD would soon need a successor itself.
    last = max(today + ALERT_AHEAD, entry.end_date or today)
    rank = parse_model_name(entry.model).rank
    candidates = [
        (parse_model_name(other.model).rank, other.model, other)
        for other in entries
        if other.kind == entry.kind
        and other.family == entry.family
        and parse_model_name(other.model).rank > rank
        and entry.has <= other.has
        and (entry.context_window or 0) <= (other.context_window or 0)
        and (other.end_date is None or other.end_date > last)
    ]
    return max(candidates, key=lambda fit: fit[:2])[2] if candidates else None
