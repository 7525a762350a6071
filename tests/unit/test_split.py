import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from harness.app.gateways.drive import SplitDrive
from harness.app.gateways.litellm_admin import LiteLLMAdmin, read_row
from harness.canary.split import (
    LONGEST_LOG_DELAY,
    DrivenTargets,
    Outcome,
    Split,
    TrustedTime,
    allowed_split,
    confirm_time,
    find_time,
)
from harness.frame.alerts.alert import AlertEvent
from harness.frame.errors import UpstreamError
from harness.frame.people.audience import Audience, CallerSet, CallerSource, StepAudience
from harness.gate.online.outcome import ROUTER_FAULT, ExposureOutcome
from harness.providers.force import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
)
from harness.providers.target import Provider, Target
from harness.routing.table import Arm, Canary, Route, RoutingTable, Snapshot
from router.recording.port import Recording
from router.recording.sums import CompletedRequest
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.compiler import compile_snapshot
from tests.support.control.manual_clock import ManualClock
from tests.support.site.http_thread import Exchange
from tests.support.site.http_thread import serving as serving_http

pytestmark = pytest.mark.req("F1")

START = datetime(2026, 1, 1, tzinfo=UTC)
BASE = Target("sim", "base")
BETTER = Target("sim", "better")
TARGETS = {target.id: target for target in (BASE, BETTER)}
CANARY = Canary(BETTER.id, 100, "salt", "ro_1")
ROUTE = Route("support", 1, BASE.id)
IN_CANARY = replace(ROUTE, canary=CANARY)
PROMOTED = replace(ROUTE, incumbent=BETTER.id)


def serving(route: Route, *switches: KillSwitch) -> CompiledSnapshot:
    targets = {id_: TARGETS[id_] for id_ in {*route.targets, BASE.id}}
    table = RoutingTable(7, {"odd": replace(ROUTE, name="odd"), "support": route}, targets)
    provider = Provider("sim", "sim", "http://127.0.0.1:9/v1", "")
    return compile_snapshot(Snapshot(table, {"sim": provider}, (), "1", switches))


def switch(kind: ForceKind, name: str) -> KillSwitch:
    return KillSwitch("s", None, Force(kind, name), "", "", START, None, SwitchSource.CLI)


def test_only_a_route_with_a_canary_gives_its_candidate_a_share() -> None:
    def allowed(route: Route, *switches: KillSwitch) -> Split:
        return allowed_split(TARGETS, route, switches, START)

    assert allowed(ROUTE) == {BASE.id: 10_000}
    assert allowed(IN_CANARY) == {BASE.id: 9_900, BETTER.id: 100}
    assert allowed(PROMOTED) == {BETTER.id: 10_000}
    avoided = switch(ForceKind.AVOID_TARGET, BETTER.id)
    assert allowed(IN_CANARY, avoided) == {BASE.id: 10_000}


def test_no_caller_of_a_gateway_gets_the_candidate_of_a_canary_with_an_audience() -> None:
    staff = Audience(first=(CallerSet(CallerSource.USER, values=("ada",)),))
    rule = replace(CANARY.unit_rule, audiences=(StepAudience(1, staff),))
    canary = replace(CANARY, unit_rule=rule)
    named = replace(ROUTE, canary=canary)
    assert allowed_split(TARGETS, named, (), START) == {BASE.id: 10_000}
    baking = replace(PROMOTED, holdback=replace(canary, target=BASE.id, control=True))
    assert allowed_split(TARGETS, baking, (), START) == {BETTER.id: 9_900, BASE.id: 100}

    scene = Scene()
    told = [text for _ in range(2) for _, text in scene.tick(named)]
    assert any("its canary has an audience" in text for text in told)


def test_a_request_counts_at_the_share_at_which_it_began_however_late_it_ends() -> None:
    def moment(minute: int, canary: Canary | None) -> TrustedTime:
        at = START + timedelta(minutes=minute)
        return TrustedTime(BASE.id, canary, at, at)

    settles = timedelta(seconds=30)
    raised = replace(CANARY, weight_bps=5_000)
    times = confirm_time((), moment(0, CANARY), settles)
    times = confirm_time(times, moment(3, CANARY), None)
    times = confirm_time(times, moment(4, raised), settles)
    times = confirm_time(times, moment(6, raised), None)

    def share(second: int) -> int | None:
        found = find_time(times, START + timedelta(seconds=second))
        return found.trial.weight_bps if found and found.trial else None

    # Not while the share settles, nor after the last look that saw it.
    assert [share(s) for s in (29, 31, 179, 181, 269, 271, 359, 361)] == [
        None,
        100,
        100,
        None,
        None,
        5_000,
        5_000,
        None,
    ]
    assert len(confirm_time(times, moment(60, raised), settles)) == 1


def test_each_arm_has_its_name_also_while_a_promotion_bakes() -> None:
    live = TrustedTime(BASE.id, CANARY, START, START)
    bake = TrustedTime(
        BETTER.id,
        replace(CANARY, target=BASE.id, control=True),
        START,
        START,
    )

    assert (live.find_arm(BASE.id), live.find_arm(BETTER.id)) == (
        Arm.INCUMBENT,
        Arm.CANARY,
    )
    assert (bake.find_arm(BASE.id), bake.find_arm(BETTER.id)) == (
        Arm.HOLDBACK,
        Arm.INCUMBENT,
    )
    assert live.candidate == bake.candidate == BETTER.id
    assert live.find_arm("t_other") is None


def row(**more: Any) -> dict[str, Any]:
    return {
        "request_id": "chatcmpl-1",
        "session_id": "s1",
        "model_group": "support",
        "model_id": "d_base",
        "status": "success",
        "cache_hit": "None",
        "startTime": "2026-01-01T00:00:01.5",
        "endTime": "2026-01-01T00:00:02Z",
        "metadata": {"attempted_retries": 0, "attempted_fallbacks": 0},
        **more,
    }


@pytest.mark.parametrize(
    ("logged", "read"),
    [
        ({}, ("base", False, True)),
        ({"status": "failure"}, ("base", True, False)),
        # A refusal that the caller caused.
        (
            {
                "status": "failure",
                "metadata": {"error_information": {"error_code": "400"}},
            },
            ("base", False, False),
        ),
        # A retry answered, and the callback names the deployment that failed first.
        (
            {
                "metadata": {
                    "attempted_retries": 1,
                    "spend_logs_metadata": {"swapproof_failed": "d_better"},
                }
            },
            ("better", True, True),
        ),
        # Without the callback it may have been either.
        ({"metadata": {"attempted_fallbacks": 1}}, (None, True, True)),
        # A caller cannot put the mark on its own request.
        (
            {"metadata": {"spend_logs_metadata": {"swapproof_failed": "d_better"}}},
            ("base", False, True),
        ),
        ({"cache_hit": "True"}, None),
        ({"model_id": "removed"}, None),
        ({"model_id": ""}, None),
    ],
)
def test_a_spend_log_says_which_target_failed_first(
    logged: dict[str, Any], read: tuple[str | None, bool, bool] | None
) -> None:
    outcome = read_row(row(**logged), {"d_base": "base", "d_better": "better"})

    assert (outcome and (outcome.target, outcome.failed, outcome.answered)) == read
    if outcome is not None:
        assert (outcome.caller, outcome.latency_s) == ("s1", 0.5)


class Gateway:
    """A gateway that holds what it is told, and logs what it is given."""

    def __init__(self) -> None:
        self.split: Split = {BASE.id: 5_000, BETTER.id: 5_000}
        self.outcomes: list[Outcome] = []
        self.fault = self.unread = ""
        self.is_odd = False

    def begin_look(self) -> None:
        if self.fault:
            raise UpstreamError(self.fault)

    def read_split(self, route: str, targets: Collection[Target]) -> Split:
        if route == "odd" and self.is_odd:
            raise KeyError("a fault of this test")
        known = {target.id for target in targets}
        named = {t if t in known else f"deployment {t}": bps for t, bps in self.split.items()}
        return named if route == "support" else {}

    def set_split(
        self,
        route: str,
        targets: Collection[Target],
        split: Split,
    ) -> None:
        assert route == "support"
        assert set(split) <= {target.id for target in targets}
        self.split = split

    def read_outcomes(self, since: datetime, driven: DrivenTargets) -> Iterable[Outcome]:
        assert list(driven) == ["support"]
        yield from [outcome for outcome in self.outcomes if outcome.started_at >= since]
        if self.unread:
            raise UpstreamError(self.unread)


class Records(Recording):
    """What a router's recorder gets, in order."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__("litellm-1", clock)
        self.units: list[tuple[str, bool, int]] = []
        self.requests: list[CompletedRequest] = []
        self.outcomes: list[ExposureOutcome] = []

    def admit_to(
        self,
        _: str,
        __: object,
        key: str,
        *,
        canary: bool,
        weight_bps: int,
    ) -> None:
        self.units.append((key, canary, weight_bps))

    def finish(
        self,
        ticket: object,  # noqa: ARG002 - the recorder's
        ended: CompletedRequest,
        sample: object = None,  # noqa: ARG002 - the recorder's
        outcome: ExposureOutcome = ROUTER_FAULT,
    ) -> None:
        self.requests.append(ended)
        self.outcomes.append(outcome)

    def alerts(self) -> list[tuple[AlertEvent, str]]:
        return [(alert.news, alert.text) for alert in self._take_sums().alerts]


class Scene:
    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.gateway = Gateway()
        self.records = Records(self.clock)
        self.start()

    def start(self) -> None:
        self.drive = SplitDrive(
            self.gateway,
            self.records,  # type: ignore[arg-type]  # the parts that the drive uses
            self.clock,
            timedelta(seconds=30),
        )

    def tick(self, route: Route) -> list[tuple[AlertEvent, str]]:
        self.clock.advance(10)
        self.drive.tick(serving(route))
        return self.records.alerts()

    def log(self, target: Target | None, *, failed: bool = False) -> None:
        number = len(self.gateway.outcomes)
        now = self.clock.now()
        self.gateway.outcomes.append(
            Outcome(
                id=f"r{number}",
                route="support",
                caller=f"s{number}",
                target=target.id if target else None,
                started_at=now,
                failed=failed,
                answered=True,
                why="",
                latency_s=1.0,
                input_tokens=1,
                output_tokens=1,
            )
        )


@pytest.mark.spine
@pytest.mark.req("G1")
def test_a_canary_is_counted_from_its_share_until_its_rollback() -> None:
    scene = Scene()
    scene.tick(ROUTE)
    assert scene.gateway.split == {BASE.id: 10_000}
    scene.tick(IN_CANARY)
    assert scene.gateway.split == {BASE.id: 9_900, BETTER.id: 100}
    scene.log(BETTER)  # the share has not settled
    for _ in range(4):
        scene.tick(IN_CANARY)
    scene.log(BASE)
    scene.log(BETTER, failed=True)
    scene.tick(IN_CANARY)
    assert scene.tick(IN_CANARY) == []

    assert scene.records.units == [("s1", False, 100), ("s2", True, 100)]
    assert [(r.arm, r.charged, r.failed) for r in scene.records.requests] == [
        ("incumbent", False, False),
        ("canary", True, False),
    ]
    assert scene.tick(ROUTE) == []
    assert scene.gateway.split == {BASE.id: 10_000}


def test_a_share_that_swapproof_did_not_set_is_an_alert_and_its_requests_are_no_evidence() -> (
    None
):
    scene = Scene()
    for _ in range(5):
        scene.tick(IN_CANARY)
    scene.gateway.split = {BASE.id: 0, BETTER.id: 10_000}
    scene.log(BETTER)

    ((news, text),) = scene.tick(IN_CANARY)

    assert news is AlertEvent.RAISED
    assert "sim/better has 100 % instead of 1 %" in text
    assert scene.gateway.split == {BASE.id: 9_900, BETTER.id: 100}
    ((news, _),) = scene.tick(IN_CANARY)
    assert news is AlertEvent.ENDED
    for _ in range(5):
        scene.tick(IN_CANARY)
    assert scene.records.units == []


def test_a_gateway_without_an_answer_is_an_alert_and_keeps_its_split() -> None:
    scene = Scene()
    scene.tick(IN_CANARY)
    scene.records.alerts()
    scene.gateway.fault = "LiteLLM at http://lite does not answer: refused"

    ((_, text),) = scene.tick(ROUTE)

    assert "does not answer" in text
    assert scene.gateway.split == {BASE.id: 9_900, BETTER.id: 100}
    assert scene.tick(ROUTE) == []  # said once a minute
    scene.gateway.fault = ""
    scene.start()  # another process goes on
    scene.tick(ROUTE)
    assert scene.gateway.split == {BASE.id: 10_000}


def test_a_fault_of_one_route_or_of_the_log_is_an_alert_and_the_others_get_their_split() -> (
    None
):
    scene = Scene()
    for _ in range(2):
        scene.tick(ROUTE)
    scene.gateway.is_odd = True
    ((_, text),) = scene.tick(IN_CANARY)
    assert text.startswith("an unexpected fault, KeyError('a fault of this test'): its last")
    assert scene.gateway.split == {BASE.id: 9_900, BETTER.id: 100}

    scene.gateway.is_odd = False
    scene.gateway.unread = "a row is unreadable"
    for _ in range(4):
        scene.tick(IN_CANARY)
    scene.log(BETTER)
    scene.tick(IN_CANARY)
    scene.gateway.unread = "a page is unreadable"
    ((_, text),) = scene.tick(ROUTE)
    assert text == "a page is unreadable. Unread requests do not count as evidence."
    assert scene.records.units == [("s0", True, 100)]
    assert scene.gateway.split == {BASE.id: 10_000}


def test_a_failure_whose_model_is_not_named_counts_against_the_candidate() -> None:
    scene = Scene()
    for _ in range(5):
        scene.tick(IN_CANARY)
    scene.records.alerts()
    scene.log(None, failed=True)

    ((_, text),) = scene.tick(IN_CANARY)

    assert "the log does not name the model" in text
    assert scene.records.units == [("s0", True, 100)]


def test_a_session_that_began_before_the_canary_is_no_evidence() -> None:
    scene = Scene()
    scene.tick(ROUTE)
    scene.log(BASE)
    for _ in range(5):
        scene.tick(IN_CANARY)
    scene.log(BASE)
    (early, again) = scene.gateway.outcomes
    scene.gateway.outcomes[1] = replace(again, caller=early.caller)
    scene.log(BASE)
    scene.tick(IN_CANARY)
    scene.tick(IN_CANARY)

    assert [key for key, *_ in scene.records.units] == ["s2"]
    assert len(scene.records.requests) == 2


def test_a_late_log_counts_once() -> None:
    scene = Scene()
    for _ in range(9):
        scene.tick(IN_CANARY)
    scene.log(BETTER)
    (late,) = scene.gateway.outcomes
    scene.gateway.outcomes = []
    # Just after a look at late logs: the next one is three minutes later.
    for _ in range(65):
        scene.tick(IN_CANARY)
    assert scene.clock.now() - late.started_at < LONGEST_LOG_DELAY
    scene.gateway.outcomes = [late]
    for _ in range(36):
        scene.tick(IN_CANARY)

    assert scene.records.units == [("s0", True, 100)]


class LiteLLM(Exchange):
    """Lists a route's two deployments, and logs a row that cannot be read before a good one."""

    changes: ClassVar[list[tuple[str, object]]] = []

    def exchange(self) -> None:
        sent = self.received_body()
        self.changes.append((self.path, json.loads(sent) if sent else None))
        models = [
            {
                "model_name": "support",
                "litellm_params": {
                    "model": f"openai/{name}",
                    "weight": weight,
                },
                "model_info": {
                    "id": f"d_{name}",
                    "db_model": True,
                    "blocked": False,
                },
            }
            for name, weight in (("base", 7), ("better", 0))
        ]
        rows = [row(endTime=None), row(request_id="r2")]
        found = {
            "data": models if "model" in self.path else rows,
            "total_pages": 1,
        }
        self.answer(200, json.dumps(found).encode())

    do_GET = do_PATCH = exchange  # noqa: N815 - the base class calls them so


def test_litellm_may_retry_at_a_weight_of_zero_unless_the_deployment_is_blocked() -> None:
    LiteLLM.changes.clear()
    with serving_http(LiteLLM) as port:
        admin = LiteLLMAdmin(f"http://127.0.0.1:{port}", "sk-1")
        admin.begin_look()
        assert admin.read_split("support", TARGETS.values()) == {
            BASE.id: 10_000,
            BETTER.id: 1,
        }
        admin.set_split("support", TARGETS.values(), {BASE.id: 10_000})

    _, (_, kept), (path, stopped) = LiteLLM.changes
    assert kept == {"litellm_params": {"weight": 10_000}, "blocked": False}
    assert path == "/model/d_better/update"
    assert stopped == {"litellm_params": {"weight": 0}, "blocked": True}


def test_a_row_that_cannot_be_read_is_a_fault_after_all_other_rows_count() -> None:
    with serving_http(LiteLLM) as port:
        admin = LiteLLMAdmin(f"http://127.0.0.1:{port}", "sk-1")
        admin.begin_look()
        outcomes = iter(admin.read_outcomes(START, {"support": TARGETS.values()}))
        assert next(outcomes).id == "r2"
        with pytest.raises(UpstreamError, match="a row of LiteLLM's logs is unreadable"):
            next(outcomes)
