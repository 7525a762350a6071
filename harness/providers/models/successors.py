"""Finds the model that could take an ending model's place: the newest of its family. Pure."""

from datetime import date, timedelta
from typing import Final

from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.model_names import parse_model_name

ALERT_AHEAD: Final = timedelta(days=90)  # how long before a model's end Swapproof warns


def find_successor(
    entry: CatalogueEntry,
    catalogue: Catalogue,
    today: date,
) -> CatalogueEntry | None:
    """Finds the newest model of the family with the same abilities that ends later."""
    # A successor that ends within ALERT_AHEAD would soon need a successor itself.
    end = catalogue.find_end(entry.kind, entry.model, today)
    last = max(today + ALERT_AHEAD, end.day if end else today)
    rank = parse_model_name(entry.model).rank
    candidates = [
        (parse_model_name(other.model).rank, other.model, other)
        for other in catalogue
        if other.kind == entry.kind
        and other.family == entry.family
        and parse_model_name(other.model).rank > rank
        and entry.has <= other.has
        and (entry.context_window or 0) <= (other.context_window or 0)
        and not catalogue.has_ended(other.kind, other.model, last)
    ]
    return max(candidates, key=lambda fit: fit[:2])[2] if candidates else None
