"""Deprecations are models in use whose provider has announced an end date, with their
successors (F11). Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from harness.domain.providers.catalogue import Catalogue, CatalogueEntry
from harness.domain.providers.model_names import parse_model_name
from harness.domain.routing.target import Price, Provider, Target

ALERT_AHEAD: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Successor:
    """Describes the model that replaces a deprecated one."""

    name: str  # `provider/model`, of the provider that has the ending one
    price: Price | None
    context_window: int | None
    end_date: date | None


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A model in use that its provider will end."""

    target: str  # its id
    name: str
    end_date: date
    days: int  # until the end, 0 or less once it has come
    uses: tuple[str, ...]  # where it is used, such as `incumbent of chat`
    price: Price | None = None
    successor: Successor | None = None  # None where its family has none that can do as much

    @property
    def over(self) -> bool:
        return self.days <= 0


def find_deprecations(
    used: Iterable[tuple[Target, Sequence[str]]],
    providers: Mapping[str, Provider],
    known: Catalogue,
    today: date,
) -> tuple[Deprecation, ...]:
    """Returns the used models that end within ALERT_AHEAD, the earliest end first."""
    found = []
    for target, uses in used:
        provider = providers.get(target.provider)
        entry = known.find(provider.kind, target.model) if provider else None
        if provider is None or entry is None or entry.end_date is None:
            continue
        if entry.end_date - today > ALERT_AHEAD:
            continue
        follows, successor = find_successor(entry, known, today), None
        if follows is not None:
            name = f"{provider.name}/{follows.model}"
            price = provider.prices.get(follows.model, follows.price)
            successor = Successor(name, price, follows.context_window, follows.end_date)
        deprecation = Deprecation(
            target=target.id,
            name=target.name,
            end_date=entry.end_date,
            days=(entry.end_date - today).days,
            uses=tuple(uses),
            price=provider.prices.get(target.model, entry.price),
            successor=successor,
        )
        found.append(deprecation)
    return tuple(sorted(found, key=lambda ending: (ending.end_date, ending.name)))


def find_successor(
    entry: CatalogueEntry, known: Iterable[CatalogueEntry], today: date
) -> CatalogueEntry | None:
    """Finds the newest model of the same kind and family that has all that the ending one is
    known to have, and lasts longer.
    """
    # Nobody wants to move twice within ALERT_AHEAD.
    last = max(today + ALERT_AHEAD, entry.end_date or today)
    rank = parse_model_name(entry.model).rank
    fits = [
        (parse_model_name(other.model).rank, other.model, other)
        for other in known
        if other.kind == entry.kind
        and other.family == entry.family
        and parse_model_name(other.model).rank > rank
        and entry.has <= other.has
        and (entry.context_window or 0) <= (other.context_window or 0)
        and (other.end_date is None or other.end_date > last)
    ]
    return max(fits, key=lambda fit: fit[:2])[2] if fits else None
