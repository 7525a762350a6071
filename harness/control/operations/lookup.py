"""One thing by its name, or the newest of its kind, as it is stored. No decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.control import audit
from harness.control.context import Context
from harness.control.routing import routes, targets
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import Sample, Verdict
from harness.domain.operations.row_signatures import RowFault
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """A suite that this installation knows. error: why it does not load, else empty."""

    name: str
    title: str
    version: str | None
    digest: str | None
    items: int | None
    scorer: str | None
    error: str = ""


def find_target(ctx: Context, name: str) -> Target:
    """By id or `provider/model`. Raises NotFound, InputError for an ambiguous name."""
    with ctx.store.read() as tx:
        return targets.find_target(tx, name)


def find_route(ctx: Context, name: str) -> Route:
    """Raises NotFound."""
    with ctx.store.read() as tx:
        return routes.require_route(tx, name)


def load_samples(ctx: Context, run: str) -> Sequence[Sample]:
    """All of a run, in its order. Raises NotFound for an unknown run."""
    with ctx.store.read() as tx:
        return tx.runs.samples(tx.runs.get(run).id)


def load_verdict(ctx: Context, name: str) -> Verdict:
    """Raises NotFound."""
    with ctx.store.read() as tx:
        return tx.verdicts.get(name)


def find_audit_break(ctx: Context) -> int | None:
    """The number of the first event that does not fit the chain; None when it is whole."""
    with ctx.store.read() as tx:
        return audit.find_first_break(ctx, tx)


def list_signature_faults(ctx: Context) -> Sequence[RowFault]:
    """Every stored row whose signature does not hold."""
    return ctx.store.signature_faults()


def list_suites(ctx: Context) -> Sequence[SuiteSummary]:
    """In the order of the configuration; a suite that does not load says why."""
    return [_suite(ctx, name) for name in ctx.suites.names()]


def _suite(ctx: Context, name: str) -> SuiteSummary:
    title = ctx.suites.title(name)
    try:
        pin = ctx.suites.pin(name)
    except SwapgateError as error:
        return SuiteSummary(name, title, None, None, None, None, str(error))
    return SuiteSummary(name, title, pin.version, pin.digest, pin.items, pin.scorer)
