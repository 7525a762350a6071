from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa

from evals.sim import faults, server
from evals.sim.simulator import Simulator
from harness.app.store.store import Store
from harness.canary import shadows
from harness.frame.people.access import SYSTEM, OptOut
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.clock import SystemClock
from harness.operations import captures, keys
from harness.operations.records import CAPTURED, Captures, captured
from harness.providers.models.capabilities import Capabilities
from harness.providers.records import Providers
from harness.routing.capture import CapturedRequest
from harness.routing.route_settings import RouteSettings
from harness.routing.shadow_pair import CANDIDATE, CandidateOutcome
from tests.integration.test_router_shadow import ADA, KIM, NEW, OLD, Scene, change, scene
from tests.support.control.manual_clock import ManualClock
from tests.support.providers import simulator_thread
from tests.support.router.live_router import QUICK, SECRET, wait_until
from tests.support.router.router_process import ROUTE, ask, eventually, routed
from tests.support.router.simulated_router import OWN, SPARE
from tests.support.site.processes import kill_nine
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F8", "F9")

# One request of ten thousand is sampled, but each caller's first mirrored request is stored.
KEEPS = RouteSettings(data_class="personal", capture_bps=1)
MAIL = "kim@example.org"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return server.simulator(time_scale=0.0)


@contextmanager
def keeping(
    database_url: str,
    sim: Simulator,
    sim_url: str,
    folder: Path,
    settings: Any = QUICK,
) -> Iterator[Scene]:
    """A route that keeps captures, with a shadow of all its callers."""
    with scene(database_url, sim, sim_url, folder, settings) as at:
        change(at, KEEPS)
        at.start()
        yield at


def stored(at: Scene) -> Sequence[CapturedRequest]:
    """All pairs, with those whose answer is pending, in their order."""
    with at.ctx.store.read() as tx:
        return load(tx)


def load(tx: Transaction) -> Sequence[CapturedRequest]:
    query = sa.select(captured).where(captured.c.shadow.is_not(None))
    rows = tx.read(query.order_by(captured.c.at, captured.c.id))
    return [CAPTURED.read(row) for row in rows]


def outcomes(at: Scene) -> Sequence[CandidateOutcome]:
    return [pair.candidate.outcome for pair in stored(at) if pair.candidate]


def have_ended(at: Scene, number: int) -> bool:
    found = outcomes(at)
    return len(found) == number and CandidateOutcome.PENDING not in found


@pytest.mark.spine
def test_each_callers_first_pair_is_stored_redacted_with_both_answers(
    database_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(database_url, sim, sim_url, tmp_path) as at:
        said = [{"role": "user", "content": f"I am {MAIL}, and who are you?"}]
        told = at.ask(0, messages=said)
        at.ask(1, stream=True)
        at.ask(0)  # a caller counts once
        wait_until(lambda: have_ended(at, 2))
        status = at.status(lambda s: s.pairs == 3)

        first, second = stored(at)
        assert first.candidate
        assert second.candidate
        assert (first.target, first.candidate.target) == (OLD.name, NEW.name)
        assert (first.data_class, first.outcome) == ("personal", "ok")
        assert first.redactions["email"] >= 1
        assert MAIL not in str(first.content)
        assert "[EMAIL_1]" in first.content["messages"][0]["content"]
        assert first.content["answer"]["content"] in told
        assert first.content[CANDIDATE]["role"] == "assistant"
        assert first.content[CANDIDATE]["finish_reason"]
        assert second.content["answer"].keys() == second.content[CANDIDATE].keys()
        assert first.candidate.outcome is CandidateOutcome.ANSWERED
        assert first.candidate.cost_usd
        assert first.candidate.output_tokens > 0
        assert first.shadow == status.shadow.id
        assert first.caller != second.caller
        assert status.not_stored == {}
        # No sample has them: neither a suite nor an export mixes them with captures.
        with at.ctx.store.read() as tx:
            assert Captures(tx).list() == []


def test_requests_with_function_tools_are_mirrored_and_stored_with_the_calls(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        at.ask(0, tools=[WEATHER], tool_choice="required")
        wait_until(lambda: have_ended(at, 1))
        (pair,) = stored(at)
        assert pair.content["tools"] == [WEATHER]
        for side in ("answer", CANDIDATE):
            (call,) = pair.content[side]["tool_calls"]
            assert call["function"]["name"] == "weather"
        status = at.status(lambda s: s.pairs == 1)
        assert {check.check: check.both for check in status.checks}["tools"] == 1

        at.ask(1, tools=[WEATHER], extra_body={"web_search_options": {}})
        assert at.status(lambda s: s.left_out).left_out == {"not_repeatable": 1}
        assert len(stored(at)) == 1


@pytest.mark.parametrize(
    "refusal",
    [{"extra_headers": {"x-swapproof-capture": "off"}}, {"store": False}, {}],
    ids=["header", "body", "key"],
)
def test_a_client_that_forbids_captures_is_mirrored_and_counted_but_not_stored(
    refusal: Mapping[str, Any],
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        if not refusal:
            keys.set_opt_outs(at.ctx, SYSTEM, "k", [OptOut.CAPTURE])
            at.settled()
        at.ask(0, **refusal)
        status = at.status(lambda s: s.pairs == 1)
        assert status.not_stored == {"unstored_client": 1}
        assert status.left_out == {}
        assert stored(at) == []
        if refusal:  # the caller's next request may be stored
            at.ask(0)
            wait_until(lambda: have_ended(at, 1))


def test_a_route_without_captures_keeps_the_checks_and_stores_nothing(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        at.start()
        for number in range(3):
            at.ask(number)
        status = at.status(lambda s: s.pairs == 3)
        assert {check.check: check.both for check in status.checks}["answered"] == 3
        assert status.not_stored == {"unstored_route": 3}
        assert stored(at) == []


def test_a_client_that_declines_the_shadow_is_neither_mirrored_nor_stored(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        at.ask(0, extra_headers={"x-swapproof-shadow": "off"})
        assert at.status(lambda s: s.left_out).left_out == {"declined": 1}
        assert stored(at) == []


def limit_first_token(at: Scene, limit_s: float) -> None:
    """Limits the candidate's streams alone: the incumbent may take its time."""
    with at.ctx.store.write() as tx:
        provider = Providers(tx).all()["other"]
        hurried = Capabilities(first_token_timeout_s=limit_s)
        Providers(tx).put(replace(provider, models={SPARE: hurried}))
    at.settled()


@pytest.mark.parametrize(
    ("fault", "outcome", "failure"),
    [
        ({"kind": "garbage"}, CandidateOutcome.FAILED, "malformed"),
        ({"kind": "status", "status": 429}, CandidateOutcome.FAILED, "rate_limited"),
        ({"kind": "hang"}, CandidateOutcome.TIMED_OUT, "timeout"),
    ],
    ids=["garbage", "limited", "hangs"],
)
def test_a_candidate_that_fails_or_hangs_makes_a_pair_without_its_answer(
    fault: dict[str, Any],
    outcome: CandidateOutcome,
    failure: str,
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        limit_first_token(at, 0.2)
        sim.faults.set(SPARE, faults.parse_fault(fault))
        at.ask(0, stream=fault["kind"] == "hang")
        wait_until(lambda: have_ended(at, 1))
        (pair,) = stored(at)
        assert pair.candidate
        assert (pair.candidate.outcome, pair.candidate.failure) == (outcome, failure)
        assert pair.candidate.cost_usd is None
        assert pair.content["answer"]["content"]
        assert CANDIDATE not in pair.content


def test_an_incumbent_that_fails_makes_a_pair_that_says_so(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        sim.faults.set(OWN, faults.parse_fault({"kind": "garbage"}))
        with pytest.raises(openai.APIStatusError):
            at.ask(0)
        wait_until(lambda: have_ended(at, 1))
        (pair,) = stored(at)
        assert pair.outcome == "malformed"
        assert "answer" not in pair.content
        assert pair.content[CANDIDATE]["content"]


def test_the_shadows_end_waits_for_a_slow_answer_and_the_routers_stop_says_that_it_cut_one(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    patient = replace(QUICK, first_token_timeout_s=600.0, total_timeout_s=600.0)
    with keeping(sqlite_url, sim, sim_url, tmp_path, patient) as at:
        sim.faults.set(SPARE, faults.parse_fault({"kind": "hang"}))
        at.ask(0)
        wait_until(lambda: outcomes(at) == [CandidateOutcome.PENDING])
        shadows.stop_shadow(at.ctx, KIM, "support")
        at.settled()
        at.ask(1)
        assert outcomes(at) == [CandidateOutcome.PENDING]
        store = at.ctx.store
    with store.read() as tx:
        (pair,) = load(tx)
    assert pair.candidate
    assert pair.candidate.outcome is CandidateOutcome.INTERRUPTED
    assert pair.content["answer"]["content"]


def test_deleting_a_user_deletes_the_users_pair(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with keeping(sqlite_url, sim, sim_url, tmp_path) as at:
        at.ask(0)
        at.ask(1)
        wait_until(lambda: have_ended(at, 2))
        ours = replace(ADA, role=SYSTEM.role)
        deletion = captures.delete_user(at.ctx, ours, "user-0", "ticket 12", secret=SECRET)
        assert deletion.captures == 1
        (left,) = stored(at)
        assert f"{left.content['messages'][0]['content']}".endswith("1")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pairs_that_a_killed_worker_asked_are_lost_and_none_reads_as_an_answer(
    sqlite_url: str, tmp_path: Path
) -> None:
    hanging = server.simulator(time_scale=0.0)
    hanging.faults.set(SPARE, faults.parse_fault({"kind": "hang"}))
    sections = {
        "data_classes": {"personal": ["sim"]},
        "router": {"flush_interval_s": 0.2, "total_timeout_s": 600.0},
        "routes": {
            ROUTE: {
                "incumbent": f"sim/{OWN}",
                "suites": ["colours"],
                "capture": "1%",
                "data_class": "personal",
            }
        },
    }
    with (
        simulator_thread.serve_in_thread(hanging) as provider,
        routed(tmp_path, provider, sqlite_url, **sections) as world,
        world.client() as client,
    ):
        world.start("--workers", "2")
        start = ("shadow", "start", ROUTE, f"sim/{SPARE}", "--share", "100")
        world.place.run(*start, "--usd-per-day", "none", "--reason", "a look")
        store = world.installation.store

        def pairs() -> Sequence[CapturedRequest]:
            with store.read() as tx:
                return load(tx)

        users = iter(range(1000))

        def have_pairs(outcome: CandidateOutcome, number: int) -> bool:
            ask(client, user=f"user-{next(users)}")
            found = [pair.candidate.outcome for pair in pairs() if pair.candidate]
            return found.count(outcome) >= number

        # The first requests may come before the workers know the shadow.
        eventually(lambda: have_pairs(CandidateOutcome.PENDING, 3))
        killed = world.workers()
        for worker in killed:
            kill_nine(worker.pid)
        eventually(lambda: len(set(world.workers()) - set(killed)) == len(killed))
        hanging.faults.clear()
        eventually(lambda: have_pairs(CandidateOutcome.ANSWERED, 1))
        assert world.place.terminate("router") == 0

        (shadow,) = {pair.shadow for pair in pairs()}
        later = ManualClock(SystemClock().now() + timedelta(minutes=12))
        with (
            closing(
                Store(sqlite_url, secret=SECRET, clock=later, signatures=CONTROL)
            ) as reopened,
            reopened.read() as tx,
        ):
            found = Captures(tx).pairs({str(shadow)}, judged=(), limit=100)
        known = [pair.candidate.outcome for pair in found if pair.candidate]
        assert known[:3] == [CandidateOutcome.LOST] * 3
        assert CandidateOutcome.ANSWERED in known[3:]
        assert all(CANDIDATE not in pair.content for pair in found[:3])
