"""Reads when models end from all sources: the catalogue, the provider's list, and the headers
of answers. Every interface asks `EndFacts.report`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from shlex import quote
from typing import Final

from harness.frame.formatting import format_date
from harness.frame.records.transaction import Transaction
from harness.gate.pins import Sighting
from harness.providers.context import ProvidersContext
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_ends import (
    WITHDRAWN_AFTER,
    EndDates,
    EndReport,
    EndSource,
    EndStatement,
    describe_end,
    find_end,
)
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.models.related_ends import RelatedEnds
from harness.providers.records import DiscoveredModels, EndStatements, Providers, Sightings
from harness.providers.target import Provider, Target

# A list without a model's end is no evidence any more after this time. Swapproof reads lists
# once a day.
LIST_COUNTS_FOR: Final = timedelta(days=7)


@dataclass(frozen=True)
class EndFacts:
    """The stored facts by which ends are found."""

    providers: Mapping[str, Provider]
    catalogue: Catalogue
    # By provider and model, also models that a provider no longer lists.
    listed: Mapping[tuple[str, str], DiscoveredModel]
    headers: Mapping[str, EndStatement]  # the headers' statements, by the target's id
    # The models that answers named, by the target's id.
    sightings: Mapping[str, Sequence[Sighting]] = field(default_factory=dict)

    def report(self, target: Target, now: datetime) -> EndReport:
        """Reports what is known about the end of a target's model. Pure."""
        provider = self.providers.get(target.provider)
        if provider is None:
            return EndReport((), describe_end(None, to_know="its provider was removed"))
        listed = self._find_listed(target, provider)
        read_on = None
        if listed is not None and not listed.gone_at and self._tells_ends(target, now):
            is_new = now - listed.found_at <= LIST_COUNTS_FOR
            read_on = listed.found_at.date() if is_new else None
        statements = self._list_statements(target, provider, now)
        to_know = _describe_way(provider, listed, now)
        return EndReport(statements, describe_end(find_end(statements), read_on, to_know))

    def _list_statements(
        self, target: Target, provider: Provider, now: datetime
    ) -> Sequence[EndStatement]:
        found: list[tuple[EndSource, str, EndDates]] = []
        today = now.date()
        answered = self._list_answered(target, now)
        end = self.catalogue.find_end(provider.kind, target.model, today, answered)
        if end is not None:
            found.append((EndSource.CATALOGUE, end.source, EndDates(end.day)))
        lists = self._listed_ends.get(provider.name)
        related = lists.find(target.model, today, answered) if lists else None
        if related is not None:
            source = f"the list of models of provider {provider.name}{related.text}"
            found.append((EndSource.LIST, source, related.dates))
        statements = [
            EndStatement(target.id, kind, source, dates, now, now)
            for kind, source, dates in found
        ]
        headers = self.headers.get(target.id)
        if headers is not None and not headers.is_withdrawn:
            statements.append(headers)
        return statements

    def _tells_ends(self, target: Target, now: datetime) -> bool:
        """Tells whether the provider's list tells the ends of all names that a listed model
        ends with. A snapshot's entry may have a field that Swapproof cannot read.
        """
        lists = self._listed_ends[target.provider]
        answered = self._list_answered(target, now)
        return all(
            self.listed[target.provider, name].tells_ends
            for name in lists.list_names(target.model, now.date(), answered)
        )

    def _list_answered(self, target: Target, now: datetime) -> Collection[str]:
        """Lists the models that answers named at most WITHDRAWN_AFTER before the newest one.

        An older answer under the target's own name does not show that the model still serves.
        """
        sightings = self.sightings.get(target.id, ())
        newest = max((sighting.last_at for sighting in sightings), default=now)
        names = {
            sighting.served.model
            for sighting in sightings
            if newest - sighting.last_at <= WITHDRAWN_AFTER
        }
        if now - newest > WITHDRAWN_AFTER:
            names.discard(target.model)
        return sorted(names)

    def find_unlisted_since(self, target: Target) -> date | None:
        """Finds the day on which the provider stopped listing a model; None if it lists it."""
        provider = self.providers.get(target.provider)
        listed = self._find_listed(target, provider) if provider is not None else None
        return listed.gone_at.date() if listed is not None and listed.gone_at else None

    def _find_listed(self, target: Target, provider: Provider) -> DiscoveredModel | None:
        """Finds a model in the list that its provider sent from its present address."""
        listed = self.listed.get((target.provider, target.model))
        return listed if listed is not None and listed.source == provider.api_base else None

    @cached_property
    def _listed_ends(self) -> Mapping[str, RelatedEnds]:
        """What each provider's present list states, by provider."""
        dates: dict[str, dict[str, EndDates]] = {}
        for (name, model), listed in self.listed.items():
            provider = self.providers.get(name)
            if provider and listed.source == provider.api_base and not listed.gone_at:
                dates.setdefault(name, {})[model] = listed.ends
        return {name: RelatedEnds(models) for name, models in dates.items()}


def load_facts(ctx: ProvidersContext, tx: Transaction, targets: Iterable[Target]) -> EndFacts:
    """Loads the facts about the ends of these targets' models."""
    targets = list(targets)
    return EndFacts(
        Providers(tx).all(),
        ctx.catalogue,
        DiscoveredModels(tx).of_providers(target.provider for target in targets),
        EndStatements(tx).of_headers(),
        Sightings(tx).for_targets(target.id for target in targets),
    )


def _describe_way(provider: Provider, listed: DiscoveredModel | None, now: datetime) -> str:
    """Describes how a person learns the end of a model that no source states."""
    command = f"`swapproof model discover {quote(provider.name)}`"
    if listed is None or listed.gone_at:
        return f"{command} reads its provider's list"
    if listed.tells_ends and now - listed.found_at > LIST_COUNTS_FOR:
        return (
            f"its provider's list is of {format_date(listed.found_at.date())}; {command} reads "
            "it anew"
        )
    return (
        "its provider's list states no end that Swapproof can read; once the provider "
        "announces one, write it as `end_date` under `catalogue:` in swapproof.yaml"
    )
