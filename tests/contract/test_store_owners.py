"""Alerts and audit events are read by the people of the project that their subject is of, or
who acted; also those from before a database knew.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.operations.alerts import Alert, AlertEvent, AlertKind
from harness.domain.operations.principals import Principal, PrincipalKind
from harness.store.sql import SqlStore
from tests.contract.conftest import open_store
from tests.contract.test_store_shadows import SHADOW
from tests.support.store.records import KEY, NEW, NOW, OLD

pytestmark = [pytest.mark.both_databases, pytest.mark.req("G3")]

CLIENT = replace(KEY, project="payments", routes=frozenset())
PAT = Principal("pr_pat", PrincipalKind.PERSON, "pat", NOW)
PATS_KEY = replace(
    CLIENT, id="k_pat", hash="c" * 64, name="pat", role=Role.ADMIN, principal=PAT.id
)
ACTS = Actor("pat", Role.ADMIN, PAT.id, PATS_KEY.id, "payments")
OURS = ("route payments::chat", "payments::chat", "key k_1", "shadow sh_1", "suite payments::s")
OTHERS = (
    *("route chat", "route search::chat", "all routes", "key k_9", "shadow sh_9", "spending"),
    *("routes payments::chat, search::chat, suite colours", "payments::chat and more"),
)
OF_ALERTS = (
    "route payments::chat, suite colours",
    "routes payments::chat, payments::mail, suite colours",
    "captures of payments::chat",
    "key k_1",
)


def alert(subject: str) -> Alert:
    kind = AlertKind.DRIFT
    return Alert(kind, subject, f"{kind}:{subject}", subject, "words", NOW, "control")


def furnish(store: SqlStore) -> None:
    with store.write() as tx:
        for target in (OLD, NEW):
            tx.routing.add_target(target)
        tx.principals.add(PAT)
        for key in (CLIENT, PATS_KEY):
            tx.keys.add(key)
        tx.shadows.add(replace(SHADOW, route="payments::chat"))
        for subject in (*OURS, *OTHERS):
            tx.audit.append(at=NOW, actor=SYSTEM, action="a.test", subject=subject, details={})
        tx.audit.append(at=NOW, actor=ACTS, action="a.test", subject="by pat", details={})
        tx.alerts.fold(map(alert, (*OF_ALERTS, *OTHERS)))


def events(store: SqlStore, project: str) -> Sequence[str]:
    with store.listings(project) as stored:
        return [event.subject for event in stored.events() if event.action == "a.test"]


def alerts(store: SqlStore, project: str) -> set[str]:
    with store.listings(project) as stored:
        return {record.subject for record in stored.alerts()}


def check(store: SqlStore) -> None:
    assert events(store, "payments") == ["by pat", *reversed(OURS)]
    assert alerts(store, "payments") == set(OF_ALERTS)
    assert events(store, "search") == ["route search::chat"]
    assert alerts(store, "search") == {"route search::chat"}
    assert events(store, "another") == []
    assert set(events(store, "default")) == {*OURS, *OTHERS, "by pat"}
    assert alerts(store, "default") == {*OF_ALERTS, *OTHERS}


def test_they_are_read_by_the_project_of_their_subject_or_actor(database_url: str) -> None:
    with closing(open_store(database_url)) as store:
        furnish(store)
        check(store)
        with store.write() as tx:
            ended = alert(OF_ALERTS[0]).now(AlertEvent.ENDED, NOW)
            tx.alerts.fold([ended])
        check(store)
