import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.app.store.store import Store
from harness.canary.operations import ProposalCanaries
from harness.frame.errors import Conflict, IllegalTransition, StaleWrite
from harness.frame.idempotency import IdempotentRequests
from harness.frame.runtime.clock import SystemRandomIds
from harness.frame.signing.audit_log import AuditLog
from harness.interfaces.api.app import build_app
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import decisions, driver
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Rollouts
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from tests.support.control.bare_installation import read_history
from tests.support.control.colours_suite import ITEMS
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.site.management_api import Door, error_of, installation
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.both_databases

PROMOTED = ["promotion", "weight", "weight", "canary", "baseline"]
ENDS = {
    "chat": ("better", ProposalPhase.PROMOTED, PROMOTED),
    "mail": ("worse", ProposalPhase.REJECTED, ["baseline"]),
    "code": ("good", ProposalPhase.PROMOTED, PROMOTED),
    "draft": ("equal", ProposalPhase.REJECTED, ["baseline"]),
}
TURNS = 400


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    clock = ManualClock()
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    made = SmallInstallation(
        tmp_path,
        store,
        clock=clock,
        chance=SystemRandomIds(),
    )
    made.set_up()
    yield made
    store.close()


@contextmanager
def stores(
    url: str,
    world: SmallInstallation,
    count: int,
) -> Iterator[list[Store]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                closing(
                    Store(
                        url,
                        secret=SECRET,
                        clock=world.clock,
                        signatures=CONTROL,
                    )
                )
            )
            for _ in range(count)
        ]


def proposals(world: SmallInstallation) -> dict[str, Proposal]:
    for route in list(ENDS)[1:]:
        world.add_route(route)
    return {
        route: world.propose(f"sim/{candidate}", route=route)
        for route, (candidate, _, _) in ENDS.items()
    }


def turning(
    world: SmallInstallation,
    store: Store,
    done: threading.Event,
) -> Callable[[], None]:
    """A control process. A conflict is for its next turn; any other failure is a fault."""

    def run() -> None:
        ctx = world.context(store)
        for _ in range(TURNS):
            if done.is_set():
                return
            for words in control_jobs.reconcile(ctx).failed:
                assert "Error" not in words, words
            world.clock.advance(0.1)

    return run


def fed_until_closed(
    world: SmallInstallation,
    ids: list[str],
    running: list[Future[None]],
) -> None:
    while any(world.get(id_).open for id_ in ids):
        world.feed()
        if any(future.done() for future in running):
            break


@pytest.mark.req("F1", "F5")
def test_of_two_control_processes_at_once_every_step_happens_once(
    world: SmallInstallation, database_url: str
) -> None:
    made = proposals(world)
    done = threading.Event()
    with (
        stores(database_url, world, 2) as opened,
        ThreadPoolExecutor(2) as processes,
    ):
        running = [processes.submit(turning(world, store, done)) for store in opened]
        fed_until_closed(world, [proposal.id for proposal in made.values()], running)
        done.set()
        for future in running:
            future.result()

    assert_each_step_once(world, made)


def assert_each_step_once(world: SmallInstallation, made: dict[str, Proposal]) -> None:
    with world.store.read() as tx:
        assert AuditLog(tx).first_break() is None
        for run in EvalRuns(tx).list():
            asked = [(s.item, s.epoch) for s in EvalRuns(tx).samples(run.id)]
            assert len(asked) == len(set(asked)) <= ITEMS
        verdicts = {
            route: len(Verdicts(tx).for_proposal(proposal.id))
            for route, proposal in made.items()
        }
        rollouts = [len(Rollouts(tx).list(route=route)) for route in made]
    ends = {
        route: (
            made[route].id and wanted[0],
            world.get(made[route].id).phase,
            [record.kind for record in read_history(world.context(), route)],
        )
        for route, wanted in ENDS.items()
    }
    assert ends == ENDS
    assert verdicts == dict.fromkeys(ENDS, 1)
    assert rollouts == [1, 0, 1, 0]


def test_an_approval_in_time_wins_over_an_expiry_that_looked_before(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    proposal = world.propose("sim/better")
    seen = world.until_decided(proposal.id)
    ctx = world.context()
    decisions.approve_proposal(ctx, BEN, proposal.id)
    world.clock.advance(8 * 86_400)

    with pytest.raises(StaleWrite):
        driver.drive_proposal(ctx, ProposalCanaries(), seen)
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.CANARY


def test_an_expiry_in_time_wins_over_an_approval(world: SmallInstallation) -> None:
    world.policy = approved()
    proposal = world.decided("sim/better")
    world.clock.advance(8 * 86_400)
    world.run_once()

    with pytest.raises(IllegalTransition):
        decisions.approve_proposal(world.context(), BEN, proposal.id)
    assert world.get(proposal.id).phase is ProposalPhase.REJECTED


def test_of_two_approvers_one_is_told_that_it_is_done(world: SmallInstallation) -> None:
    world.policy = approved()
    proposal = world.decided("sim/better")
    decisions.approve_proposal(world.context(), BEN, proposal.id)

    with pytest.raises(Conflict, match="approved already, by ben"):
        decisions.approve_proposal(world.context(), replace(BEN, name="cy"), proposal.id)


ONCE = {"idempotency-key": "monday-1"}
PROPOSAL = {
    "route": "chat",
    "candidate": "sim/good",
    "reason": "cheaper",
}
RUN = {"suite": "colours", "target": "sim/base"}


@pytest.fixture
def other(
    world: SmallInstallation,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Door]:
    store = Store(
        database_url,
        secret=SECRET,
        clock=world.clock,
        signatures=CONTROL,
    )
    second = SmallInstallation(
        tmp_path,
        store,
        clock=world.clock,
        chance=world.chance,
    )
    with closing(store):
        door = copy.copy(Door(world))
        door.app = build_app(installation(second))
        yield door


def actions(ctx: Context, action: str) -> int:
    with ctx.store.read() as tx:
        return [event.action for event in AuditLog(tx).all()].count(action)


@pytest.mark.req("A7")
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
    made = first.send(
        "POST",
        path,
        json=body,
        headers=ONCE,
    )
    again = other.send(
        "POST",
        path,
        json=body,
        headers=ONCE,
    )

    assert (again.status_code, again.content) == (201, made.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in made.headers
    refused = other.send(
        "POST",
        path,
        json={**body, field: "sim/other"},
        headers=ONCE,
    )
    assert "another body" in error_of(refused, 422)["message"]
    assert actions(world.context(), action) == 1
    lesser = other.send(
        "POST",
        path,
        json=body,
        headers=ONCE,
        role="viewer",
    )
    assert lesser.status_code == httpx.codes.FORBIDDEN


@pytest.mark.req("A7")
@pytest.mark.parametrize(
    ("path", "body", "action"),
    [
        ("/proposals", PROPOSAL, "proposal.create"),
        ("/evals", RUN, "eval.run"),
    ],
)
def test_of_many_at_once_one_acts_and_all_get_its_answer(
    world: SmallInstallation,
    other: Door,
    path: str,
    body: dict[str, Any],
    action: str,
) -> None:
    other.get("/routes")  # one thread alone makes the schemas of the app
    begun = threading.Barrier(4)

    def send(_: int) -> str:
        begun.wait()
        answer = other.send(
            "POST",
            path,
            json=body,
            headers=ONCE,
        )
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(send, range(4)))) == 1
    assert actions(world.context(), action) == 1


@pytest.mark.req("A7")
def test_what_was_refused_is_not_kept_and_may_be_sent_again(
    world: SmallInstallation, other: Door
) -> None:
    open_now = world.propose("sim/good")
    refused = other.send(
        "POST",
        "/proposals",
        json=PROPOSAL,
        headers=ONCE,
    )
    assert error_of(refused, 409)["type"] == "RouteBusy"

    other.post(f"/proposals/{open_now.id}/cancel", {})
    again = other.send(
        "POST",
        "/proposals",
        json=PROPOSAL,
        headers=ONCE,
    )
    assert again.status_code == httpx.codes.CREATED
    assert "idempotent-replayed" not in again.headers


@pytest.mark.req("A7")
def test_a_day_later_it_is_a_new_request_and_the_old_one_is_deleted(
    world: SmallInstallation, other: Door
) -> None:
    ctx = world.context()
    first = other.send(
        "POST",
        "/evals",
        json=RUN,
        headers=ONCE,
    ).json()["id"]
    world.clock.advance(timedelta(hours=23).total_seconds())
    other.send(
        "POST",
        "/evals",
        json=RUN,
        headers={"idempotency-key": "tuesday-1"},
    )
    assert (
        other.send(
            "POST",
            "/evals",
            json=RUN,
            headers=ONCE,
        ).json()["id"]
        == first
    )
    world.clock.advance(timedelta(hours=1).total_seconds())
    second = other.send(
        "POST",
        "/evals",
        json=RUN,
        headers=ONCE,
    )
    assert second.json()["id"] != first
    assert "idempotent-replayed" not in second.headers

    world.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    control_jobs.purge_expired(
        ctx,
        alerts_days=1,
        exposures_days=1,
        failovers_days=1,
        traffic_days=400,
    )
    with ctx.store.write() as tx:
        assert IdempotentRequests(tx).forget(ctx.clock.now()) == 0
