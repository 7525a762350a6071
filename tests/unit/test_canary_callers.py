"""Whose canary it is: `canary who`, and what failures of first callers do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from dashboard.views import canary_text
from harness.canary import callers, decision, first_callers, operations
from harness.canary import status as canary_status
from harness.canary.audit import RolloutTransaction
from harness.canary.first_callers import measure_first_callers
from harness.frame.errors import NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, OptOut
from harness.frame.people.audience import Audience, CallerSet, CallerSource
from harness.frame.records.columns import EPOCH
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.guardrails import ArmSplit, Guardrail
from harness.gate.online.observation import (
    KeyClaim,
    ObservationBlock,
    TrafficMinute,
    fingerprint,
)
from harness.gate.online.rollout import (
    ReasonCode,
    RolloutSignal,
    RolloutState,
    name_first_callers,
)
from harness.gate.online.uncounted import UncountedReason
from harness.operations import control_jobs, keys
from harness.proposals import decisions, review
from harness.providers.models.capabilities import Endpoint
from harness.routing.records.observations import Observations
from harness.routing.table import Arm, choose_arm
from router.frame.body import read_request
from router.request.client_directives import sticky_key
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN, BEN
from tests.support.control.router_rows import block_of
from tests.support.control.short_policies import POLICY, approved

pytestmark = pytest.mark.req("F3")

AUDIENCE: Final = Audience(
    first=(CallerSet(CallerSource.USER, prefixes=("staff:",)),),
    never=(
        CallerSet(CallerSource.KEY, values=("customer-x",)),
        CallerSet(CallerSource.HEADER, "x-tenant", values=("x",)),
    ),
)


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    policy = replace(POLICY, canary=replace(POLICY.canary, audience=AUDIENCE))
    made = SmallInstallation(tmp_path, policy=policy)
    made.set_up()
    made.in_canary()
    return made


def drawn_user(world: SmallInstallation, arm: Arm) -> str:
    route = world.route()
    users = (f"user-{number}" for number in range(100_000))
    return next(user for user in users if choose_arm(route, f"user:{user}") is arm)


def test_who_names_the_arm_and_the_reason(world: SmallInstallation) -> None:
    ctx = world.context()
    (staff,) = callers.find_arm(ctx, "staff:ada")
    assert (staff.arm, staff.model) == (Arm.CANARY, "sim/better")
    assert staff.because == (
        "the audience puts it first: user staff:*, which is the client's word"
    )
    assert staff.depends_on == "client key customer-x, header x-tenant: x"
    assert staff.is_counted is False
    for arm in (Arm.CANARY, Arm.INCUMBENT):
        (drawn,) = callers.find_arm(ctx, drawn_user(world, arm))
        assert drawn.arm is arm
        assert "the share draws it: bucket" in drawn.because


def test_who_knows_client_keys(world: SmallInstallation) -> None:
    ctx = world.context()
    for name in ("customer-x", "web"):
        keys.create_key(ctx, SYSTEM, name, secret=b"s")
    keys.create_key(ctx, SYSTEM, "ours", opt_outs=(OptOut.CANARY,), secret=b"s")
    (never,) = callers.find_arm(ctx, "customer-x")
    assert (never.sent_as, never.arm, never.is_counted) == ("key", Arm.INCUMBENT, None)
    assert never.because == "the audience never puts it in: client key customer-x"
    (web,) = callers.find_arm(ctx, "web")
    assert (web.arm, web.model) == (None, None)
    (ours,) = callers.find_arm(ctx, "ours")
    assert ours.because == "the client key takes part in no canary"


def test_who_tells_how_the_canary_has_counted_a_caller(world: SmallInstallation) -> None:
    rollout = world.rollout()
    user = drawn_user(world, Arm.INCUMBENT)
    canary = world.route().canary
    assert canary is not None
    salt = canary.unit_rule.ledger_salt
    with world.store.write() as tx:
        records = Observations(tx)
        records.claim_keys(KeyClaim(rollout.id, 1, [fingerprint(salt, f"header:{user}")]))
        first = [fingerprint(salt, "user:staff:ada")]
        records.claim_keys(KeyClaim(name_first_callers(rollout.id), 1, first))
    (counted,) = callers.find_arm(world.context(), user)
    assert (counted.sent_as, counted.is_counted) == ("header", True)
    (staff,) = callers.find_arm(world.context(), "staff:ada")
    assert staff.is_counted is True


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_who_finds_a_caller_by_a_header_in_any_encoding(
    world: SmallInstallation, encoding: str
) -> None:
    request = read_request(b'{"model":"chat","messages":[]}', Endpoint.CHAT)
    sticky = sticky_key(request, "Zoë".encode(encoding), "k-1")
    canary = world.route().canary
    assert canary is not None
    with world.store.write() as tx:
        print_ = fingerprint(canary.unit_rule.ledger_salt, sticky)
        Observations(tx).claim_keys(KeyClaim(canary.rollout, 1, [print_]))
    (found,) = callers.find_arm(world.context(), "Zoë")
    assert (found.sent_as, found.is_counted) == ("header", True)
    assert found.arm is choose_arm(world.route(), sticky)


def test_who_names_the_ways_that_give_an_uncounted_caller_another_model(
    world: SmallInstallation,
) -> None:
    def arm_by(way: str, user: str) -> Arm:
        return choose_arm(world.route(), f"{way}:{user}")

    users = [f"caller-{number}" for number in range(2_000)]
    ways = ("safety_identifier", "header", "conversation")
    user = next(
        user
        for user in users
        if arm_by("user", user) is Arm.INCUMBENT
        and [way for way in ways if arm_by(way, user) is Arm.CANARY] == ["header"]
    )
    (found,) = callers.find_arm(world.context(), user)
    assert (found.sent_as, found.arm) == ("user", Arm.INCUMBENT)
    assert found.because.endswith("; a request that names it by header gets sim/better")
    alike = next(user for user in users if len({arm_by(w, user) for w in ("user", *ways)}) == 1)
    (found,) = callers.find_arm(world.context(), alike)
    assert "names it" not in found.because


def test_who_tells_a_user_apart_from_a_client_key_and_a_conversation(
    world: SmallInstallation,
) -> None:
    keys.create_key(world.context(), SYSTEM, "web", secret=b"s")
    canary = world.route().canary
    assert canary is not None
    salt = canary.unit_rule.ledger_salt
    counted = [fingerprint(salt, name) for name in ("user:web", "conversation:staff:1")]
    with world.store.write() as tx:
        Observations(tx).claim_keys(KeyClaim(canary.rollout, 1, counted))
    found = callers.find_arm(world.context(), "web")
    assert [arm.sent_as for arm in found] == ["key", "user"]
    # The audience's rule is about users, so the router draws this conversation.
    (drawn,) = callers.find_arm(world.context(), "staff:1")
    assert drawn.sent_as == "conversation"
    assert drawn.arm is choose_arm(world.route(), "conversation:staff:1")
    assert "the share draws it" in drawn.because


def test_an_approver_lists_hashed_callers_of_the_candidate(world: SmallInstallation) -> None:
    rollout = world.rollout()
    for period, candidates in ((1, {7, 9}), (1, {7}), (2, {7})):
        with world.store.write() as tx:
            claim = KeyClaim(rollout.id, period, [7, 8, 9], frozenset(candidates))
            Observations(tx).claim_keys(claim)
        world.clock.advance(60)
    with world.store.write() as tx:
        first = KeyClaim(name_first_callers(rollout.id), 1, [5], frozenset({5}))
        Observations(tx).claim_keys(first)

    with pytest.raises(NotAllowed):
        callers.list_callers(world.context(), ANN, "chat")
    found = callers.list_callers(world.context(), BEN, "chat")
    assert [(row.caller, row.assigned_by, row.days) for row in found] == [
        ("00000000005", "first", 1),
        ("00000000007", "share", 2),
        ("00000000009", "share", 1),
    ]
    with world.store.read() as tx:
        events = AuditLog(tx).for_subject("route chat", since=EPOCH, limit=20)
    (event,) = [event for event in events if event.action == "canary.callers"]
    assert (event.actor, event.details["callers"]) == (BEN.name, 3)

    world.clock.advance(10 * 86_400)
    days = {"alerts_days": 9, "exposures_days": 9, "failovers_days": 9, "traffic_days": 9}
    control_jobs.purge_expired(world.context(), **days)
    assert callers.list_callers(world.context(), BEN, "chat") == []


def test_keys_of_first_callers_are_kept_as_long_as_the_canary(
    world: SmallInstallation,
) -> None:
    ledger = name_first_callers(world.rollout().id)

    def is_kept() -> bool:
        with world.store.read() as tx:
            return Observations(tx).last_period(ledger, 7) is not None

    with world.store.write() as tx:
        Observations(tx).claim_keys(KeyClaim(ledger, 1, [7]))
    days = {"alerts_days": 9, "exposures_days": 9, "failovers_days": 9, "traffic_days": 9}
    control_jobs.purge_expired(world.context(), **days)
    assert is_kept()
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "enough")
    control_jobs.purge_expired(world.context(), **days)
    assert not is_kept()


def test_who_answers_for_an_ended_canary_of_a_route(world: SmallInstallation) -> None:
    user = drawn_user(world, Arm.CANARY)
    began = world.rollout().started_at
    world.clock.advance(60)
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "enough")
    assert callers.find_arm(world.context(), user) == []
    (ended,) = callers.find_arm(world.context(), user, route="chat")
    assert (ended.arm, ended.since) == (Arm.CANARY, began)
    assert ended.until is not None
    assert ended.until >= began + timedelta(seconds=60)
    with pytest.raises(NotFound):
        callers.find_arm(world.context(), user, route="no-such-route")


def test_since_is_the_step_that_drew_the_caller(world: SmallInstallation) -> None:
    before = world.rollout()
    world.feed(blocks=4)
    world.run_once(turns=3)
    after = world.rollout()
    assert after.step > before.step
    route = world.route()
    assert route.canary is not None
    users = (f"user-{number}" for number in range(100_000))
    low = replace(
        route, canary=replace(route.canary, weight_bps=before.policy.steps[0].weight_bps)
    )
    user = next(
        user
        for user in users
        if choose_arm(route, f"user:{user}") is Arm.CANARY
        and choose_arm(low, f"user:{user}") is Arm.INCUMBENT
    )
    (drawn,) = callers.find_arm(world.context(), user)
    assert drawn.since > before.started_at
    (staff,) = callers.find_arm(world.context(), "staff:ada")
    assert staff.since == before.started_at


def first_block(
    world: SmallInstallation, failures: int, *, units: int = 20, usual: float = 0.02
) -> ObservationBlock:
    block = block_of(world.rollout(), 0, world.clock, failing=False)
    return replace(
        block,
        rollout=name_first_callers(block.rollout),
        weight_bps=10_000,
        units=units,
        canary_units=units,
        failures=failures,
        canary_failures=failures,
        usual_rates={Guardrail.ERRORS: usual} if usual else {},
    )


def append(world: SmallInstallation, *blocks: ObservationBlock) -> None:
    with world.store.write() as tx:
        Observations(tx).append(blocks, [])


def test_first_callers_that_fail_pause_the_canary_until_a_person_resumes_it(
    world: SmallInstallation,
) -> None:
    append(world, first_block(world, failures=8))
    action = decision.decide(world.context(), world.rollout())
    assert (action.signal, action.code) == (RolloutSignal.PAUSE, ReasonCode.FIRST_CALLERS)
    world.run_once()
    assert world.rollout().state is RolloutState.PAUSED
    (status,) = canary_status.list_canaries(world.context())
    assert "8 of 20 callers of `first` failed (40 %)" in status.pause_reason
    operations.operate(world.context(), BEN, "chat", RolloutSignal.RESUME, "a known fault")
    world.run_once(turns=2)
    assert world.rollout().state is not RolloutState.PAUSED
    assert world.rollout().acknowledged == (first_callers.ACKNOWLEDGED,)


def test_their_failures_are_no_evidence_of_the_comparison(world: SmallInstallation) -> None:
    append(world, first_block(world, failures=20))
    with world.store.read() as tx:
        action = decision.read_evidence(
            RolloutTransaction(world.context(), tx, world.rollout())
        )
    assert (action.exposures, action.log_e) == (0, 0.0)


@pytest.mark.parametrize(("failures", "usual"), [(0, 0.02), (1, 0.02), (20, 0.0)])
def test_few_failures_or_an_unknown_usual_rate_pause_nothing(
    world: SmallInstallation, failures: int, usual: float
) -> None:
    append(world, first_block(world, failures, usual=usual))
    world.run_once()
    assert world.rollout().state is RolloutState.WAITING
    with world.store.read() as tx:
        found = first_callers.read_first_callers(tx, world.rollout())
    assert found.callers == 20
    assert ("unknown" in found.text) is not bool(usual)


def test_the_incumbents_present_failures_do_not_raise_the_usual_rate(
    world: SmallInstallation,
) -> None:
    calm = [
        block_of(world.rollout(), number, world.clock, failing=False) for number in range(9)
    ]
    later = timedelta(seconds=1)
    first = first_block(world, failures=6, usual=0.5)
    first = replace(first, closed_at=first.closed_at + later)
    alone = measure_first_callers([first], [], 1.0)
    beside = measure_first_callers([first], _failing_control(calm), 1.0)
    assert alone.log_e < 0.0 < beside.log_e


def _failing_control(blocks: Sequence[ObservationBlock]) -> Sequence[ObservationBlock]:
    return [replace(block, failures=3, usual_rates={Guardrail.ERRORS: 0.5}) for block in blocks]


def test_the_page_names_model_reason_and_further_rules(world: SmallInstallation) -> None:
    arms = callers.find_arm(world.context(), "staff:ada")
    shown = canary_text.caller_answer("staff:ada", arms)
    for part in ("sim/better", "user staff:*", "client key customer-x", "not counted it yet"):
        assert part in shown
    (status,) = canary_status.list_canaries(world.context())
    assert status.audience.startswith("first: user staff:*; never: client key customer-x")
    assert "Any client can claim: header x-tenant: x, user staff:*." in status.audience


def test_an_approval_names_the_callers_that_no_canary_measured(tmp_path: Path) -> None:
    policy = replace(POLICY, canary=replace(POLICY.canary, audience=AUDIENCE))
    world = SmallInstallation(tmp_path, policy=approved(policy))
    world.set_up()
    proposal = world.decided()
    shown = review.review_proposal(world.context(), proposal.id).never_measured
    assert shown.startswith("Never measured: client key customer-x, header x-tenant: x.")
    decisions.approve_proposal(world.context(), BEN, proposal.id, "customer X knows")
    with world.store.read() as tx:
        events = AuditLog(tx).for_subject(f"proposal {proposal.id}", since=EPOCH, limit=20)
    (event,) = [event for event in events if event.action == "proposal.approve"]
    assert event.details["never_measured"] == "client key customer-x, header x-tenant: x"


def test_requests_of_a_rule_do_not_make_the_share_look_too_high(
    world: SmallInstallation,
) -> None:
    rollout = world.rollout()
    counts = {UncountedReason.AUDIENCE.value: ArmSplit(90, 60)}
    block = replace(block_of(rollout, 0, world.clock, failing=False), uncounted=counts)
    assert decision.count_by_audience([block]) == ArmSplit(90, 60)
    minute = world.clock.now().replace(second=0, microsecond=0) + timedelta(minutes=2)
    rows = [
        TrafficMinute("chat", minute, "w", arm, "t", 1, requests, 0, 0, 0, 0, 0, 0.0)
        for arm, requests in (("canary", 70), ("incumbent", 930))
    ]
    assert "has 7 % of the route's requests" in decision.describe_oversized_share(rollout, rows)
    by_rule = decision.count_by_audience([block])
    assert decision.describe_oversized_share(rollout, rows, by_rule) == ""
