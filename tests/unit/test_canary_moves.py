from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.canary import decision, duration_estimate, operations, status
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import IllegalTransition, InputError
from harness.frame.people.access import SYSTEM
from harness.gate.online.guardrails import CanaryJudge, Guardrail
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import CanaryEnd, Rollout, RolloutSignal, RolloutState
from harness.proposals import route_rules
from harness.providers.records import Targets
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN

pytestmark = pytest.mark.req("F3")


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path)
    made.set_up()
    return made


def opened(world: SmallInstallation) -> Rollout:
    world.in_canary()
    return world.rollout()


def give(
    world: SmallInstallation,
    signal: RolloutSignal,
    reason: str,
) -> None:
    operations.operate(world.context(), BEN, "chat", signal, reason=reason)


def moves(world: SmallInstallation) -> list[str]:
    events = status.list_canary_moves(world.context(), world.rollout())
    return [event.action for event in reversed(events)]


def alert_texts(world: SmallInstallation, kind: AlertKind) -> list[tuple[str, str]]:
    with world.store.read() as tx:
        return [(alert.title, alert.text) for alert in Alerts(tx).list() if alert.kind is kind]


def record(
    world: SmallInstallation,
    target: str,
    requests: int,
    minutes_ago: int,
) -> None:
    minute = world.clock.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
    row = TrafficMinute(
        "chat",
        minute,
        f"w-{target}-{minutes_ago}",
        "incumbent",
        target,
        1,
        requests,
        0,
        0,
        0,
        0,
        0,
        0.0,
    )
    with world.store.write() as tx:
        Observations(tx).append([], [row])


def test_every_move_up_to_the_end_of_the_bake_is_listed_in_its_order(
    world: SmallInstallation,
) -> None:
    world.policy = replace(world.policy, canary=replace(world.policy.canary, bake_s=86_400.0))
    world.promoted()
    assert world.rollout().baking
    give(world, RolloutSignal.FINISH, "it is good")

    assert moves(world)[:2] == ["canary.enough", "canary.step_done"]
    assert moves(world)[-2:] == ["canary.promote", "canary.finish"]
    assert status.explain_canary(world.context(), "chat").moves
    with world.store.read() as tx:
        kinds = [version.kind for version in Routing(tx).history("chat")]
        weights = [
            version.route.holdback is not None for version in Routing(tx).history("chat")
        ]
    assert (kinds[:2], weights[:2]) == (
        ["settings", "promotion"],
        [False, True],
    )
    assert {"baseline", "canary", "weight"} <= {*kinds}
    ((title, text),) = alert_texts(world, AlertKind.PROMOTED)
    assert title == "sim/better is now the model of route chat"
    assert text.startswith("It took the place of sim/base. ")


def test_a_pause_keeps_the_share_and_tells_why_until_it_is_resumed(
    world: SmallInstallation,
) -> None:
    share = opened(world).current.weight_bps
    give(world, RolloutSignal.PAUSE, "a look at the answers")

    assert world.rollout().state is RolloutState.PAUSED
    canary = world.route().canary
    assert canary is not None
    assert canary.weight_bps == share
    ((title, text),) = alert_texts(world, AlertKind.CANARY_PAUSED)
    assert title == "the canary of route chat is paused and waits for a person"
    with world.store.read() as tx:
        assert decision.find_pause_reason(tx, world.rollout()) == text
    give(world, RolloutSignal.RESUME, "all is well")
    with world.store.read() as tx:
        assert decision.find_pause_reason(tx, world.rollout()) == ""
    # Without faults nothing is acknowledged.
    assert moves(world)[-2:] == ["canary.pause", "canary.resume"]
    with pytest.raises(IllegalTransition):
        give(world, RolloutSignal.RESUME, "once more")


@pytest.mark.parametrize(
    ("requests", "minutes", "known"),
    [
        (2, 1, False),
        (2, 30, True),
        (5_000, 1, True),
        (0, 30, False),
    ],
)
def test_a_pace_is_taken_of_many_requests_or_of_a_long_time_and_of_no_trial(
    world: SmallInstallation,
    requests: int,
    minutes: int,
    *,
    known: bool,
) -> None:
    with world.store.read() as tx:
        (target,) = Targets(tx).all()
    if requests:
        record(world, target, requests, minutes)

    plan = duration_estimate.estimate_for_route(world.context(), "chat")
    assert (plan.pace is not None) is known
    assert bool(plan.steps) is known
    late = known and not plan.in_time
    assert any("shadow start" in option for option in plan.options) is late
    # The route refuses a shadow.
    routes.change_settings(
        world.context(),
        SYSTEM,
        "chat",
        lambda now: replace(now, side_effects=True),
    )
    plan = duration_estimate.estimate_for_route(world.context(), "chat")
    assert ("Give such a step" in " ".join(plan.options)) is late
    assert "shadow start" not in " ".join(plan.options)


@pytest.mark.parametrize(
    ("model", "max_usd", "words"),
    [
        ("sim/base", 1.0, ""),
        (
            "sim/unpriced",
            1.0,
            "lets sim/unpriced judge its canaries, for up to [$]1.00, but the price",
        ),
        ("away/base", 1.0, "swapproof model price away/base INPUT OUTPUT"),
        ("sim/base", 0.0, "the judge cannot read answers without money"),
    ],
)
def test_a_judge_is_refused_before_anything_is_paid_for(
    world: SmallInstallation,
    model: str,
    max_usd: float,
    words: str,
) -> None:
    policy = replace(
        world.policy,
        canary=replace(
            world.policy.canary,
            judge=CanaryJudge(model, "It answers.", max_usd=max_usd),
            guardrails=replace(
                world.policy.canary.guardrails,
                **{Guardrail.JUDGE.value: 1.25},
            ),
        ),
    )
    with world.store.read() as tx:
        if not words:
            route_rules.check_judge(world.context(), tx, world.route(), policy)
            return
        with pytest.raises(InputError, match=words):
            route_rules.check_judge(world.context(), tx, world.route(), policy)


def test_the_status_of_a_canary_tells_its_moves_its_timeline_and_when_it_changed(
    world: SmallInstallation,
) -> None:
    rollout = opened(world)
    world.feed(blocks=4)
    did = world.run_once().did
    shown = status.explain_canary(world.context(), "chat").status
    assert [words.split(":")[0] for words in did if words.startswith("p_")] == [
        rollout.proposal
    ]
    assert world.rollout().state.value in did[0]
    assert shown.changed_at == world.rollout().updated_at
    assert [point.at for point in shown.timeline] == [block.closed_at for block in shown.blocks]
    assert shown.hold_reasons == []


def test_a_promotion_that_was_rolled_back_later_is_dated_and_told_with_its_author(
    world: SmallInstallation,
) -> None:
    world.promoted()
    assert world.rollout().state is RolloutState.PROMOTED
    promoted_at = world.rollout().updated_at
    with world.store.read() as tx:
        assert routes.find_later_rollback(tx, world.rollout()) is None
    assert routes.read_later_end(None) is None
    world.clock.advance(60)
    with pytest.raises(InputError, match="reason"):
        operations.roll_back(world.context(), BEN, "chat", reason=" ")
    operations.roll_back(world.context(), BEN, "chat", reason="complaints")

    shown = status.explain_canary(world.context(), "chat").status
    assert shown.rollback is not None
    assert shown.changed_at == shown.rollback.at > promoted_at
    ending = routes.read_later_end(shown.rollback)
    assert ending is not None
    assert (ending.end, ending.by) == (CanaryEnd.PROMOTION_ROLLED_BACK, "ben")
    assert ending.why == "complaints"
