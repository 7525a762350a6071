"""Publishes to routers what catalogue and lists state about the ends of routed models.

Routers write the headers' statements themselves. They read neither catalogue nor lists.
"""

from collections.abc import Iterable, Mapping, Sequence

from harness.frame.records.transaction import Transaction
from harness.providers.models.model_ends import EndSource, EndStatement
from harness.providers.records import EndStatements
from harness.providers.registry.end_facts import load_facts
from harness.providers.target import Target
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing


def list_statements(
    ctx: RoutingContext, tx: Transaction, targets: Iterable[Target]
) -> Mapping[str, Sequence[EndStatement]]:
    """Lists what the sources state about targets' models, by the target's id."""
    targets = list(targets)
    facts = load_facts(ctx, tx, targets)
    now = ctx.clock.now()
    return {target.id: facts.report(target, now).statements for target in targets}


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
