"""Which targets may answer, in which order, and why the others may not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.reliability.breaker import (
    CLOSED_BREAKER,
    BreakerPolicy,
    WhenAllOpen,
    admit,
    settle,
)
from harness.domain.reliability.failures import CLIENT_FAILURES, FailureClass
from harness.domain.routing.capabilities import Capabilities, Needs, missing_capabilities
from harness.domain.routing.kill_switch import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
    SwitchTarget,
)
from harness.domain.routing.plan import (
    AVAILABLE,
    ChainLink,
    Excluded,
    ExclusionReason,
    FailedAttempt,
    PlanContext,
    RoutePlan,
    RouteTargets,
    TargetAvailability,
    next_target,
    plan_request,
    target_availability,
)
from harness.domain.routing.table import Arm, Stakes

F = FailureClass
IDS = "abcdef"
ids = st.sampled_from(IDS)
TARGETS = {id_: SwitchTarget(id_, f"model-{id_}", f"provider-{id_}") for id_ in IDS}
ROUTE = RouteTargets("r", "inc", "can", (ChainLink("spare", capable=True), ChainLink("cheap")))
HIGH = replace(ROUTE, stakes=Stakes.HIGH)
FAIL_FAST = PlanContext(when_all_open=WhenAllOpen.FAIL_FAST)


def switch(kind: ForceKind, name: str) -> KillSwitch:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return KillSwitch(
        "s-1", None, Force(kind, name), "outage", "ada", at, None, SwitchSource.CLI
    )


routes = st.builds(
    RouteTargets,
    name=st.just("r"),
    incumbent=ids,
    canary=st.none() | ids,
    chain=st.lists(st.builds(ChainLink, ids, st.booleans()), max_size=5).map(tuple),
    stakes=st.sampled_from(Stakes),
)
needs = st.builds(
    Needs,
    tools=st.booleans(),
    parallel_tools=st.booleans(),
    vision=st.booleans(),
    approx_input_tokens=st.integers(0, 100),
)
capabilities = st.dictionaries(
    ids,
    st.builds(
        Capabilities,
        tools=st.booleans(),
        parallel_tools=st.booleans(),
        vision=st.booleans(),
        context_window=st.none() | st.integers(1, 100),
    ),
)
waits = st.just(0.0) | st.floats(0.1, 900)
surroundings = st.builds(
    PlanContext,
    capabilities=capabilities,
    health=st.dictionaries(
        ids, st.builds(TargetAvailability, waits, st.none() | st.floats(0, 9))
    ),
    targets=st.just(TARGETS),
    switches=st.lists(
        st.builds(switch, st.just(ForceKind.PROVIDER), ids.map(lambda id_: f"provider-{id_}")),
        max_size=1,
    ),
    keyless=st.frozensets(ids, max_size=2),
    when_all_open=st.sampled_from(WhenAllOpen),
)


@given(routes, st.sampled_from(Arm), needs, surroundings, st.none() | ids)
def test_every_target_is_in_the_plan_or_left_out_with_a_reason_and_never_twice(
    route: RouteTargets, arm: Arm, need: Needs, around: PlanContext, warm: str | None
) -> None:
    plan = plan_request(route, arm, need, around, warm)

    out = [excluded.target for excluded in plan.left_out]
    own = warm or (route.canary if arm is Arm.CANARY else None)
    every = {route.incumbent, *(hop.target for hop in route.chain)} | ({own} - {None})
    assert len({*plan.targets, *out}) == len(plan.targets) + len(out)
    assert {*plan.targets, *out} == every
    assert all(excluded.reason for excluded in plan.left_out)
    assert all(
        (excluded.retry_in_s > 0) is (excluded.because is ExclusionReason.OPEN)
        for excluded in plan.left_out
    )
    assert plan.guest == own


@given(routes, st.sampled_from(Arm), needs, surroundings)
def test_a_target_of_a_plan_can_do_it_and_may_do_it(
    route: RouteTargets, arm: Arm, need: Needs, around: PlanContext
) -> None:
    plan = plan_request(route, arm, need, around)

    own = {route.incumbent} | ({route.canary} if arm is Arm.CANARY else set())
    capable = own | {link.target for link in route.chain if link.capable}
    for target in plan.targets:
        assert not missing_capabilities(need, around.capabilities.get(target, Capabilities()))
        assert route.stakes is Stakes.LOW or target in capable
        healthy = around.health.get(target, AVAILABLE).retry_in_s == 0
        assert healthy is not plan.last_resort
        assert target not in around.keyless
        if plan.forced is not None and plan.forced.in_effect:
            assert TARGETS[target].provider == plan.forced.switch.force.name


@given(routes, st.sampled_from(Arm), needs, surroundings)
def test_a_plan_is_empty_only_for_reasons_that_it_names(
    route: RouteTargets, arm: Arm, need: Needs, around: PlanContext
) -> None:
    plan = plan_request(route, arm, need, around)

    reasons = {excluded.because for excluded in plan.left_out}
    assert plan.all_open is (not plan.targets and ExclusionReason.OPEN in reasons)
    assert (plan.retry_after_s is not None) is plan.all_open
    if around.when_all_open is WhenAllOpen.TRY:
        assert not plan.all_open
    else:
        assert not plan.last_resort
    assert plan.last_resort is False or len(plan.targets) == 1


@pytest.mark.req("D8")
@given(routes, st.sampled_from(Arm), needs, surroundings, st.frozensets(ids), st.none() | ids)
def test_nothing_brings_in_who_may_not_see_the_data(
    route: RouteTargets,
    arm: Arm,
    need: Needs,
    around: PlanContext,
    barred: frozenset[str],
    warm: str | None,
) -> None:
    plan = plan_request(route, arm, need, replace(around, barred=barred), warm)

    assert not barred & set(plan.targets)
    assert {
        e.target for e in plan.left_out if e.because is ExclusionReason.DATA_CLASS
    } <= barred
    assert plan.targets or not plan.unable or not barred & {e.target for e in plan.left_out}


@pytest.mark.req("A4")
def test_high_stakes_fall_only_to_capable_targets_and_then_fail_loudly() -> None:
    around = replace(
        FAIL_FAST, health={"inc": TargetAvailability(30.2), "spare": TargetAvailability(12.0)}
    )
    plan = plan_request(HIGH, Arm.INCUMBENT, Needs(), around)

    assert plan.targets == ()
    assert plan.all_open
    assert plan.retry_after_s == 12
    assert [excluded.because for excluded in plan.left_out] == [
        ExclusionReason.OPEN,
        ExclusionReason.OPEN,
        ExclusionReason.STAKES,
    ]
    assert "31 s" in plan.left_out[0].reason
    assert "capable" in plan.left_out[2].reason


@pytest.mark.req("A4")
def test_low_stakes_fall_the_whole_chain() -> None:
    around = replace(
        FAIL_FAST, health={"inc": TargetAvailability(30.0), "spare": TargetAvailability(12.0)}
    )
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(), around)

    assert plan.targets == ("cheap",)
    assert plan.retry_after_s is None
    assert not plan.all_open


def test_the_arms_are_never_beneath_the_stakes_but_a_canary_in_the_chain_may_be() -> None:
    route = RouteTargets("r", "inc", "can", (ChainLink("can"), ChainLink("inc")), Stakes.HIGH)

    assert plan_request(route, Arm.CANARY, Needs(), PlanContext()).targets == ("can", "inc")
    assert plan_request(route, Arm.INCUMBENT, Needs(), PlanContext()).targets == ("inc",)
    assert (
        "cheap"
        not in plan_request(HIGH, Arm.INCUMBENT, Needs(), PlanContext(), "cheap").targets
    )


@pytest.mark.req("A6")
def test_when_all_are_open_the_least_recently_failed_one_is_tried() -> None:
    health = {
        "inc": TargetAvailability(5.0, 30.0),
        "spare": TargetAvailability(9.0, 10.0),
        "cheap": TargetAvailability(1.0, 20.0),
    }
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(), PlanContext(health=health))

    assert plan.targets == ("spare",)
    assert plan.last_resort
    assert {excluded.target for excluded in plan.left_out} == {"inc", "cheap"}
    never = {**health, "cheap": TargetAvailability(1.0)}
    tried = plan_request(ROUTE, Arm.INCUMBENT, Needs(), PlanContext(health=never)).targets
    assert tried == ("cheap",)


def test_a_wait_of_less_than_a_second_is_told_as_one() -> None:
    route = RouteTargets("r", "inc")
    around = replace(FAIL_FAST, health={"inc": TargetAvailability(0.01)})

    assert plan_request(route, Arm.INCUMBENT, Needs(), around).retry_after_s == 1


@pytest.mark.req("A6")
def test_the_health_of_a_target_is_its_breakers_or_the_pause_it_asked_for() -> None:
    policy = BreakerPolicy(trickle_s=900.0)
    _, ticket = admit(CLOSED_BREAKER, 0.0, policy)
    assert ticket is not None
    opened = settle(CLOSED_BREAKER, ticket, F.QUOTA, 3.0, policy)

    assert target_availability(CLOSED_BREAKER, 5.0, policy) == AVAILABLE
    assert target_availability(opened, 23.0, policy) == TargetAvailability(100.0, 3.0)
    assert target_availability(opened, 23.0, policy, pause_s=130.0) == TargetAvailability(
        130.0, 3.0, 130.0
    )


@pytest.mark.req("B11")
def test_a_switch_leaves_only_what_it_forces() -> None:
    targets = {
        "inc": SwitchTarget("inc", "a/x", "a"),
        "spare": SwitchTarget("spare", "b/y", "b"),
        "cheap": SwitchTarget("cheap", "b/z", "b"),
        "can": SwitchTarget("can", "c/c", "c"),
    }

    def planned(route: RouteTargets, arm: Arm, kind: ForceKind, name: str) -> RoutePlan:
        around = PlanContext(targets=targets, switches=[switch(kind, name)])
        return plan_request(route, arm, Needs(), around)

    provider, target = ForceKind.PROVIDER, ForceKind.TARGET
    assert planned(ROUTE, Arm.CANARY, provider, "b").targets == ("spare", "cheap")
    assert planned(HIGH, Arm.CANARY, provider, "b").targets == ("spare",)
    assert planned(ROUTE, Arm.CANARY, target, "cheap").targets == ("cheap",)
    assert planned(ROUTE, Arm.INCUMBENT, target, "b/y").targets == ("spare",)
    left_out = planned(ROUTE, Arm.CANARY, provider, "b").guest_left_out
    assert left_out is not None
    assert left_out.because is ExclusionReason.SWITCH


@pytest.mark.req("B11", "A7")
def test_a_switch_never_brings_a_target_in_or_takes_the_last_one_away() -> None:
    targets = {id_: SwitchTarget(id_, id_, "a") for id_ in ("inc", "can", "spare", "cheap")}
    without = plan_request(HIGH, Arm.INCUMBENT, Needs(), PlanContext())
    for kind, name in (
        (ForceKind.PROVIDER, "elsewhere"),
        (ForceKind.TARGET, "can"),  # has evidence for its canary, not for all traffic
        (ForceKind.TARGET, "cheap"),  # beneath the stakes
    ):
        around = PlanContext(targets=targets, switches=[switch(kind, name)])
        plan = plan_request(HIGH, Arm.INCUMBENT, Needs(), around)
        assert plan.targets == without.targets
        assert plan.left_out == without.left_out
        assert plan.forced is not None
        assert not plan.forced.in_effect
        assert "keeps its plan" in plan.forced.reason


def test_a_guest_that_is_left_out_is_told() -> None:
    around = PlanContext(health={"can": TargetAvailability(7.0)})
    plan = plan_request(ROUTE, Arm.CANARY, Needs(), around)

    assert plan.targets == ("inc", "spare", "cheap")
    assert plan.guest_left_out == Excluded(
        "can", ExclusionReason.OPEN, plan.left_out[0].reason, 7.0
    )
    assert plan_request(ROUTE, Arm.INCUMBENT, Needs(), around).guest_left_out is None


@pytest.mark.req("B7")
def test_tool_calls_are_serialized_for_the_plans_targets_alone() -> None:
    serial = {"cheap": Capabilities(parallel_tools=False)}
    around = PlanContext(serial)

    assert plan_request(ROUTE, Arm.INCUMBENT, Needs(tools=True), around).serialize_tools
    assert not plan_request(HIGH, Arm.INCUMBENT, Needs(tools=True), around).serialize_tools
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(tools=True, parallel_tools=True), around)
    assert plan.targets == ("inc", "spare")
    assert not plan.serialize_tools


CANARY_PLAN = RoutePlan("inc", "can", ("can", "inc", "spare", "cheap"), ())
INCUMBENT_PLAN = RoutePlan("inc", None, ("inc", "spare", "cheap"), ())


def following(plan: RoutePlan, *failures: tuple[str, F], fallback: bool = False) -> str | None:
    windows = {
        "can": Capabilities(context_window=9),
        "inc": Capabilities(context_window=8),
        "spare": Capabilities(context_window=4),
        "cheap": Capabilities(context_window=16),
    }
    history = [FailedAttempt(*failure) for failure in failures]
    return next_target(plan, history, windows, policy_fallback=fallback)


@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("failure", list(F))
def test_a_failure_falls_where_its_class_says(failure: F) -> None:
    expected = {
        F.BAD_REQUEST: None,
        F.CANCELLED: None,
        F.FOREIGN_STATE: None,
        F.CONTENT_POLICY: None,
        F.CONTEXT_WINDOW: "cheap",
    }.get(failure, "spare")

    assert following(INCUMBENT_PLAN, ("inc", failure)) == expected
    assert following(INCUMBENT_PLAN, ("inc", F.SERVER), ("cheap", failure)) is None


def test_a_policy_refusal_falls_where_the_route_says_so() -> None:
    assert following(INCUMBENT_PLAN, ("inc", F.CONTENT_POLICY), fallback=True) == "spare"
    assert following(INCUMBENT_PLAN, ("inc", F.BAD_REQUEST), fallback=True) is None


@pytest.mark.req("A5", "F4")
@pytest.mark.parametrize("failure", sorted(CLIENT_FAILURES))
def test_what_a_guest_rejects_is_asked_once_of_the_incumbent_and_of_nobody_else(
    failure: F,
) -> None:
    without = replace(CANARY_PLAN, targets=("can", "spare", "cheap"))

    assert following(CANARY_PLAN, ("can", failure)) == "inc"
    assert following(without, ("can", failure)) is None
    assert following(CANARY_PLAN, ("can", failure), ("inc", F.BAD_REQUEST)) is None


def test_a_guests_full_window_does_not_bind_the_incumbents_chain() -> None:
    own = ("can", F.CONTEXT_WINDOW)

    assert following(CANARY_PLAN, own, ("inc", F.SERVER)) == "spare"
    assert following(CANARY_PLAN, own, ("inc", F.CONTEXT_WINDOW)) == "cheap"
