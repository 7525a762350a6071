"""Records a provider's move to another address, and finds what it makes outdated: what was
measured before proves nothing of what answers now (ADR 29). Who serves already goes on being
served; what would go further waits for new proof.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from harness.control.context import Context
from harness.control.providers.provider_secrets import decrypt_headers
from harness.domain.evals.run import RunState
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import require_reason
from harness.domain.routing.target import Provider, ProviderMove
from harness.store.transaction import Transaction


def with_move(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    known: Provider | None,
    wanted: Provider,
    reason: str,
) -> Provider:
    """Adds the move to a provider that answers from another place than before, or comes back
    after its removal. Raises InputError without a reason where a route uses it.
    """
    if known is not None and decrypt_headers(known, ctx.cipher).same_place(
        decrypt_headers(wanted, ctx.cipher)
    ):
        return replace(wanted, moved=known.moved)
    used = {
        id_ for id_, target in tx.routing.targets().items() if target.provider == wanted.name
    }
    if known is None and not used:
        return wanted
    if routes := routes_using(tx, wanted.name):
        act = f"to move provider {wanted.name!r}, which answers route {', '.join(routes)},"
        require_reason(reason, act)
    # Later than all that was measured before, whatever the clock says.
    before = [run.created_at for run in tx.runs.newest_of_targets(used, [*RunState])]
    at = max([ctx.clock.now(), *before])
    return replace(wanted, moved=ProviderMove(at, actor.name, reason.strip()))


def routes_using(tx: Transaction, provider: str) -> list[str]:
    """Lists the names of the routes that use the provider in any role."""
    return routes_by_provider(tx).get(provider, [])


def routes_by_provider(tx: Transaction) -> Mapping[str, list[str]]:
    """Lists the names of the routes that use each provider in any role."""
    table = tx.routing.table()
    found: dict[str, list[str]] = {}
    for name, route in sorted(table.routes.items()):
        for provider in {table.targets[target].provider for target in route.targets}:
            found.setdefault(provider, []).append(name)
    return found


def find_move_since(
    ctx: Context, tx: Transaction, target: str, began: datetime
) -> Provider | None:
    """Returns a target's provider if it has moved since that time; else None."""
    known = tx.routing.targets().get(target)
    if known is None:
        known = next((judge for judge in ctx.judges.values() if judge.id == target), None)
    provider = tx.providers.all().get(known.provider) if known is not None else None
    if provider is None or provider.moved is None or began > provider.moved.at:
        return None
    return provider


def list_outdated(tx: Transaction, provider: str) -> Sequence[str]:
    """What of a provider that has moved now waits for new proof, in words."""
    targets = tx.routing.targets()

    def there(*arms: str) -> bool:
        return any(targets[arm].provider == provider for arm in arms)

    rollouts = tx.rollouts.live()
    live = {rollout.proposal for rollout in rollouts}
    return [
        *(
            f"canary {rollout.id} of route {rollout.route}, which goes no further: abort it "
            "and propose again"
            for rollout in rollouts
            if there(rollout.incumbent, rollout.candidate)
        ),
        *(
            f"proposal {proposal.id} of route {proposal.route}"
            for proposal in tx.proposals.open()
            if proposal.id not in live
            and proposal.runs
            and there(proposal.incumbent, proposal.candidate)
        ),
    ]
