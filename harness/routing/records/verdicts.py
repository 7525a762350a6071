"""Records of verdicts.

Swapproof writes a signed verdict once, and never changes it. The outcome column determines
which of the five classes a reader gets. `harness.gate.offline.verdicts` decides verdicts, and
`harness.evals.proof_validity` checks whether a stored verdict still counts.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, cast

import sqlalchemy as sa

from harness.frame.errors import Conflict
from harness.frame.pagination import MOST_LISTED
from harness.frame.records.columns import Row, Values, one_of, text
from harness.frame.records.record import record, record_of, values_of
from harness.frame.records.repository import Records, given, row_key
from harness.gate.verdict import VERDICTS, BaseVerdict, SuiteReport, Verdict
from harness.providers.records import target


def _read_verdict(row: Row) -> Verdict:
    return record_of(VERDICTS[row.outcome], row, verdict)


# Append-only (trigger).
VERDICT: Final = record(
    cast("type[Verdict]", BaseVerdict),
    "verdict",
    text("proposal"),
    text("outcome"),
    one_of("outcome", VERDICTS),
    # The foreign keys of evidence and route_version refer to the whole proof.
    sa.UniqueConstraint(
        "id",
        "route",
        "incumbent",
        "candidate",
        "outcome",
        name="uq_verdict_proof",
    ),
    sa.Index("ix_verdict_proposal", "proposal"),
    sa.Index("ix_verdict_decided_at", "decided_at", "id"),
    sa.Index("ix_verdict_route", "route", "decided_at"),
    refers={
        "proposal": "proposal",
        "incumbent": target,
        "candidate": target,
    },
    signed=True,
    without="words",
    read=_read_verdict,
)

verdict = VERDICT.table


def verdict_to_row(verdict_: Verdict, proposal: str) -> Values:
    """Returns the columns of a verdict.

    Args:
        proposal: the id of the proposal that it decides.
    """
    suites = [_report_values(report) for report in verdict_.suites]
    return values_of(
        verdict_,
        verdict,
        proposal=proposal,
        outcome=verdict_.outcome,
        suites=suites,
    )


def _report_values(report: SuiteReport) -> Values:
    """Writes infinite evidence as text, because JSON has no infinity."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(report).items()
    }


class Verdicts(Records[Verdict]):
    record = VERDICT
    order = (verdict.c.decided_at.desc(), verdict.c.id.desc())
    missing = "there is no verdict {}"

    def store(self, new: Verdict, proposal_: str) -> None:
        """Stores a verdict. Raises Conflict if it is stored already."""
        self._tx.serialize()
        if self._is_stored(new.id):
            raise Conflict(f"verdict {new.id} is stored already: verdicts never change")
        self._tx.insert(verdict, verdict_to_row(new, proposal_))

    def get(self, id_: str) -> Verdict:
        """Loads and verifies a verdict. Raises NotFound, SignatureInvalid."""
        return self._verified([self._row(id_)])[0]

    def _row(self, id_: str) -> Row:
        def read() -> Row | None:
            return self._tx.read(self._select(self._is(id_))).first()

        row = self._tx.once(row_key(verdict, id_), read)
        if row is None:
            raise self._missing(id_)
        return row

    def newest(self, route: str) -> Verdict | None:
        """Returns the route's newest verdict, of any proposal; None without one."""
        row = self._newest(verdict.c.route, route)
        if row is None:
            return None
        self._tx.keep(row_key(verdict, row.id), row)
        return self._verified([row])[0]

    def for_proposal(self, proposal_: str) -> Sequence[Verdict]:
        """Lists a proposal's verdicts, newest first. Each repeated measurement gives a
        verdict.
        """
        return self._all(self._select(verdict.c.proposal == proposal_))

    def proposal_of(self, verdict_: str) -> str:
        """Returns the id of a verdict's proposal. Raises NotFound."""
        return str(self._row(verdict_).proposal)

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        return self._all(self._select(given(verdict.c.route, route)).limit(limit))
