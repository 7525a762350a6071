"""Reads the sources that state when a target's model ends: catalogue, list and headers.

Routers write the headers' statements. The control plane publishes the others to them, because a
router reads neither catalogue nor lists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from harness.frame.records.transaction import Transaction
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_ends import EndDates, EndSource, EndStatement
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, EndStatements, Providers
from harness.providers.target import Provider, Target
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing


@dataclass(frozen=True, slots=True)
class EndFacts:
    """The stored facts by which ends are found."""

    providers: Mapping[str, Provider]
    catalogue: Catalogue
    # By provider and model, also models that a provider no longer lists.
    listed: Mapping[tuple[str, str], DiscoveredModel]
    headers: Mapping[str, EndStatement]  # the headers' statements, by the target's id

    def state(self, target: Target, now: datetime) -> Sequence[EndStatement]:
        """Lists what the sources state about a target's model. Pure."""
        provider = self.providers.get(target.provider)
        if provider is None:
            return ()
        found: list[tuple[EndSource, str, EndDates]] = []
        entry = self.catalogue.find(provider.kind, target.model)
        if entry is not None and entry.end_date is not None:
            source = self.catalogue.name_end_source(entry)
            found.append((EndSource.CATALOGUE, source, EndDates(entry.end_date)))
        listed = self._find_listed(target, provider)
        if listed is not None and not listed.gone_at and not listed.ends.is_empty:
            source = f"the list of models of provider {provider.name}"
            found.append((EndSource.LIST, source, listed.ends))
        statements = [
            EndStatement(target.id, kind, source, dates, now, now)
            for kind, source, dates in found
        ]
        headers = self.headers.get(target.id)
        if headers is not None and not headers.is_withdrawn:
            statements.append(headers)
        return statements

    def find_unlisted_since(self, target: Target) -> date | None:
        """Finds the day on which the provider stopped listing a model; None if it lists it."""
        provider = self.providers.get(target.provider)
        listed = self._find_listed(target, provider) if provider is not None else None
        return listed.gone_at.date() if listed is not None and listed.gone_at else None

    def _find_listed(self, target: Target, provider: Provider) -> DiscoveredModel | None:
        """Finds a model in the list that its provider sent from its present address."""
        listed = self.listed.get((target.provider, target.model))
        return listed if listed is not None and listed.source == provider.api_base else None


def load_facts(ctx: RoutingContext, tx: Transaction, targets: Iterable[Target]) -> EndFacts:
    """Loads the facts about the ends of these targets' models."""
    return EndFacts(
        Providers(tx).all(),
        ctx.catalogue,
        DiscoveredModels(tx).among((target.provider, target.model) for target in targets),
        EndStatements(tx).of_headers(),
    )


def list_statements(
    ctx: RoutingContext, tx: Transaction, targets: Iterable[Target]
) -> Mapping[str, Sequence[EndStatement]]:
    """Lists what the sources state about targets' models, by the target's id."""
    targets = list(targets)
    facts = load_facts(ctx, tx, targets)
    now = ctx.clock.now()
    return {target.id: facts.state(target, now) for target in targets}


def publish_statements(ctx: RoutingContext) -> None:
    """Stores the statements of catalogue and lists about routed targets, so that routers send
    them to clients. Deletes the statements that no longer hold.
    """
    with ctx.store.read() as tx:
        table = Routing(tx).table()
        used = {id_ for route in table.routes.values() for id_ in route.targets}
        stated = list_statements(ctx, tx, (table.targets[id_] for id_ in sorted(used)))
        stored = EndStatements(tx).all()
    wanted: dict[tuple[str, EndSource], EndStatement] = {
        (statement.target, statement.kind): statement
        for statements in stated.values()
        for statement in statements
        if statement.kind is not EndSource.HEADERS
    }
    unchanged = set()
    outdated = []
    for old in stored:
        new = wanted.get((old.target, old.kind))
        if new is not None and (new.source, new.dates) == (old.source, old.dates):
            unchanged.add((old.target, old.kind))
        elif new is None and (old.kind is not EndSource.HEADERS or old.is_withdrawn):
            outdated.append(old)
    changed = [wanted[key] for key in wanted.keys() - unchanged]
    if changed or outdated:
        with ctx.store.write() as tx:
            EndStatements(tx).note(changed)
            EndStatements(tx).forget(outdated)
