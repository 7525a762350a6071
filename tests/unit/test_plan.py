from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import (
    CLIENT_FAILURES,
    FAILURE_RULES,
    FailureClass,
)
from harness.providers.force import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
)
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
    Needs,
    missing_capabilities,
)
from harness.providers.target import Target
from harness.routing.plan import (
    AVAILABLE,
    Excluded,
    ExclusionReason,
    FailedAttempt,
    PlanContext,
    RoutePlan,
    SendHold,
    TargetAvailability,
    next_target,
    plan_request,
    target_availability,
)
from harness.routing.reliability.breaker import (
    CLOSED_BREAKER,
    BreakerPolicy,
    WhenAllOpen,
    admit,
    settle,
)
from harness.routing.reliability.slowdown import Slowdown, Turns
from harness.routing.route_settings import RouteSettings, Stakes
from harness.routing.table import Arm, Canary, Route

F = FailureClass
TARGETS = {t.id: t for t in (Target(f"provider-{name}", "m") for name in "abcdef")}
ids = st.sampled_from(sorted(TARGETS))
KNOWN = (
    Target("a", "x"),
    Target("b", "y"),
    Target("b", "z"),
    Target("c", "c"),
)
INC, SPARE, CHEAP, CAN = (target.id for target in KNOWN)


def canary(target: str) -> Canary:
    return Canary(target, 100, "salt", "ro-1")


def high(route: Route) -> Route:
    return replace(route, settings=replace(route.settings, stakes=Stakes.HIGH))


ROUTE = Route("r", 1, INC, canary(CAN), (SPARE, CHEAP), RouteSettings(capable=(SPARE,)))
HIGH = high(ROUTE)
FAIL_FAST = PlanContext(when_all_open=WhenAllOpen.FAIL_FAST)


def switch(kind: ForceKind, name: str) -> KillSwitch:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return KillSwitch(
        "s-1",
        None,
        Force(kind, name),
        "outage",
        "ada",
        at,
        None,
        SwitchSource.CLI,
    )


routes = st.builds(
    Route,
    name=st.just("r"),
    version=st.just(1),
    incumbent=ids,
    canary=st.none() | ids.map(canary),
    fallbacks=st.lists(ids, max_size=5).map(tuple),
    settings=st.builds(
        RouteSettings,
        stakes=st.sampled_from(Stakes),
        capable=st.lists(ids, max_size=3).map(tuple),
    ),
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
        ids,
        st.builds(TargetAvailability, waits, st.none() | st.floats(0, 9)),
    ),
    targets=st.just(TARGETS),
    switches=st.lists(
        st.builds(
            switch,
            st.just(ForceKind.PROVIDER),
            ids.map(lambda id_: TARGETS[id_].provider),
        ),
        max_size=1,
    ),
    keyless=st.frozensets(ids, max_size=2),
    when_all_open=st.sampled_from(WhenAllOpen),
)


@given(routes, st.sampled_from(Arm), needs, surroundings, st.none() | ids)
def test_every_target_is_in_the_plan_or_left_out_with_a_reason_and_never_twice(
    route: Route,
    arm: Arm,
    need: Needs,
    around: PlanContext,
    warm: str | None,
) -> None:
    plan = plan_request(route, arm, need, around, warm)

    out = [excluded.target for excluded in plan.left_out]
    theirs = route.canary.target if route.canary and arm is Arm.CANARY else None
    own = warm or theirs
    every = {route.incumbent, *route.fallbacks} | ({own} - {None})
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
    route: Route,
    arm: Arm,
    need: Needs,
    around: PlanContext,
) -> None:
    plan = plan_request(route, arm, need, around)

    capable = {route.incumbent, *route.settings.capable}
    if route.canary and arm is Arm.CANARY:
        capable.add(route.canary.target)
    for target in plan.targets:
        assert not missing_capabilities(need, around.capabilities.get(target, Capabilities()))
        assert route.settings.stakes is Stakes.LOW or target in capable
        healthy = around.health.get(target, AVAILABLE).retry_in_s == 0
        assert healthy is not plan.last_resort
        assert target not in around.keyless
        if plan.forced is not None and plan.forced.in_effect:
            assert TARGETS[target].provider == plan.forced.switch.force.name


@given(routes, st.sampled_from(Arm), needs, surroundings)
def test_a_plan_is_empty_only_for_reasons_that_it_names(
    route: Route,
    arm: Arm,
    need: Needs,
    around: PlanContext,
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
@given(
    routes,
    st.sampled_from(Arm),
    needs,
    surroundings,
    st.frozensets(ids),
    st.none() | ids,
)
def test_nothing_brings_in_who_may_not_see_the_data(
    route: Route,
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


TWO_OPEN = replace(
    FAIL_FAST,
    health={INC: TargetAvailability(30.2), SPARE: TargetAvailability(12.0)},
)


@pytest.mark.req("A4")
def test_high_stakes_fall_only_to_capable_targets_and_then_fail_loudly() -> None:
    plan = plan_request(HIGH, Arm.INCUMBENT, Needs(), TWO_OPEN)

    assert (plan.targets, plan.all_open, plan.retry_after_s) == (
        (),
        True,
        12,
    )
    open_ = ExclusionReason.OPEN
    stakes = ExclusionReason.STAKES
    assert [excluded.because for excluded in plan.left_out] == [
        open_,
        open_,
        stakes,
    ]
    assert "31 s" in plan.left_out[0].reason
    assert "capable" in plan.left_out[2].reason


@pytest.mark.req("A4")
def test_low_stakes_fall_the_whole_chain() -> None:
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(), TWO_OPEN)

    assert (plan.targets, plan.all_open, plan.retry_after_s) == (
        (CHEAP,),
        False,
        None,
    )


def test_the_arms_are_never_beneath_the_stakes_but_a_canary_in_the_chain_may_be() -> None:
    route = high(Route("r", 1, INC, canary(CAN), (CAN, INC)))

    assert plan_request(route, Arm.CANARY, Needs(), PlanContext()).targets == (
        CAN,
        INC,
    )
    assert plan_request(route, Arm.INCUMBENT, Needs(), PlanContext()).targets == (INC,)
    assert CHEAP not in plan_request(HIGH, Arm.INCUMBENT, Needs(), PlanContext(), CHEAP).targets


@pytest.mark.req("A6")
def test_when_all_are_open_the_least_recently_failed_one_is_tried() -> None:
    health = {
        INC: TargetAvailability(5.0, 30.0),
        SPARE: TargetAvailability(9.0, 10.0),
        CHEAP: TargetAvailability(1.0, 20.0),
    }
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(), PlanContext(health=health))

    assert plan.targets == (SPARE,)
    assert plan.last_resort
    assert {excluded.target for excluded in plan.left_out} == {INC, CHEAP}
    never = {**health, CHEAP: TargetAvailability(1.0)}
    tried = plan_request(ROUTE, Arm.INCUMBENT, Needs(), PlanContext(health=never)).targets
    assert tried == (CHEAP,)


def test_a_wait_of_less_than_a_second_is_told_as_one() -> None:
    route = Route("r", 1, INC)
    around = replace(FAIL_FAST, health={INC: TargetAvailability(0.01)})

    assert plan_request(route, Arm.INCUMBENT, Needs(), around).retry_after_s == 1


@pytest.mark.req("A6")
def test_the_health_of_a_target_is_its_breakers_or_the_pause_it_asked_for() -> None:
    policy = BreakerPolicy(trickle_s=900.0)
    _, ticket = admit(
        CLOSED_BREAKER,
        0.0,
        policy,
    )
    assert ticket is not None
    opened = settle(CLOSED_BREAKER, ticket, F.QUOTA, 3.0, policy)

    assert target_availability(CLOSED_BREAKER, 5.0, policy) == AVAILABLE
    quota = SendHold.QUOTA
    assert target_availability(opened, 23.0, policy) == TargetAvailability(
        100.0, 3.0, held=quota
    )
    pause = Slowdown(153.0, Turns(), exhausted=True)
    assert target_availability(opened, 23.0, policy, pause) == TargetAvailability(
        130.0, 3.0, 130.0, quota
    )


@pytest.mark.req("A6")
def test_only_a_pause_or_a_quota_holds_a_target_that_did_not_fail() -> None:
    policy = BreakerPolicy(failures=1, share=0.0)
    pause = Slowdown(12.0, Turns(), exhausted=True)
    paused = target_availability(CLOSED_BREAKER, 5.0, policy, pause)
    _, ticket = admit(
        CLOSED_BREAKER,
        0.0,
        policy,
    )
    assert ticket is not None
    failed = settle(CLOSED_BREAKER, ticket, F.SERVER, 3.0, policy)

    assert (paused.held, paused.retry_in_s) == (SendHold.PAUSE, 7.0)
    assert target_availability(failed, 4.0, policy, pause).held is None


@pytest.mark.req("A5", "A6")
def test_a_slowed_target_gets_requests_at_its_turns_and_a_lone_one_lets_them_wait() -> None:
    policy = BreakerPolicy()
    slowed = Slowdown(600.0, Turns(at=6.0, gap_s=1.0))
    waits, due = (target_availability(CLOSED_BREAKER, at, policy, slowed) for at in (5.5, 6.0))

    def planned(**health: TargetAvailability) -> RoutePlan:
        around = PlanContext(health={names[name]: state for name, state in health.items()})
        return plan_request(ROUTE, Arm.INCUMBENT, Needs(), around)

    names = {"inc": INC, "spare": SPARE, "cheap": CHEAP}
    failed = TargetAvailability(9.0, 1.0)
    assert (waits.retry_in_s, due.retry_in_s, waits.pause_s) == (0.5, 0.0, 594.5)
    assert waits.held is due.held is SendHold.PAUSE
    assert planned(inc=waits).targets == (SPARE, CHEAP)
    assert planned(inc=due).targets == (INC, SPARE, CHEAP)
    alone = planned(inc=waits, spare=failed, cheap=failed)
    assert (alone.targets, alone.last_resort) == ((INC,), False)
    kept = TargetAvailability(9.0, None, 9.0, SendHold.PAUSE)
    assert planned(inc=kept, spare=kept, cheap=kept).targets == ()


@pytest.mark.req("B11")
def test_a_switch_leaves_only_what_it_forces() -> None:
    def planned(
        route: Route,
        arm: Arm,
        kind: ForceKind,
        name: str,
    ) -> RoutePlan:
        around = PlanContext(targets={t.id: t for t in KNOWN}, switches=[switch(kind, name)])
        return plan_request(route, arm, Needs(), around)

    provider = ForceKind.PROVIDER
    target = ForceKind.TARGET
    assert planned(ROUTE, Arm.CANARY, provider, "b").targets == (
        SPARE,
        CHEAP,
    )
    assert planned(HIGH, Arm.CANARY, provider, "b").targets == (SPARE,)
    assert planned(ROUTE, Arm.CANARY, target, CHEAP).targets == (CHEAP,)
    assert planned(ROUTE, Arm.INCUMBENT, target, "b/y").targets == (SPARE,)
    left_out = planned(ROUTE, Arm.CANARY, provider, "b").guest_left_out
    assert left_out is not None
    assert left_out.because is ExclusionReason.SWITCH


@pytest.mark.req("B11", "A7")
def test_a_switch_never_brings_a_target_in_or_takes_the_last_one_away() -> None:
    without = plan_request(HIGH, Arm.INCUMBENT, Needs(), PlanContext())
    for kind, name in (
        (ForceKind.PROVIDER, "elsewhere"),
        (ForceKind.TARGET, CAN),  # has evidence for its canary, not for all traffic
        (ForceKind.TARGET, CHEAP),  # beneath the stakes
    ):
        around = PlanContext(targets={t.id: t for t in KNOWN}, switches=[switch(kind, name)])
        plan = plan_request(HIGH, Arm.INCUMBENT, Needs(), around)
        assert plan.targets == without.targets
        assert plan.left_out == without.left_out
        assert plan.forced is not None
        assert not plan.forced.in_effect
        assert "keeps its plan" in plan.forced.reason


def test_a_guest_that_is_left_out_is_told() -> None:
    around = PlanContext(health={CAN: TargetAvailability(7.0)})
    plan = plan_request(ROUTE, Arm.CANARY, Needs(), around)

    assert plan.targets == (INC, SPARE, CHEAP)
    assert plan.guest_left_out == Excluded(
        CAN, ExclusionReason.OPEN, plan.left_out[0].reason, 7.0
    )
    assert plan_request(ROUTE, Arm.INCUMBENT, Needs(), around).guest_left_out is None


@pytest.mark.req("B7")
def test_tool_calls_are_serialized_for_the_plans_targets_alone() -> None:
    serial = {CHEAP: Capabilities(parallel_tools=False)}
    around = PlanContext(serial)

    assert plan_request(ROUTE, Arm.INCUMBENT, Needs(tools=True), around).serialize_tools
    assert not plan_request(HIGH, Arm.INCUMBENT, Needs(tools=True), around).serialize_tools
    plan = plan_request(ROUTE, Arm.INCUMBENT, Needs(tools=True, parallel_tools=True), around)
    assert plan.targets == (INC, SPARE)
    assert not plan.serialize_tools


CANARY_PLAN = RoutePlan(INC, CAN, (CAN, INC, SPARE, CHEAP), ())
INCUMBENT_PLAN = RoutePlan(INC, None, (INC, SPARE, CHEAP), ())


def following(
    plan: RoutePlan,
    *failures: tuple[str, F],
    fallback: bool = False,
) -> str | None:
    windows = {
        CAN: Capabilities(context_window=9),
        INC: Capabilities(context_window=8),
        SPARE: Capabilities(context_window=4),
        CHEAP: Capabilities(context_window=16),
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
        F.CONTEXT_WINDOW: CHEAP,
    }.get(failure, SPARE)

    assert following(INCUMBENT_PLAN, (INC, failure)) == expected
    assert following(INCUMBENT_PLAN, (INC, F.SERVER), (CHEAP, failure)) is None


def test_a_policy_refusal_falls_where_the_route_says_so() -> None:
    assert following(INCUMBENT_PLAN, (INC, F.CONTENT_POLICY), fallback=True) == SPARE
    assert following(INCUMBENT_PLAN, (INC, F.BAD_REQUEST), fallback=True) is None


@pytest.mark.req("A5", "F4")
@pytest.mark.parametrize("failure", sorted(CLIENT_FAILURES))
def test_what_a_guest_rejects_is_asked_once_of_the_incumbent_and_of_nobody_else(
    failure: F,
) -> None:
    without = replace(CANARY_PLAN, targets=(CAN, SPARE, CHEAP))

    assert following(CANARY_PLAN, (CAN, failure)) == INC
    assert following(without, (CAN, failure)) is None
    assert following(CANARY_PLAN, (CAN, failure), (INC, F.BAD_REQUEST)) is None


def test_a_guests_full_window_does_not_bind_the_incumbents_chain() -> None:
    own = (CAN, F.CONTEXT_WINDOW)

    assert following(CANARY_PLAN, own, (INC, F.SERVER)) == SPARE
    assert following(CANARY_PLAN, own, (INC, F.CONTEXT_WINDOW)) == CHEAP


NO_ABILITY: dict[str, Any] = {
    field.name: False for field in fields(Capabilities) if field.default is True
}
NOTHING = Capabilities(**NO_ABILITY)
FEATURES = {
    "stream": "streaming",
    "tools": "tools",
    "parallel_tools": "parallel tool calls",
    "json_schema": "JSON schema",
    "vision": "vision",
}


@pytest.mark.req("A4", "B7")
@pytest.mark.parametrize(("field", "word"), FEATURES.items())
def test_a_need_that_is_not_met_is_named(field: str, word: str) -> None:
    needs = Needs(**{field: True})  # type: ignore[arg-type]
    lack: dict[str, Any] = {field: False}
    lacking = Capabilities(**lack)

    assert missing_capabilities(needs, lacking) == (word,)
    assert missing_capabilities(Needs(), lacking) == ()
    assert missing_capabilities(needs, Capabilities()) == ()


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_an_endpoint_that_a_target_does_not_have_is_named(endpoint: Endpoint) -> None:
    has_only = Capabilities(**{**NO_ABILITY, endpoint.value: True})

    for other in Endpoint:
        expected = () if other is endpoint else (f"the {other.value} endpoint",)
        assert missing_capabilities(Needs(endpoint=other), has_only) == expected


def test_a_window_holds_input_and_output_together() -> None:
    has = Capabilities(context_window=1000)

    assert (
        missing_capabilities(Needs(approx_input_tokens=600, max_output_tokens=400), has) == ()
    )
    assert missing_capabilities(Needs(approx_input_tokens=601, max_output_tokens=400), has) == (
        "a context window of about 1001 tokens (it has 1000)",
    )


def test_a_window_is_larger_only_when_both_are_known() -> None:
    small = Capabilities(context_window=8)
    large = Capabilities(context_window=9)

    assert large.larger_than(small)
    assert not small.larger_than(small)
    assert not small.larger_than(large)
    assert not UNKNOWN_CAPABILITIES.larger_than(small)
    assert not large.larger_than(UNKNOWN_CAPABILITIES)


TABLE = """
class            fault    same_target next_target   breaker alerts reach
rate_limited     ours     retry_after yes           neutral no     key_and_model
quota            ours     never       yes           opens   yes    account
our_key          ours     never       yes           opens   yes    key
blocked          provider never       yes           opens   no     request
region           region   never       yes           opens   no     target
overloaded       provider backoff     yes           failure no     target
server           provider once        yes           failure no     target
connect          provider once        yes           failure no     target
timeout          provider never       yes           failure no     target
malformed        provider never       yes           failure no     endpoint
aborted          provider once        yes           failure no     request
empty            provider never       yes           failure no     target
bad_request      client   never       no            neutral no     request
unsupported      client   never       yes           neutral no     request
foreign_state    client   never       no            neutral no     request
endpoint_missing endpoint never       yes           neutral no     endpoint
model_unknown    ours     never       yes           opens   yes    endpoint
context_window   client   never       larger_window neutral no     request
content_policy   client   never       if_route_says neutral no     request
cancelled        client   never       no            neutral no     request
internal         router   never       yes           neutral no     request
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.req("A5", "B3")
def test_each_class_does_what_its_row_says() -> None:
    def say(value: object) -> object:
        return (
            ("no", "yes")[value] if isinstance(value, bool) else getattr(value, "value", value)
        )

    rules = {
        failure.value: [say(getattr(rule, column)) for column in HEAD[1:]]
        for failure, rule in FAILURE_RULES.items()
    }
    assert rules == {failure: cells for failure, *cells in ROWS}
