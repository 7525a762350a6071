"""Finds the project of what an alert or an audit event is about: by the name in its subject, or
by the row whose id that has. What is no project's is the installation's.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.operations.projects import (
    DEFAULT_PROJECT,
    find_named_project,
    project_of,
)
from harness.store.schema.drift import drift_watch
from harness.store.schema.evals import eval_run
from harness.store.schema.interventions import break_glass, freeze, switch
from harness.store.schema.operations import api_key, dashboard_session
from harness.store.schema.proposals import proposal, rollout, verdict
from harness.store.schema.routing import waiver
from harness.store.schema.shadow import shadow
from harness.store.unit_of_work import Unit

_ID: Final[sa.BindParameter[str]] = sa.bindparam("id")


def _select(table: sa.Table, column: sa.Column[Any]) -> sa.Select[Any]:
    return sa.select(column).where(table.c.id == _ID)


# By what stands before an id, what finds the route or suite that the row is of.
_OWNERS: Final[Mapping[str, sa.Select[Any]]] = {
    "proposal": _select(proposal, proposal.c.route),
    "run": _select(eval_run, eval_run.c.suite),
    "shadow": _select(shadow, shadow.c.route),
    "switch": _select(switch, switch.c.route),
    "waiver": _select(waiver, waiver.c.route),
    "drift watch": _select(drift_watch, drift_watch.c.suite),
    # An event for rows that no other event names calls them by their tables.
    **{
        table.name: _select(table, table.c.route)
        for table in (verdict, rollout, freeze, break_glass)
    },
    eval_run.name: _select(eval_run, eval_run.c.suite),
}
# These say the project itself.
_PROJECTS: Final[Mapping[str, sa.Select[Any]]] = {
    "key": _select(api_key, api_key.c.project),
    "session": sa.select(api_key.c.project)
    .join(dashboard_session, dashboard_session.c.key == api_key.c.id)
    .where(dashboard_session.c.id == _ID),
}


def find_project(unit: Unit, subject: str) -> str:
    """Finds the project; the default one for what belongs to none, to several, or is gone."""
    named = find_named_project(subject)
    if named is not None:
        return named
    kind, _, id_ = subject.rpartition(" ")
    if kind in _PROJECTS:
        return unit.read(_PROJECTS[kind], {"id": id_}).scalar() or DEFAULT_PROJECT
    if kind in _OWNERS:
        return project_of(unit.read(_OWNERS[kind], {"id": id_}).scalar() or "")
    return DEFAULT_PROJECT
