"""Records of rollouts. A save is refused if another process changed the rollout since it was
loaded, so that two processes never move one rollout.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import ProofRefused, RouteBusy
from harness.frame.pagination import MOST_LISTED
from harness.frame.records.columns import at_least, index_where, one_of, unique_where
from harness.frame.records.record import record
from harness.frame.records.repository import Records, given
from harness.frame.records.signed_tables import stored_columns
from harness.frame.records.transaction import RowRefused
from harness.gate.online.rollout import LIVE_STATES, Rollout, RolloutState
from harness.providers.records import target
from harness.routing.records.proposals import _among, _stale, _unchanged, _without
from harness.routing.records.verdicts import verdict

LIVE_STATE_VALUES = tuple(state.value for state in RolloutState if state in LIVE_STATES)

ROLLOUT_REGISTERED = (
    *("id", "proposal", "route", "incumbent", "candidate", "verdict", "policy", "salt"),
    "started_at",
)

IS_BAKING = sa.text("bake_ends_at IS NOT NULL")

ROLLOUT: Final = record(
    Rollout,
    "rollout",
    one_of("state", RolloutState),
    at_least("step", 0),
    at_least("version", 1),
    unique_where("ux_rollout_live_route", _among("state", LIVE_STATE_VALUES), "route"),
    sa.Index("ix_rollout_state", "state"),
    sa.Index("ix_rollout_route", "route", "started_at"),
    sa.Index("ix_rollout_proposal", "proposal"),
    sa.Index("ix_rollout_started_at", "started_at", "id"),
    sa.Index("ix_rollout_candidate", "candidate", "started_at"),
    index_where("ix_rollout_baking", IS_BAKING, "state", "started_at", "id"),
    refers={
        "proposal": "proposal",
        "incumbent": target,
        "candidate": target,
        "verdict": verdict,
    },
    signed=True,
    free="ended_because",
)

rollout = ROLLOUT.table

IS_LIVE = rollout.c.state.in_(LIVE_STATE_VALUES)

_STORED = sa.select(*stored_columns(rollout)).order_by(rollout.c.started_at, rollout.c.id)

LIVE = _STORED.where(IS_LIVE)

BAKING = _STORED.where(
    rollout.c.state == RolloutState.PROMOTED, rollout.c.bake_ends_at.is_not(None)
)

LIVE_ON_ROUTE = sa.select(rollout.c.id).where(IS_LIVE, rollout.c.route == sa.bindparam("route"))


class Rollouts(Records[Rollout]):
    record = ROLLOUT
    order = (rollout.c.started_at.desc(), rollout.c.id.desc())
    missing = "there is no rollout {}"

    def add(self, new: Rollout) -> None:
        """Adds a rollout. Raises RouteBusy, or ProofRefused for a used verdict."""
        self._tx.serialize()
        try:
            with self._tx.attempt():
                super().add(new)
        except RowRefused as error:
            live = self._tx.read(LIVE_ON_ROUTE, {"route": new.route}).scalar()
            if live is not None and new.live:
                raise RouteBusy(
                    f"route {new.route!r} has the live rollout {live}: "
                    f"`swapgate canary abort {new.route} --reason …` ends it"
                ) from error
            if error.names("verdict_used"):
                raise ProofRefused(
                    f"verdict {new.verdict} was the proof of a rollout that has ended: propose "
                    "the candidate again, because it needs a new verdict"
                ) from error
            raise

    def save(self, changed: Rollout) -> Rollout:
        self._tx.serialize()
        saved = replace(changed, version=changed.version + 1)
        values = _without(self.record.write(saved), ROLLOUT_REGISTERED)
        if not self._tx.amend(rollout, _unchanged(rollout, changed), values):
            raise _stale("rollout", changed, self.get(changed.id))
        return saved

    def newest(self, route: str) -> Rollout | None:
        row = self._newest(rollout.c.route, route)
        return None if row is None else self._verified([row])[0]

    def live(self, *, route: str | None = None) -> Sequence[Rollout]:
        return self._stored(LIVE, route)

    def baking(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the promoted rollouts whose bake still runs."""
        return self._stored(BAKING, route)

    def _stored(self, query: sa.Select[Any], route: str | None) -> "Sequence[Rollout]":
        if route is not None:
            query = query.where(rollout.c.route == route)
        return self._believed(self._tx.read_stored(rollout, query))

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        where = (given(rollout.c.route, route), given(rollout.c.candidate, candidate))
        return self._all(self._select(*where).limit(limit))
