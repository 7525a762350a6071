"""A fault of ours is nobody's but ours to bear (C12): any function of ours, broken.

What a request calls is found by watching one, so that a new observer is attacked by itself.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any, Final

import pytest

from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.people.access import key_hash
from harness.frame.people.limits import KeyLimits
from harness.gate.online.guardrails import (
    ArmSplit,
    CanaryJudge,
    ErrorTally,
    Guardrail,
    Guardrails,
)
from harness.gate.online.rollout import build_exposure_rule
from harness.gate.policy import CanaryPolicy
from harness.providers.target import Price, Target
from harness.routing.reliability.breaker import BreakerPolicy
from harness.routing.route_settings import RouteSettings
from harness.routing.table import KeyGrant, Snapshot
from router.frame.replies import Header
from router.health.provider_keys import EarlyRecovery
from router.health.worker_alerts import AGAIN_S
from router.observers.canary_guard import CanaryGuards
from router.observers.request_accounting import RequestAccounting
from router.protocols.event_stream import StreamFilter
from router.request.dispatch import Dispatcher
from router.request.guardrail_probe import GuardrailProbe
from router.request.request_state import AnswerCopy, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.request.settlement import AttemptSettlement
from router.request.stream_relay import CommittedStream, OnEnd
from router.server.app import Router
from router.snapshot.compiled import CompiledTarget
from router.upstream.transport import UpstreamRequest
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.code_faults import (
    broken,
    calls_within,
    module_of,
    name_of,
)
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    QUICK,
    SECRET,
    provider,
    shadow_of,
    snapshot,
)
from tests.support.sampling import later

NOW: Final = ManualClock().now()
PRICE: Final = Price(1.0, 2.0)
TEXT: Final = "well met"
TOOL: Final = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}
RULE: Final = build_exposure_rule(
    CanaryPolicy(
        block_size=8,
        window_s=0.0,
        guardrails=replace(Guardrails(), judge=1.25),
        judge=CanaryJudge(
            "critic/m-judge",
            "It helps.",
            max_usd=1.0,
            share_bps=10_000,
        ),
    ),
    NOW,
)
# No circuit opens: each request is for itself.
SETTINGS: Final = replace(QUICK, heartbeat_s=60.0, breaker=BreakerPolicy(failures=1_000_000))
# The answer's own way: without these there is none, whatever watches or plans it. Everything
# else that a request calls is attacked.
THE_ANSWERS_OWN_WAY: Final = frozenset(
    {
        "harness.providers.calls.guarded_http",
        "harness.providers.target",
        "harness.providers.credential",
        "harness.providers.kinds",
        "harness.frame.errors",
        "harness.frame.failures",
        "harness.routing.reliability.breaker",
        "harness.routing.reliability.retry",
        "harness.providers.models.capabilities",
        "router.frame",
        "router.server.app",
        "router.server.request_body",
        "router.access.front_door",
        "harness.frame.people.access:key_hash",
        "router.request.request_state",
        "router.request.upstream_call",
        "router.request.attempts:FirstByteTimer.__init__",
        "router.request.attempts:FirstByteTimer.__call__",
        "router.request.needs:lost_features",
        "router.protocols.answers",
        "router.protocols.answer_signals",
        "router.protocols.chat.dialect",
        "router.protocols.chat.stream",
        "router.protocols.endpoints",
        "router.request.dispatch",
        "router.request.routed_response",
        "router.health.target_health",
        "router.request.needs:used_features",
        "router.request.needs:remove_fields",
        "router.request.needs:_uses_feature",
        "router.recording.internal_errors",
        "router.request.model_endpoint",
        "router.request.request_observers",
        "router.snapshot.route_plans",
        "router.upstream.transport",
        "router.health.provider_keys",
        "router.request.stream_relay",
        "router.snapshot.compiled",
        "router.snapshot.holder",
        "router.protocols.event_stream",
        "harness.frame.sse",
        "router.request.client_directives:client_headers",
        "router.request.client_directives:_read_kind",
        "router.protocols.caller_names:header_caller",
        "router.request.client_directives:_read_timeout_s",
        "router.request.client_directives:read_directives",
    }
)


class Spans:
    passed_up: tuple[Header, ...] = ()

    def begin(self, observed: RoutedRequest) -> "Spans":  # noqa: ARG002 - the port's
        return self

    def attempt(
        self,
        upstream: CompiledTarget,  # noqa: ARG002 - the port's
        number: int,  # noqa: ARG002 - the port's
        settle: OnEnd,
    ) -> OnEnd:
        return settle

    def end(self, response: RoutedResponse) -> None: ...

    def close(self) -> None: ...


def watched(weight_bps: int) -> Snapshot:
    """A route that everything watches, with a shadow beside its incumbent."""
    first = snapshot(
        "http://up/v1",
        weight_bps=weight_bps,
        fallback=True,
        rule=RULE,
        settings=RouteSettings(capture_bps=10_000, keep_warm_bps=1, task="talk"),
        providers=[
            provider("http://critic/v1", "critic", prices={"m-judge": PRICE}),
            provider("http://up/v1", prices={INCUMBENT: PRICE, CANDIDATE: PRICE}),
        ],
    )
    route = first.table.routes["support"]
    shadow = shadow_of("support", route.incumbent, Target("up", "m-shadow"))
    allowed = KeyLimits(requests_per_min=1e6, tokens_per_min=1e9, budget_day_usd=1e6)
    keys = (KeyGrant("k-good", key_hash(KEY, SECRET), limits=allowed),)
    return replace(first, keys=keys, shadows=(shadow,))


class Scene:
    def __init__(
        self,
        folder: Path,
        *,
        canary: bool,
        stream: bool,
    ) -> None:
        self.stream = stream
        self.fails = False
        self.asked: list[str] = []
        # Of nine in ten, everybody's first request is the candidate's, or the incumbent's.
        first = watched(9_999 if canary else 1)
        self.door = Door(
            folder,
            self._script_turn,
            SETTINGS,
            first=first,
            tracing=Spans(),
        )
        self.door.holder.tell_followers()
        self.arm = b"canary" if canary else b"incumbent"
        self._number = 0

    def _script_turn(self, request: Any) -> ScriptedTurn:
        model = json.loads(request.body)["model"]
        self.asked.append(model)
        if self.fails and model == (CANDIDATE if self.arm == b"canary" else INCUMBENT):
            return error(500)
        return streamed(TEXT) if self.stream and model != "m-judge" else completion(TEXT)

    async def ask(self) -> tuple[int, dict[bytes, bytes], bytes]:
        self._number += 1
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": self.stream,
            "tools": [TOOL],
            "response_format": {"type": "json_object"},
            "user": f"u{self._number}",
        }
        return await self.door.call(CHAT, json.dumps(body).encode(), headers=(AUTH,))

    async def fault(self) -> str:
        try:
            status, headers, raw = await self.ask()
        except Exception as error:  # noqa: BLE001 - any is a fault
            return f"no answer: {error!r}"
        if status != 200:
            return f"{status}: {raw[:200]!r}"
        whole = raw.endswith(b"data: [DONE]\n\n") if self.stream else json.loads(raw)["choices"]
        if not whole or TEXT.encode() not in raw:
            return f"not whole: {raw[-200:]!r}"
        return "" if headers.get(b"x-swapproof-target") else "it does not say who answered"


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["incumbent", "canary"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    *,
    stream: bool,
) -> Scene:
    return Scene(tmp_path, canary=request.param, stream=stream)


def is_own_way(code: CodeType) -> bool:
    name = name_of(code)
    module = module_of(code)
    folders = (module, module.rpartition(".")[0])
    return name in THE_ANSWERS_OWN_WAY or any(
        folder in THE_ANSWERS_OWN_WAY for folder in folders
    )


ANSWER: Final = Router._serve_model.__code__


@pytest.mark.req("A5", "F2")
@pytest.mark.parametrize("providers", [later("well"), "failing over"])
async def test_whatever_watches_or_plans_a_request_may_fail_without_it(
    scene: Scene, providers: str
) -> None:
    scene.fails = providers == "failing over"
    await scene.ask()
    found = await calls_within(ANSWER, scene.ask)
    attacked = [wait for wait in found if not is_own_way(wait)]
    wrong = []
    struck = 0
    for code in sorted(attacked, key=name_of):
        with broken(code, found[code]) as fault:
            why = await scene.fault()
        struck += bool(fault.struck)
        if why:
            wrong.append(f"{name_of(code)}: {why}")

    assert not wrong, f"{len(wrong)} of {struck}:\n" + "\n".join(wrong)
    # Nearly everything that was found is met again, and not a handful.
    assert struck > 80
    assert scene.door.recorder.counters["internal_errors"] > 80


@pytest.mark.req("A5", "F2")
async def test_a_fault_in_a_targets_call_is_answered_by_another_way(scene: Scene) -> None:
    """Its request patch, what translates and reads, what asks: until the commit point."""
    await scene.ask()
    run = Dispatcher.run.__code__
    found = await calls_within(run, scene.ask)
    del found[run]
    wrong = []
    struck = 0
    for code in sorted(found, key=name_of):
        with broken(
            code,
            found[code],
            times=1,
            within=run,
        ) as fault:
            why = await scene.fault()
        struck += bool(fault.struck)
        if why:
            wrong.append(f"{name_of(code)}: {why}")

    assert not wrong, f"{len(wrong)} of {struck}:\n" + "\n".join(wrong)
    assert struck > 40


async def metrics(door: Door) -> str:
    return (await door.call("/metrics", method="GET"))[2].decode()


async def internal_error_alerts(door: Door) -> list[Alert]:
    door.recorder.flush()
    return [alert for alert in door.kept.alerts if alert.kind is AlertKind.INTERNAL_ERROR]


@pytest.mark.req("F2", "F4")
async def test_what_runs_for_the_candidate_alone_is_charged_to_it(
    tmp_path: Path, *, stream: bool
) -> None:
    scene = Scene(tmp_path, canary=True, stream=stream)

    def broken_for_one(request: UpstreamRequest) -> ScriptedTurn:
        if json.loads(request.body)["model"] == CANDIDATE:
            raise KeyError("sk-secret: what the client said")
        return scene._script_turn(request)

    scene.door.script = broken_for_one
    assert not await scene.fault()

    scene.door.recorder.flush(final=True)
    (row,) = scene.door.kept.traffic
    assert (row.arm, row.charged, row.failed) == ("canary", 1, 0)
    (block,) = scene.door.kept.blocks.values()
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    assert errors.classes == {"internal": ArmSplit(1, 1)}
    series = 'swapproof_internal_errors_total{arm="canary",part="attempt"} 1.0'
    assert series in await metrics(scene.door)
    assert f'failure_class="internal",provider="up",target="up/{CANDIDATE}"' in await metrics(
        scene.door
    )
    (alert,) = await internal_error_alerts(scene.door)
    assert (alert.key, alert.subject) == (
        "internal_error:r-1",
        "route support",
    )
    assert "in part attempt, arm canary" in alert.text
    assert "sk-secret" not in alert.text + alert.title


@pytest.mark.req("F2", "F4")
@pytest.mark.parametrize(
    "broken_part",
    [
        RequestAccounting.after_answer,
        AttemptSettlement.settle,
        CanaryGuards.end,
        GuardrailProbe.sample,
    ],
)
async def test_a_fault_of_the_books_charges_no_arm(
    broken_part: Any,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    scene = Scene(tmp_path, canary=True, stream=stream)

    with broken(broken_part.__code__, [broken_part]):
        assert not await scene.fault()

    scene.door.recorder.flush(final=True)
    (row,) = scene.door.kept.traffic
    assert (row.arm, row.requests, row.charged) == ("canary", 1, 0)
    (block,) = scene.door.kept.blocks.values()
    assert (block.units, block.failures, block.missing) == (1, 0, 0)
    assert await internal_error_alerts(scene.door)


@pytest.mark.spine
@pytest.mark.req("F4")
async def test_a_fault_of_what_asks_any_target_charges_no_arm(tmp_path: Path) -> None:
    scene = Scene(tmp_path, canary=True, stream=False)

    with broken(Dispatcher._attempt.__code__, [Dispatcher._attempt], times=1):  # type: ignore[list-item]  # a function
        assert not await scene.fault()

    scene.door.recorder.flush(final=True)
    (row,) = scene.door.kept.traffic
    assert (row.arm, row.charged, row.failed) == ("canary", 0, 0)
    assert scene.asked[0] == INCUMBENT


@pytest.mark.req("A5", "F2")
@pytest.mark.parametrize(
    ("part", "stream"),
    [
        (AnswerCopy.add, True),
        (EarlyRecovery.evaluate, True),
        (EarlyRecovery.evaluate, False),
    ],
)
async def test_an_answer_goes_on_without_who_copies_counts_or_notices(
    part: Any,
    tmp_path: Path,
    *,
    stream: bool,
) -> None:
    scene = Scene(tmp_path, canary=False, stream=stream)

    with broken(part.__code__, [part]):
        assert not await scene.fault()

    copied = part is not AnswerCopy.add
    assert scene.door.recorder.counters["captures_too_large"] == (0 if copied else 1)
    if part is EarlyRecovery.evaluate:
        assert 'part="recording"' in await metrics(scene.door)


@pytest.mark.req("A5", "F4")
@pytest.mark.parametrize(
    ("part", "within"),
    [
        (StreamFilter.feed, CommittedStream.sent.__code__),
        (CommittedStream._begin_wait, None),
    ],
)
async def test_an_answer_that_can_be_read_no_further_ends_in_an_error(
    part: Any,
    within: CodeType | None,
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, canary=True, stream=True)
    turn = streamed("one ", "two ", "three")
    scene.door.script = lambda _: turn

    with broken(
        part.__code__,
        [part],
        times=1,
        within=within,
    ):
        status, _, raw = await scene.ask()

    assert status == 200
    assert b'"one "' in raw
    assert b'"code": "internal"' in raw
    assert b"[DONE]" not in raw
    scene.door.recorder.flush(final=True)
    (row,) = scene.door.kept.traffic
    assert (row.charged, row.failed) == (1, 1)
    assert 'part="stream"' in await metrics(scene.door)


@pytest.mark.req("F2")
async def test_what_watches_beside_all_requests_goes_on_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.recording.internal_errors.RESTART_PAUSE_S", 0.0)
    scene = Scene(tmp_path, canary=False, stream=False)
    begun: list[int] = []
    again = asyncio.Event()

    async def watch() -> None:
        begun.append(len(begun))
        if len(begun) == 1:
            raise KeyError("what the client said")
        again.set()
        await asyncio.Event().wait()

    kept = asyncio.create_task(scene.door.app._background.keep_up(watch))
    await again.wait()
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)

    assert 'part="background"' in await metrics(scene.door)


async def test_the_first_fault_is_told_at_once_and_others_not_each(tmp_path: Path) -> None:
    scene = Scene(tmp_path, canary=False, stream=False)

    with broken(RequestAccounting.after_answer.__code__, [RequestAccounting.after_answer]):  # type: ignore[list-item]  # a function
        await scene.ask()
        assert len(await internal_error_alerts(scene.door)) == 1
        for _ in range(20):
            await scene.ask()
    scene.door.app._alerts.evaluate()
    assert len(await internal_error_alerts(scene.door)) == 1

    scene.door.clock.advance(AGAIN_S)
    scene.door.app._alerts.evaluate()
    scene.door.app._alerts.evaluate()
    assert len(await internal_error_alerts(scene.door)) == 2
