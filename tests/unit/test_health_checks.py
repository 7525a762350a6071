import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.alerts.alert import AlertKind
from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Capabilities, Endpoint
from harness.routing.reliability.breaker import (
    CLOSED_BREAKER,
    BreakerPolicy,
    BreakerState,
    admit,
    settle,
)
from router.access.rate_limits import LocalRates
from router.health.target_health import (
    PROBE_EVERY_S,
    SUSPECT_EVERY_S,
    HealthCheckState,
    TargetHealth,
    check_due_in_s,
)
from router.observers.health_checks import ANSWER_TOKENS
from router.recording.shared_files import SharedMarks
from router.request.upstream_call import MAX_CHECK_BYTES
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, CHAT, Place
from tests.support.router.live_router import FALLBACK, INCUMBENT, QUICK

INTERVAL_S = 60.0


class Checked(Place):
    """A route with a fallback."""

    def __init__(
        self,
        folder: Path,
        models: dict[str, Capabilities] | None = None,
        kind: str = "custom",
    ) -> None:
        super().__init__(
            folder,
            {INCUMBENT: completion(), FALLBACK: completion()},
            replace(QUICK, health_check_interval_s=INTERVAL_S),
            fallback=True,
            models=models,
            kind=kind,
        )

    async def check(self, after_s: float = INTERVAL_S + 1) -> list[str]:
        self.clock.advance(after_s)
        before = len(self.transport.seen)
        self.app._checks.run_due()
        await asyncio.gather(*self.app._checks._running.values())
        checks = self.transport.seen[before:]
        return sorted(json.loads(request.body)["model"] for request in checks)

    async def up(self, model: str = FALLBACK) -> float:
        return (await self.metrics())[f'swapproof_health_check_up{{target="up/{model}"}}']


@pytest.mark.req("B10")
def test_an_interval_of_zero_checks_nobody() -> None:
    quiet = HealthCheckState(
        BreakerState.CLOSED,
        0.0,
        answered_at=0.0,
        checked_at=0.0,
    )

    assert [check_due_in_s(quiet, 9.0, every_s) for every_s in (0.0, 5.0)] == [
        math.inf,
        0.0,
    ]


@pytest.mark.req("B10")
async def test_who_answered_lately_is_not_checked_and_the_check_is_cheap(
    tmp_path: Path,
) -> None:
    door = Checked(tmp_path)
    assert await door.check(INTERVAL_S - 1) == []
    await door.ask()

    assert await door.check(2) == [FALLBACK]
    assert json.loads(door.transport.seen[-1].body)["max_tokens"] == ANSWER_TOKENS
    # A provider that is ill may send anything.
    assert [request.max_bytes for request in door.transport.seen] == [
        None,
        MAX_CHECK_BYTES,
    ]
    assert await door.up() == 1
    found = await door.metrics()
    assert found[f'swapproof_health_check_duration_seconds{{target="up/{FALLBACK}"}}'] >= 0
    assert await door.check(2) == []
    # It is no client's request: in no traffic, but its tokens were spent.
    door.recorder.flush(final=True)
    assert sum(row.requests for row in door.kept.traffic) == 1
    assert found[f'swapproof_tokens_total{{kind="input",target="up/{FALLBACK}"}}'] == 7


@pytest.mark.spine
@pytest.mark.req("B10", "B4")
async def test_checks_close_a_circuit_so_that_no_user_has_to_be_the_probe(
    tmp_path: Path,
) -> None:
    door = Checked(tmp_path)
    door.script[INCUMBENT] = error(401)
    assert (await door.ask())[0] == 200
    assert await door.state(INCUMBENT) == 2
    assert INCUMBENT not in await door.check(9)  # not before its time

    assert INCUMBENT in await door.check(2)  # still refused
    assert await door.state(INCUMBENT) == 2
    assert await door.up(INCUMBENT) == 0

    door.script[INCUMBENT] = completion()
    assert INCUMBENT in await door.check(INTERVAL_S)
    assert await door.state(INCUMBENT) == 1
    assert INCUMBENT not in await door.check(PROBE_EVERY_S / 2)
    for _ in range(2):
        await door.check(PROBE_EVERY_S)
    assert await door.state(INCUMBENT) == 0
    assert await door.up(INCUMBENT) == 1
    assert (
        sum(
            json.loads(request.body).get("max_tokens") == ANSWER_TOKENS
            for request in door.transport.seen
        )
        >= 4
    )


@pytest.mark.req("B10", "A6")
@pytest.mark.parametrize(
    "turn",
    [
        error(503),
        error(500),
        ScriptedTurn(refuse=True),
    ],
)
async def test_a_fallback_that_is_down_is_told_of_within_a_minute(
    tmp_path: Path, turn: ScriptedTurn
) -> None:
    door = Checked(tmp_path)
    door.script[FALLBACK] = turn

    assert FALLBACK in await door.check()
    for _ in range(4):
        assert await door.state(FALLBACK) == 0
        assert await door.check(SUSPECT_EVERY_S) == [FALLBACK]

    assert await door.state(FALLBACK) == 2
    door.recorder.flush()
    assert [alert.kind for alert in door.kept.alerts] == [AlertKind.BREAKER_OPEN]


@pytest.mark.req("B10")
async def test_a_target_that_users_only_wait_for_is_checked_too(tmp_path: Path) -> None:
    door = Checked(tmp_path)
    door.script[INCUMBENT] = ScriptedTurn(hang=True)
    waiting = asyncio.ensure_future(door.call(CHAT, ASK))
    for _ in range(20):
        await asyncio.sleep(0)
    assert door.transport.seen

    door.script[INCUMBENT] = completion()
    assert sorted(await door.check()) == [FALLBACK, INCUMBENT]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.req("B10", "B4")
async def test_checks_that_fail_open_no_circuit_that_users_find_healthy(tmp_path: Path) -> None:
    door = Checked(tmp_path)
    for _ in range(4):
        # One user now and then; in between no check is answered.
        door.script[INCUMBENT] = completion()
        assert (await door.ask())[0] == 200
        door.script[INCUMBENT] = error(500)
        await door.check(INTERVAL_S + 1)
        for _ in range(3):
            await door.check(SUSPECT_EVERY_S)

    assert await door.state(INCUMBENT) == 0
    assert await door.up(INCUMBENT) == 0

    # A user meets with it as well: then all count.
    assert (await door.ask())[0] == 200
    for _ in range(4):
        await door.check(SUSPECT_EVERY_S)
    assert await door.state(INCUMBENT) == 2


@pytest.mark.req("B10")
@pytest.mark.parametrize(
    ("turn", "up"),
    [
        (error(404, code="model_not_found"), 0),
        (error(403), 0),
        (error(400), 1),
        (error(429), 1),
    ],
)
async def test_what_may_be_the_checks_own_fault_opens_no_circuit(
    tmp_path: Path,
    turn: ScriptedTurn,
    up: int,
) -> None:
    door = Checked(tmp_path)
    door.script[FALLBACK] = turn

    for _ in range(8):
        await door.check()

    assert (await door.state(FALLBACK), await door.up()) == (0, up)


@pytest.mark.req("B10")
async def test_a_target_is_checked_by_what_it_was_asked_for_or_is_known_to_speak(
    tmp_path: Path,
) -> None:
    door = Checked(tmp_path, {FALLBACK: Capabilities(chat=False, responses="native")})
    await door.check()
    paths = {json.loads(request.body)["model"]: request.path for request in door.transport.seen}
    assert paths == {INCUMBENT: "/chat/completions", FALLBACK: "/responses"}

    body = b'{"object":"list","model":"m","data":[{"embedding":[1.0],"index":0}]}'
    door.script[INCUMBENT] = ScriptedTurn(steps=(body,))
    await door.call("/v1/embeddings", b'{"model":"support","input":"a"}')
    await door.check()
    assert [request.path for request in door.transport.seen[-2:]].count("/embeddings") == 1
    assert await door.up(INCUMBENT) == 1


@pytest.mark.req("B10")
async def test_a_circuit_is_closed_by_a_check_where_users_failed_alone(tmp_path: Path) -> None:
    door = Checked(tmp_path, {INCUMBENT: Capabilities(responses="native")})
    await door.ask()
    door.script[INCUMBENT] = error(401)
    await door.call("/v1/responses", b'{"model":"support","input":"a"}')
    assert await door.state(INCUMBENT) == 2

    door.transport.seen.clear()
    await door.check(INTERVAL_S)

    paths = {json.loads(request.body)["model"]: request.path for request in door.transport.seen}
    assert paths[INCUMBENT] == "/responses"


@pytest.mark.req("B10")
async def test_anthropics_models_are_checked_in_their_own_protocol(tmp_path: Path) -> None:
    door = Checked(tmp_path, kind="anthropic")

    await door.check()

    assert {request.path for request in door.transport.seen} == {"/messages"}
    assert all(dict(request.headers)[b"anthropic-version"] for request in door.transport.seen)


@pytest.mark.req("B10", "A6")
@pytest.mark.parametrize(
    ("turn", "guess", "kind"),
    [
        (error(401), True, AlertKind.OUR_KEY),
        (error(404, code="model_not_found"), False, AlertKind.MODEL_UNKNOWN),
    ],
)
async def test_a_key_that_is_refused_and_a_model_withdrawn_are_found_before_a_user_does(
    tmp_path: Path,
    turn: ScriptedTurn,
    kind: AlertKind,
    *,
    guess: bool,
) -> None:
    door = Checked(tmp_path)
    if not guess:
        await door.check()
    door.script[FALLBACK] = turn

    await door.check()

    assert (await door.state(FALLBACK), await door.up()) == (2, 0)
    door.recorder.flush()
    assert [alert.kind for alert in door.kept.alerts] == [kind]


@pytest.mark.req("B10", "B4")
async def test_a_guess_that_is_wrong_keeps_no_circuit_open(tmp_path: Path) -> None:
    door = Checked(tmp_path)
    door.script |= {
        INCUMBENT: error(503),
        FALLBACK: error(404, code="model_not_found"),
    }
    for _ in range(4):
        await door.ask()
    assert await door.state(INCUMBENT) == 2
    door.script[INCUMBENT] = error(
        404, code="model_not_found"
    )  # it is a model for something else than chat

    assert INCUMBENT in await door.check(121)
    assert await door.state(INCUMBENT) == 1
    assert INCUMBENT not in await door.check(INTERVAL_S - 2)
    assert INCUMBENT in await door.check(3)


TARGET = "t"
POLICY = BreakerPolicy(
    failures=2,
    window_s=12.0,
    share=0.5,
    open_s=5.0,
    trickle_s=3.0,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.4, 1.0, 3.0, 13.0]),
            st.sampled_from(
                [
                    None,
                    None,
                    None,
                    FailureClass.SERVER,
                    FailureClass.CANCELLED,
                ]
            ),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_a_breaker_moves_as_if_each_success_were_settled_alone(
    requests: list[tuple[float, FailureClass | None, bool]],
) -> None:
    now = [100.0]
    health = TargetHealth(POLICY, lambda: now[0], LocalRates(), SharedMarks(b"s"))
    alone = CLOSED_BREAKER
    waiting: list[tuple[int, FailureClass | None]] = []  # tickets of answers that come late
    for pause_s, outcome, comes_late in requests:
        now[0] += pause_s
        ticket = health.admit(TARGET)
        alone, expected = admit(
            alone,
            now[0],
            POLICY,
        )
        assert ticket == expected
        if ticket is None:
            continue
        waiting.append((ticket, outcome))
        if comes_late:
            continue
        for held, ended in waiting:
            if ended is None:
                health.answered(TARGET, held, Endpoint.CHAT)
                assert health.answered_at[TARGET] == now[0]
            else:
                health.note_user_outcome(TARGET, ended, Endpoint.CHAT)
                health.settle(TARGET, held, ended)
            alone = settle(alone, held, ended, now[0], POLICY)
        waiting.clear()
        assert health.state(TARGET) is alone.state


def test_a_success_is_what_judge_and_settle_make_of_it() -> None:
    together, apart = (
        TargetHealth(POLICY, lambda: 7.0, LocalRates(), SharedMarks(b"s")) for _ in range(2)
    )
    for health in (together, apart):
        assert health.admit(TARGET) == 0
    together.answered(TARGET, 0, Endpoint.CHAT)
    apart.note_user_outcome(TARGET, None, Endpoint.CHAT)
    apart.settle(TARGET, 0, None)

    assert together.answered_at == apart.answered_at == {TARGET: 7.0}
    assert together.users_get_good_answers(TARGET)
    assert apart.users_get_good_answers(TARGET)
    assert together.spoken == {TARGET: Endpoint.CHAT}
