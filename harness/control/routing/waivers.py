"""Waivers that have expired while their targets still serve: told until somebody acts."""

from harness.control.context import Context
from harness.control.operations import alerts
from harness.control.routing import fallback_chain
from harness.domain.operations.alerts import AlertKind
from harness.domain.routing.evidence import Waiver


def update_waiver_alerts(ctx: Context) -> None:
    expired = {each.id: each for each in fallback_chain.expired(ctx)}
    told = _open_waiver_alerts(ctx)
    for waiver in (each for id_, each in expired.items() if id_ not in told):
        _raise_waiver_alert(ctx, waiver)
    for id_ in told - set(expired):
        with ctx.store.write() as tx:
            alerts.resolve_alert(ctx, tx, AlertKind.WAIVER_EXPIRED, id_)


def _open_waiver_alerts(ctx: Context) -> set[str]:
    """Ids of the waivers that people know about."""
    kind = AlertKind.WAIVER_EXPIRED
    with ctx.store.read() as tx:
        records = tx.alerts.unsettled()
    return {
        each.key.removeprefix(f"{kind.value}:")
        for each in records
        if each.kind is kind and each.open
    }


def _raise_waiver_alert(ctx: Context, waiver: Waiver) -> None:
    with ctx.store.write() as tx:
        name = tx.routing.targets()[waiver.target].name
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.WAIVER_EXPIRED,
            waiver.id,
            subject=f"route {waiver.route}",
            title=f"the waiver for {name} on route {waiver.route} has expired",
            text=f"{waiver.author} gave it, and said: {waiver.reason}. {name} goes on serving "
            "as a fallback; no change of the route's settings or chain may keep it.",
        )
