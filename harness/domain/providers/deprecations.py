"""Deprecations are models in use whose provider has announced an end date, with their
successors (F11). Pure.

`find_deprecations` lists those that end within 90 days; `find_successor` names the newest model
of the family that can do as much and lasts longer.
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
    """Returns the used models that end within ALERT_AHEAD, those that end first before the
    others.
    """
    found = []
    for target, uses in used:
        provider = providers.get(target.provider)
        entry = known.find(provider.kind, target.model) if provider else None
        if provider is None or entry is None or entry.end_date is None:
            continue
        if entry.end_date - today > ALERT_AHEAD:
            continue
        follows = find_successor(entry, known, today)
        found.append(
            Deprecation(
                target=target.id,
                name=target.name,
                end_date=entry.end_date,
                days=(entry.end_date - today).days,
                uses=tuple(uses),
                price=provider.prices.get(target.model, entry.price),
                successor=_at(provider, follows) if follows else None,
            )
        )
    return tuple(
        sorted(found, key=lambda deprecation: (deprecation.end_date, deprecation.name))
    )


def find_successor(
    entry: CatalogueEntry, known: Iterable[CatalogueEntry], today: date
) -> CatalogueEntry | None:
    """Finds the newest model of the same kind and family that can do at least as much, and
    lasts longer.

    Whatever the ending one is known to have, the other is, too; its window is as large.
    """
    fits = [
        catalogue_entry
        for catalogue_entry in known
        if catalogue_entry.kind == entry.kind
        and catalogue_entry.family == entry.family
        and parse_model_name(catalogue_entry.model).rank > parse_model_name(entry.model).rank
        and entry.has <= catalogue_entry.has
        and (entry.context_window or 0) <= (catalogue_entry.context_window or 0)
        and not _ends_before(catalogue_entry, entry, today)
    ]
    return max(
        fits, key=lambda fit: (parse_model_name(fit.model).rank, fit.model), default=None
    )


def _ends_before(one: CatalogueEntry, other: CatalogueEntry, today: date) -> bool:
    """Whether one model ends before the other, at the same time, or within ALERT_AHEAD: nobody
    wants to move twice.
    """
    if one.end_date is None:
        return False
    last = max(today + ALERT_AHEAD, other.end_date or today)
    return one.end_date <= last


def _at(provider: Provider, entry: CatalogueEntry) -> Successor:
    return Successor(
        f"{provider.name}/{entry.model}",
        provider.prices.get(entry.model, entry.price),
        entry.context_window,
        entry.end_date,
    )
