"""Reads and writes what Swapgate itself spends: the cap, each month's sums, and the holds of
calls under way (`SqlSpending`). Every change waits for the one before, so that all processes
together never hold more than the cap leaves. What a project spent is summed from the rows that
name its suites and routes, and those that its proposals asked for: the sums that keep the cap
name none.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.canary.guardrails import Guardrail, JudgeTally, tallies_from_json
from harness.domain.evals.run import SampleError
from harness.domain.evals.verdict import InfraError
from harness.domain.operations.spending import (
    HOLD_LASTS,
    MonthSpending,
    PurposeSpending,
    SpendingHold,
    SpendingPurpose,
    fill_purposes,
    next_month,
)
from harness.domain.shadow.shadow import COST_USD, MIRRORED, UNPRICED
from harness.store.schema.drift import drift_check
from harness.store.schema.evals import eval_run, sample
from harness.store.schema.observations import block
from harness.store.schema.proposals import LIVE_STATE_VALUES, proposal, rollout, verdict
from harness.store.schema.shadow import shadow, shadow_tally, tally_from_row
from harness.store.schema.spending import (
    THE_CAP,
    hold_to_row,
    purpose_from_row,
    spending_cap,
    spending_hold,
    spending_month,
)
from harness.store.sql.json_rows import json_rows, look_up
from harness.store.sql.pages import owned_by
from harness.store.unit_of_work import Unit

CAP: Final = sa.select(spending_cap.c.cap_usd).where(spending_cap.c.id == THE_CAP)
_SERIAL: Final = "spending"
_AT: Final = eval_run.c.created_at.type
_JUDGED: Final = sa.case((sample.c.judge_cost_usd.is_(None), sample.c.judge_calls), else_=0)
_IS_DRIFT: Final = drift_check.c.run.is_not(None)


def _run_costs(runs: sa.FromClause, sign: int = 1) -> sa.Select[Any]:
    """What the answers of a month's runs cost, and their judges: of evals, and of drift
    checks. sign: -1 for what was counted twice.
    """
    sums = {
        "answers": sa.func.count(),
        "answers_usd": sa.func.coalesce(sa.func.sum(sample.c.cost_usd), 0.0),
        "unpriced": sa.func.sum(sa.case((sample.c.cost_usd.is_(None), 1), else_=0)),
        "judge_calls": sa.func.sum(sample.c.judge_calls),
        "judges_usd": sa.func.coalesce(sa.func.sum(sample.c.judge_cost_usd), 0.0),
        "judges_unpriced": sa.func.sum(_JUDGED),
    }
    return (
        sa.select(
            _IS_DRIFT.label("is_drift"),
            *((figure if sign > 0 else -figure).label(name) for name, figure in sums.items()),
        )
        .select_from(
            runs.join(sample, sample.c.run == eval_run.c.id).outerjoin(
                drift_check, drift_check.c.run == eval_run.c.id
            )
        )
        .where(
            eval_run.c.created_at >= sa.bindparam("begin", type_=_AT),
            eval_run.c.created_at < sa.bindparam("end", type_=_AT),
        )
        .group_by(_IS_DRIFT)
    )


RUN_COSTS: Final = _run_costs(eval_run)


@cache
def costs_of_asked_runs(dialect: str) -> sa.Select[Any]:
    """The same of those runs that `asked` has as JSON, if they are not older than `since`."""
    asked = json_rows("asked", {"run": sa.Text(), "since": sa.BigInteger()}, dialect)
    runs = look_up(asked, eval_run, eval_run.c.id == asked.c.run)
    begun = sa.type_coerce(eval_run.c.created_at, sa.BigInteger)
    return _run_costs(runs).where(begun >= asked.c.since)


def costs_of_copies(dialect: str, own: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """What to take off for the answers that retries took over: `asked` has their runs as JSON,
    since when each was asked for, and which one it replaced. own: of the project's runs.
    """
    asked = json_rows(
        "asked", {"run": sa.Text(), "since": sa.BigInteger(), "replaced": sa.Text()}, dialect
    )
    first = sample.alias("first")
    runs = look_up(asked, eval_run, eval_run.c.id == asked.c.run)
    is_copy = sa.exists().where(
        first.c.run == asked.c.replaced,
        first.c.item == sample.c.item,
        first.c.epoch == sample.c.epoch,
        # No two answers take as long to the last digit; a failure was asked for again.
        first.c.duration_s == sample.c.duration_s,
        first.c.error.is_distinct_from(SampleError.INFRA.value),
    )
    begun = sa.type_coerce(eval_run.c.created_at, sa.BigInteger)
    return _run_costs(runs, -1).where(is_copy, sa.or_(own, begun >= asked.c.since))


# Whose runs, or judges, of this month may be: what a proposal asks for, it stores.
_OF_ROUTES: Final[sa.BindParameter[Any]] = sa.bindparam("routes", expanding=True)
ASKED_RUNS: Final = sa.select(
    sa.type_coerce(proposal.c.created_at, sa.BigInteger).label("since"),
    proposal.c.id,
    proposal.c.runs,
).where(
    proposal.c.route.in_(_OF_ROUTES), proposal.c.updated_at >= sa.bindparam("begin", type_=_AT)
)
# And what they had asked for before: a retry has new runs, with copies of what was answered,
# and the verdict on those that it replaced says that nothing was measured.
ASKED_BEFORE: Final = (
    sa.select(verdict.c.proposal, verdict.c.inputs)
    .select_from(proposal.join(verdict, verdict.c.proposal == proposal.c.id))
    .where(
        proposal.c.route.in_(_OF_ROUTES),
        proposal.c.updated_at >= sa.bindparam("begin", type_=_AT),
        proposal.c.infra_errors > 0,
        verdict.c.outcome == InfraError.outcome,
    )
    .order_by(verdict.c.decided_at, verdict.c.id)
)
# Of the blocks that a judge read in; most have none, and would take long to decode.
CANARY_JUDGES: Final = (
    sa.select(block.c.counts)
    .select_from(rollout.join(block, block.c.rollout == rollout.c.id))
    .where(
        rollout.c.route.in_(_OF_ROUTES),
        sa.or_(
            rollout.c.updated_at >= sa.bindparam("begin", type_=_AT),
            rollout.c.state.in_(LIVE_STATE_VALUES),
        ),
        block.c.closed_at >= sa.bindparam("begin", type_=_AT),
        block.c.closed_at < sa.bindparam("end", type_=_AT),
        sa.type_coerce(block.c.counts, sa.Text).contains('"no_verdict"'),
    )
)
_DAY: Final = shadow_tally.c.day.type
MIRROR_COSTS: Final = (
    sa.select(shadow_tally)
    .select_from(shadow.join(shadow_tally, shadow_tally.c.shadow == shadow.c.id))
    .where(
        shadow.c.route.in_(sa.bindparam("routes", expanding=True)),
        shadow_tally.c.day >= sa.bindparam("first_day", type_=_DAY),
        shadow_tally.c.day < sa.bindparam("next_day", type_=_DAY),
    )
)


class _Books:
    """The statements on one table of sums and one of holds."""

    def __init__(self, month: sa.Table, hold: sa.Table) -> None:
        self.month_table, self.hold_table = month, hold
        of_day = sa.bindparam("of", type_=month.c.first_day.type)
        self.month = sa.select(month).where(month.c.first_day == of_day)
        self.held = sa.select(sa.func.coalesce(sa.func.sum(hold.c.held_usd), 0.0)).where(
            hold.c.first_day == of_day
        )
        self.lapsed = sa.select(hold).where(
            hold.c.lapses_at <= sa.bindparam("now", type_=hold.c.lapses_at.type)
        )
        is_hold = hold.c.id == sa.bindparam("of")
        self.one_hold = sa.select(hold.c.held_usd).where(is_hold)
        self.change_hold = (
            sa.update(hold)
            .where(is_hold)
            .values(
                held_usd=sa.bindparam("left_usd"),
                lapses_at=sa.bindparam("until", type_=hold.c.lapses_at.type),
            )
        )
        self.end_hold = sa.delete(hold).where(is_hold)
        is_month = sa.and_(
            month.c.first_day == sa.bindparam("of_month", type_=month.c.first_day.type),
            month.c.purpose == sa.bindparam("of_purpose"),
        )
        self.add_spent = (
            sa.update(month)
            .where(is_month)
            .values(
                spent_usd=month.c.spent_usd + sa.bindparam("more_usd"),
                calls=month.c.calls + sa.bindparam("more_calls"),
                unpriced=month.c.unpriced + sa.bindparam("more_unpriced"),
            )
        )
        self.note_refused = (
            sa.update(month)
            .where(is_month)
            .values(
                refused_usd=sa.bindparam("usd"),
                refused_at=sa.bindparam("at", type_=month.c.refused_at.type),
            )
        )


_BOOKS: Final = _Books(spending_month, spending_hold)


class SqlSpending:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def cap_usd(self) -> float | None:
        return self._unit.read(CAP).scalar()

    def set_cap(self, usd: float | None, now: datetime) -> bool:
        self._unit.serialize_by(_SERIAL)
        row = {"id": THE_CAP, "cap_usd": usd, "set_at": now}
        known = self._unit.read(CAP).first()
        if known is None:
            # No row and no cap say the same.
            return self._unit.write_new(spending_cap, row) and usd is not None
        if known.cap_usd == usd:
            return False
        self._unit.write(sa.update(spending_cap).values(cap_usd=usd, set_at=now))
        return True

    def month(self, month: date) -> MonthSpending:
        rows = self._unit.read(_BOOKS.month, {"of": month})
        return MonthSpending(
            month=month,
            cap_usd=self.cap_usd(),
            held_usd=self._unit.read(_BOOKS.held, {"of": month}).scalar_one(),
            purposes=fill_purposes([purpose_from_row(row) for row in rows]),
        )

    def of_project(
        self, project: str, month: date, routes: Collection[str]
    ) -> tuple[PurposeSpending, ...]:
        begin, end = (datetime.combine(day, time(), UTC) for day in (month, next_month(month)))
        window = {"begin": begin, "end": end}
        rows = self._costs_of_runs(project, sorted(routes), window)
        answers = {
            purpose: PurposeSpending(
                purpose,
                math.fsum(row.answers_usd for row in rows if row.is_drift == is_drift),
                sum(row.answers for row in rows if row.is_drift == is_drift),
                sum(row.unpriced for row in rows if row.is_drift == is_drift),
            )
            for purpose, is_drift in (
                (SpendingPurpose.EVALS, False),
                (SpendingPurpose.DRIFT, True),
            )
        }
        of_canaries = self._canary_judges(sorted(routes), window)
        judges = PurposeSpending(
            SpendingPurpose.JUDGES,
            math.fsum(
                (
                    *(row.judges_usd for row in rows),
                    *(tally.cost_usd for tally in of_canaries),
                )
            ),
            sum(row.judge_calls for row in rows) + sum(tally.units for tally in of_canaries),
            sum(row.judges_unpriced for row in rows),
        )
        days = {"routes": sorted(routes), "first_day": month, "next_day": next_month(month)}
        tallies = [tally_from_row(row) for row in self._unit.read(MIRROR_COSTS, days)]
        mirrored = PurposeSpending(
            SpendingPurpose.SHADOW,
            math.fsum(tally.sums.get(COST_USD, 0.0) for tally in tallies),
            sum(tally.counts.get(MIRRORED, 0) for tally in tallies),
            sum(tally.counts.get(UNPRICED, 0) for tally in tallies),
        )
        # Agents run in the default project alone.
        return (
            answers[SpendingPurpose.EVALS],
            judges,
            mirrored,
            answers[SpendingPurpose.DRIFT],
        )

    def _costs_of_runs(
        self, project: str, routes: Sequence[str], window: Mapping[str, datetime]
    ) -> list[sa.Row[Any]]:
        """Of the runs of the project's suites, and of the others that its proposals asked for:
        a run from before a proposal was found, and not asked for. An answer that a retry took
        over counts once, where it was asked for.
        """
        own = owned_by(eval_run, project)
        of_runs = RUN_COSTS if own is None else RUN_COSTS.where(own)
        rows = list(self._unit.read(of_runs, window))
        if own is None:
            return rows
        asked_for = {"routes": routes, **window}
        before: dict[str, list[Mapping[str, Mapping[str, str]]]] = {}
        for row in self._unit.read(ASKED_BEFORE, asked_for):
            before.setdefault(row.proposal, []).append(row.inputs.get("runs", {}))
        since: dict[str, int] = {}
        replaced: dict[str, str] = {}
        for asker in self._unit.read(ASKED_RUNS, asked_for):
            last: dict[tuple[str, str], str] = {}
            for runs in (*before.get(asker.id, ()), asker.runs):
                for suite, pair in runs.items():
                    for arm, run in pair.items():
                        since[run] = min(asker.since, since.get(run, asker.since))
                        if (known := last.setdefault((suite, arm), run)) != run:
                            replaced[run] = known
                        last[suite, arm] = run
        asked = [{"run": run, "since": earliest} for run, earliest in since.items()]
        shared = costs_of_asked_runs(self._unit.dialect).where(~own)
        rows += self._unit.read(shared, {"asked": json.dumps(asked), **window})
        if not replaced:
            return rows
        again = [
            {"run": run, "since": since[run], "replaced": first}
            for run, first in replaced.items()
        ]
        copies = costs_of_copies(self._unit.dialect, own)
        return rows + list(self._unit.read(copies, {"asked": json.dumps(again), **window}))

    def _canary_judges(
        self, routes: Sequence[str], window: Mapping[str, datetime]
    ) -> list[JudgeTally]:
        """What the judges of canaries on these routes counted and cost."""
        stored = self._unit.read(CANARY_JUDGES, {"routes": routes, **window}).scalars()
        tallies = (tallies_from_json(counts).get(Guardrail.JUDGE) for counts in stored)
        return [tally for tally in tallies if isinstance(tally, JudgeTally)]

    def hold(self, hold: SpendingHold, usd: float, now: datetime) -> bool:
        """Adds to a hold, which begins with that, unless the cap leaves too little."""
        self._unit.serialize_by(_SERIAL)
        self.lapse(now)
        where = {"of_month": hold.month, "of_purpose": hold.purpose.value}
        stored = self.month(hold.month)
        if not (math.isfinite(usd) and stored.fits(usd)):
            self._add(hold.month, hold.purpose, 0.0)
            self._unit.write(_BOOKS.note_refused, {**where, "usd": min(usd, 1e12), "at": now})
            return False
        if any(row.refused_at for row in stored.purposes if row.purpose is hold.purpose):
            self._unit.write(_BOOKS.note_refused, {**where, "usd": None, "at": None})
        until = now + HOLD_LASTS
        before = self._unit.read(_BOOKS.one_hold, {"of": hold.id}).scalar()
        if before is None:
            new = {**hold_to_row(hold), "held_usd": usd, "lapses_at": until}
            self._unit.write(sa.insert(_BOOKS.hold_table), new)
        else:
            more = {"of": hold.id, "left_usd": before + usd, "until": until}
            self._unit.write(_BOOKS.change_hold, more)
        return True

    def settle(
        self,
        hold: SpendingHold,
        *,
        left_usd: float,
        spent_usd: float,
        now: datetime,
        calls: int = 0,
        unpriced: int = 0,
    ) -> bool:
        self._unit.serialize_by(_SERIAL)
        self.lapse(now)
        until = now + HOLD_LASTS
        new = {"of": hold.id, "left_usd": left_usd, "until": until}
        changed = self._unit.write(_BOOKS.change_hold, new)
        if not changed:
            return False
        if calls or spent_usd:
            self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)
        return True

    def end(self, hold: SpendingHold) -> None:
        self._unit.serialize_by(_SERIAL)
        self._unit.write(_BOOKS.end_hold, {"of": hold.id})

    def add(self, hold: SpendingHold, spent_usd: float, *, calls: int, unpriced: int) -> None:
        self._unit.serialize_by(_SERIAL)
        self._add(hold.month, hold.purpose, spent_usd, calls=calls, unpriced=unpriced)

    def has_lapsed(self, now: datetime) -> bool:
        return self._unit.read(_BOOKS.lapsed.limit(1), {"now": now}).first() is not None

    def lapse(self, now: datetime) -> int:
        self._unit.serialize_by(_SERIAL)
        lapsed = self._unit.read(_BOOKS.lapsed, {"now": now}).all()
        for row in lapsed:
            self._add(row.first_day, SpendingPurpose(row.purpose), row.held_usd)
            self._unit.write(_BOOKS.end_hold, {"of": row.id})
        return len(lapsed)

    def _add(
        self,
        month: date,
        purpose: SpendingPurpose,
        spent_usd: float,
        *,
        calls: int = 0,
        unpriced: int = 0,
    ) -> None:
        values = {
            "first_day": month,
            "purpose": purpose.value,
            "spent_usd": spent_usd,
            "calls": calls,
            "unpriced": unpriced,
            "refused_usd": None,
            "refused_at": None,
        }
        if self._unit.write_new(_BOOKS.month_table, values):
            return
        where = {"of_month": month, "of_purpose": purpose.value}
        more = {"more_usd": spent_usd, "more_calls": calls, "more_unpriced": unpriced}
        self._unit.write(_BOOKS.add_spent, {**where, **more})
