"""Compares stored rows with what the audit log says of them (F1): a part in each turn of the
reconcile loop (`run_once`), everything on demand (`check_database`, for `swapgate db check`).

Each turn folds new events into this process's memory, looks at what decides and, after a
change, at what serves, and walks on through everything else, all of it bounded. Once all was
compared and nothing was committed since, it rests. Rows that disagree raise alerts.
`check_database` also recomputes every verdict that may be proof.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.evals import recomputation
from harness.control.operations import alerts, integrity, tampering
from harness.domain.errors import NotFound, SignatureInvalid
from harness.domain.evals.verdict import Passed
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.state_audit import AuditProgress, RowFinding, RowHistory
from harness.domain.proposals.proposal import Proposal
from harness.ports import Transaction


def check_database(ctx: Context) -> list[str]:
    """A line each: the audit chain, rows against the log, passes against their scores."""
    found = []
    with ctx.store.read() as tx:
        broken = tx.audit.first_break()
        if broken is not None:
            found.append(f"the audit log is broken at event {broken}")
    found += [finding.text for finding in compare_all(ctx)]
    try:
        with ctx.store.read() as tx:
            found += _passes(ctx, tx)
    except SignatureInvalid as error:
        found.append(str(error))
    return found


def _passes(ctx: Context, tx: Transaction) -> list[str]:
    """Verdicts that may be proof, and that the stored scores do not give."""
    found = []
    for proposal in _proposals(tx):
        if proposal.verdict is None:
            continue
        try:
            verdict = tx.verdicts.get(proposal.verdict)
        except (NotFound, SignatureInvalid) as error:
            found.append(f"{proposal.id}: {error}")
            continue
        if isinstance(verdict, Passed):
            again = recomputation.recompute_stored(ctx, tx, verdict, proposal)
            if not again.agrees:
                found.append(f"verdict {verdict.id}: {again.text}")
    return found


def _proposals(tx: Transaction) -> Iterator[Proposal]:
    """All of them, newest first, a page at a time."""
    last: str | None = None
    while page := tx.proposals.list(after=last):
        yield from page
        last = page[-1].id


log = structlog.get_logger("swapgate.state_audit")

EVENTS_PER_PAGE: Final = 1_000
PAGES_PER_TURN: Final = 20
ROWS_PER_TURN: Final = 50
MOST_ALERTS: Final = 50


def run_once(ctx: Context) -> list[str]:
    """Compares stored rows with the audit log: alerts what disagrees, and ends the alerts of
    what agrees again. Returns the new alerts in words.
    """
    # The mark first: what is committed from here on is compared in the next turn.
    mark = ctx.store.change_mark()
    walk, etag = ctx.audit_walk, ctx.store.etag()
    walk.trouble = "the audit log is not compared to its end yet"
    with ctx.store.read() as tx:
        walk.begin(tx.installation.epoch())
        broken, whole = _read_events(tx, walk)
        is_due = walk.is_due(mark, ctx.clock.monotonic())
        if whole and broken is None and is_due:
            told = tampering.alerted_rows(tx)
            stored = _load_digests(tx, walk, etag, told | walk.unrecorded)
            findings = {finding.row: finding for finding in walk.compare(stored)}
    if broken is not None:
        walk.trouble = (
            f"the audit log does not fit its chain from event {broken} on, so that nobody "
            "knows who wrote what since. `swapgate audit verify` names the event: bring the "
            "log back from a backup, then `swapgate db accept-restore`"
        )
        if not alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log"):
            with ctx.store.write() as tx:
                integrity.update_chain_alert(ctx, tx, broken)
        return []
    if not whole:
        return []  # the rest of the log first
    walk.trouble = ""
    walk.etag = etag
    return _update_alerts(ctx, findings, told, stored) if is_due else []


def _read_events(tx: Transaction, walk: AuditProgress) -> tuple[int | None, bool]:
    """The number of the first event that does not fit the chain; whether it came to the end."""
    for _ in range(PAGES_PER_TURN):
        events = tx.audit.after(walk.log.mark.number, EVENTS_PER_PAGE)
        broken = tx.audit.break_after(walk.log.mark, events)
        if broken is not None:
            return broken, False
        walk.log.add(events)
        if len(events) < EVENTS_PER_PAGE:
            return None, True
    return None, False


def _load_digests(
    tx: Transaction, walk: AuditProgress, etag: str, alerted: Iterable[str]
) -> Mapping[str, str | None]:
    """Digests of the rows that this turn looks at."""
    found: dict[str, str | None] = dict(tx.audited.deciding())
    if etag != walk.etag:
        found |= tx.audited.serving()
    page = tx.audited.page(walk.stored, ROWS_PER_TURN)
    walk.stored = page[-1][0] if len(page) == ROWS_PER_TURN else ""
    walk.stored_rounds += not walk.stored
    found |= dict(page)
    recorded = list(islice(walk.recorded, ROWS_PER_TURN))
    if len(recorded) < ROWS_PER_TURN:
        walk.recorded = iter(list(walk.log.rows))
        walk.recorded_rounds += 1
    sought = {*recorded, *alerted, *walk.log.newest_withholding}
    return {**found, **tx.audited.digests(sought - found.keys())}


def _update_alerts(
    ctx: Context,
    findings: Mapping[str, RowFinding],
    alerted: Collection[str],
    stored: Mapping[str, str | None],
) -> list[str]:
    new = [finding for row, finding in findings.items() if row not in alerted][:MOST_ALERTS]
    over = [row for row in alerted if row in stored and row not in findings]
    if not new and not over:
        return []
    with ctx.store.write() as tx:
        for finding in new:
            log.error("state_unrecorded", row=finding.row, kind=finding.kind.value)
            alerts.raise_alert(
                ctx,
                tx,
                AlertKind.STATE_UNRECORDED,
                finding.row,
                subject=finding.row.replace(":", " ", 1),
                title=f"{finding.row.replace(':', ' ', 1)} was written around the audit log",
                text=f"{finding.text}.",
            )
        for row in over:
            alerts.resolve_alert(ctx, tx, AlertKind.STATE_UNRECORDED, row)
    return [f"alert: {finding.text}" for finding in new]


def compare_all(ctx: Context) -> list[RowFinding]:
    """Compare all rows with all events, page by page, from the log's first event on."""
    walked = RowHistory()
    found: dict[str, RowFinding] = {}
    with ctx.store.read() as tx:
        while events := tx.audit.after(walked.mark.number, EVENTS_PER_PAGE):
            if tx.audit.break_after(walked.mark, events) is not None:
                break  # what is behind it says nothing
            walked.add(events)
        after, there = "", set[str]()
        while page := tx.audited.page(after, EVENTS_PER_PAGE):
            found |= {finding.row: finding for finding in walked.compare(dict(page))}
            there.update(row for row, _ in page)
            after = page[-1][0]
    gone = dict.fromkeys(walked.rows.keys() - there)
    found |= {finding.row: finding for finding in walked.compare(gone)}
    return [found[row] for row in sorted(found)]
