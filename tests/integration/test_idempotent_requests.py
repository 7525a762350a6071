"""A request with an `Idempotency-Key` takes effect once, whichever control process it is sent
to.
"""

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.api.app import build_app
from harness.control.context import Context
from harness.control.privacy import housekeeping
from harness.store.store import Store
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.site.management_api import Door, error_of, installation
from tests.support.site.signing_keys import CONTROL

pytestmark = [pytest.mark.both_databases, pytest.mark.req("A7")]
ONCE = {"idempotency-key": "monday-1"}
PROPOSAL = {"route": "chat", "candidate": "sim/good", "reason": "cheaper"}
RUN = {"suite": "colours", "target": "sim/base"}


@pytest.fixture
def other(world: SmallInstallation, database_url: str, tmp_path: Path) -> Iterator[Door]:
    store = Store(database_url, secret=SECRET, clock=world.clock, signatures=CONTROL)
    second = SmallInstallation(tmp_path, store, clock=world.clock, chance=world.chance)
    with closing(store):
        door = copy.copy(Door(world))
        door.app = build_app(installation(second))
        yield door


def actions(ctx: Context, action: str) -> int:
    with ctx.store.read() as tx:
        return [event.action for event in tx.audit.all()].count(action)


@pytest.mark.parametrize(
    ("path", "body", "field", "action"),
    [
        ("/proposals", PROPOSAL, "reason", "proposal.create"),
        ("/evals", RUN, "target", "eval.run"),
    ],
)
def test_sent_to_another_control_process_it_has_one_effect_and_gets_the_same_answer(
    world: SmallInstallation,
    other: Door,
    path: str,
    body: dict[str, Any],
    field: str,
    action: str,
) -> None:
    first = copy.copy(other)
    first.app = build_app(installation(world))
    made = first.send("POST", path, json=body, headers=ONCE)
    again = other.send("POST", path, json=body, headers=ONCE)

    assert (again.status_code, again.content) == (201, made.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in made.headers
    refused = other.send("POST", path, json={**body, field: "sim/other"}, headers=ONCE)
    assert "another body" in error_of(refused, 422)["message"]
    assert actions(world.context(), action) == 1
    lesser = other.send("POST", path, json=body, headers=ONCE, role="viewer")
    assert lesser.status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize(
    ("path", "body", "action"),
    [("/proposals", PROPOSAL, "proposal.create"), ("/evals", RUN, "eval.run")],
)
def test_of_many_at_once_one_acts_and_all_get_its_answer(
    world: SmallInstallation, other: Door, path: str, body: dict[str, Any], action: str
) -> None:
    other.get("/routes")  # one thread alone makes the schemas of the app
    begun = threading.Barrier(4)

    def send(_: int) -> str:
        begun.wait()
        answer = other.send("POST", path, json=body, headers=ONCE)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(send, range(4)))) == 1
    assert actions(world.context(), action) == 1


def test_what_was_refused_is_not_kept_and_may_be_sent_again(
    world: SmallInstallation, other: Door
) -> None:
    open_now = world.propose("sim/good")
    refused = other.send("POST", "/proposals", json=PROPOSAL, headers=ONCE)
    assert error_of(refused, 409)["type"] == "RouteBusy"

    other.post(f"/proposals/{open_now.id}/cancel", {})
    again = other.send("POST", "/proposals", json=PROPOSAL, headers=ONCE)
    assert again.status_code == httpx.codes.CREATED
    assert "idempotent-replayed" not in again.headers


def test_a_day_later_it_is_a_new_request_and_the_old_one_is_deleted(
    world: SmallInstallation, other: Door
) -> None:
    ctx = world.context()
    first = other.send("POST", "/evals", json=RUN, headers=ONCE).json()["id"]
    world.clock.advance(timedelta(hours=23).total_seconds())
    other.send("POST", "/evals", json=RUN, headers={"idempotency-key": "tuesday-1"})
    assert other.send("POST", "/evals", json=RUN, headers=ONCE).json()["id"] == first
    world.clock.advance(timedelta(hours=1).total_seconds())
    second = other.send("POST", "/evals", json=RUN, headers=ONCE)
    assert second.json()["id"] != first
    assert "idempotent-replayed" not in second.headers

    world.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    housekeeping.purge_expired(ctx, alerts_days=1, failovers_days=1, traffic_days=400)
    with ctx.store.write() as tx:
        assert tx.idempotent_requests.forget(ctx.clock.now()) == 0
