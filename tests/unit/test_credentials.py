import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.providers.credential import (
    ProviderKey,
    StoredKey,
    hide_secrets,
    keys_from_environment,
    lacks_key,
)
from harness.providers.target import Provider
from harness.routing.table import Snapshot
from router.snapshot.holder import no_keys
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    EVENTS,
    completion,
    error,
)
from tests.support.router.asgi_router import ASK, CHAT, Door, Script
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    UPSTREAM_KEY,
    UPSTREAM_KEYS,
    provider,
    snapshot,
    switch_of,
    upstream_keys,
)

LOCAL = Provider("here", "ollama", "http://127.0.0.1:11434/v1")
HOSTED = Provider("groq", "groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY")


def test_keys_of_the_environment_come_in_the_order_of_their_names() -> None:
    asked = replace(HOSTED, more_api_key_envs=("B", "A"))

    keys = keys_from_environment(
        asked,
        {
            "A": "1",
            "B": "",
            "GROQ_API_KEY": "2",
        },
    )

    assert keys == (ProviderKey("GROQ_API_KEY", "2"), ProviderKey("A", "1"))
    assert "2" not in repr(keys[0])


def test_a_secret_that_a_provider_repeats_is_hidden_and_so_is_a_longer_one_that_holds_it() -> (
    None
):
    said = hide_secrets(
        b"bad key sk-abcdefgh and sk-abcdefgh-2",
        ["sk-abcdefgh", "sk-abcdefgh-2", "bad"],
    )

    assert said == b"bad key [hidden] and [hidden]"


@pytest.mark.req("E5")
@pytest.mark.parametrize(
    ("asked", "stored_before", "lacks"),
    [
        (HOSTED, False, True),
        (replace(HOSTED, api_key_env=None), False, True),
        (
            replace(HOSTED, extra_headers={"Authorization": "Basic x"}),
            False,
            False,
        ),
        (LOCAL, False, False),
        (LOCAL, True, True),
        (replace(LOCAL, api_key_env="NAMED"), False, True),
        (replace(LOCAL, kind="unheard-of"), False, False),
    ],
)
def test_a_provider_lacks_a_key_when_it_wants_one_and_has_none(
    asked: Provider,
    *,
    stored_before: bool,
    lacks: bool,
) -> None:
    assert lacks_key(asked, (), stored_before=stored_before) is lacks
    assert not lacks_key(asked, (ProviderKey("k", "v"),), stored_before=stored_before)


class TwoProviders(Door):
    """`up` has the incumbent; the canary's model is another provider's, whose key is there."""

    def __init__(self, folder: Path, weight_bps: int = 0) -> None:
        spare = provider("http://spare", "spare", api_key_env="UP_KEY_2")
        first = snapshot(
            "http://up",
            weight_bps=weight_bps,
            providers=[spare, provider("http://up", api_key_env="NOT_SET")],
            candidate_provider="spare",
        )
        chain = tuple(
            id_ for id_, target in first.table.targets.items() if target.model == CANDIDATE
        )
        routes = {
            name: replace(route, fallbacks=chain) for name, route in first.table.routes.items()
        }
        super().__init__(
            folder,
            first=replace(first, table=replace(first.table, routes=routes)),
        )


@pytest.mark.req("E5")
async def test_a_target_without_a_key_is_never_asked_and_the_next_one_answers(
    tmp_path: Path,
) -> None:
    door = TwoProviders(tmp_path)

    status, headers, _ = await door.call(CHAT, ASK)

    assert (status, headers[b"x-swapproof-target"]) == (
        200,
        f"spare/{CANDIDATE}".encode(),
    )
    assert headers[b"x-swapproof-attempts"] == b"1"
    door.app._alerts.evaluate()
    door.recorder.flush()
    [alert] = door.kept.alerts
    assert (alert.kind, alert.news) == (AlertKind.OUR_KEY, AlertEvent.RAISED)
    assert alert.title == "up gets no requests: it has no key"
    assert [failover.failure for failover in door.kept.failovers] == ["no_key"]

    good = replace(
        door.kept.snapshot(),
        etag="again",
        providers=door.kept.snapshot().providers,
    )
    door.holder._keys_of = lambda of: {
        **upstream_keys(of),
        "up": (ProviderKey("k", "v"),),
    }
    door.kept.put(good)
    assert door.holder.refresh()
    status, headers, _ = await door.call(CHAT, ASK)
    assert headers[b"x-swapproof-target"] == f"up/{INCUMBENT}".encode()
    door.app._alerts.evaluate()
    door.recorder.flush()
    assert [alert.news for alert in door.kept.alerts] == [
        AlertEvent.RAISED,
        AlertEvent.ENDED,
    ]


@pytest.mark.req("E5")
async def test_where_no_target_has_a_key_the_client_is_told_so(tmp_path: Path) -> None:
    door = Door(tmp_path)
    door.holder._keys_of = no_keys
    door.kept.put(replace(door.kept.snapshot(), etag="again"))
    assert door.holder.refresh()

    status, _, body = await door.call(CHAT, ASK)

    told = json.loads(body)["error"]
    assert (status, told["code"]) == (503, "no_target_left")
    assert told["targets"][0]["left_out"] == "no_key"
    assert "its provider has no key" in told["message"]


@pytest.mark.req("D4")
async def test_a_key_that_a_provider_repeats_in_its_refusal_does_not_reach_the_client(
    tmp_path: Path,
) -> None:
    refused = replace(
        error(400),
        steps=(json.dumps({"error": {"message": f"bad {UPSTREAM_KEY}"}}).encode(),),
    )
    door = Door(tmp_path, lambda _: refused)

    status, _, body = await door.call(CHAT, ASK)

    assert status == 400
    assert json.loads(body)["error"]["message"] == "bad [hidden]"


@pytest.mark.req("D4")
@pytest.mark.parametrize("cut", [1, 40, 1000])
async def test_a_key_in_an_error_event_after_the_first_output_does_not_reach_the_client(
    tmp_path: Path, cut: int
) -> None:
    told = {"code": "server_error", "message": f"bad {UPSTREAM_KEY}"}
    events = [
        {"type": "response.output_text.delta", "delta": "hi"},
        {"type": "response.failed", "response": {"id": "r", "error": told}},
    ]
    sent = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    pieces = tuple(sent[at : at + cut] for at in range(0, len(sent), cut))
    door = Door(tmp_path, lambda _: ScriptedTurn(headers=EVENTS, steps=pieces))

    status, _, body = await door.call(
        "/v1/responses", b'{"model":"support","input":"hi","stream":true}'
    )

    assert status == 200
    assert b"response.failed" in body
    assert b"bad [hidden]" in body
    assert UPSTREAM_KEY.encode() not in body


FIRST, SECOND, *_ = UPSTREAM_KEYS
REFUSALS = [
    error(401),
    error(402),
    error(403),
    error(404, code="model_not_found"),
]


def world(
    key_env: str,
    etag: str,
    *stored: StoredKey,
    team: str = "router",
) -> Snapshot:
    up = provider("http://up", api_key_env=key_env, extra_headers={"x-team": team})
    made = snapshot("http://up", fallback=True, providers=[up])
    return replace(made, etag=etag, stored_keys=stored)


class Refusing(Door):
    """An incumbent that refuses every request. meanwhile: happens once, during one."""

    def __init__(
        self,
        folder: Path,
        turn: ScriptedTurn,
        first: Snapshot,
    ) -> None:
        self.turn: ScriptedTurn | None = turn
        self.meanwhile: Callable[[], None] | None = None
        script: Script = {INCUMBENT: self._refuse, FALLBACK: completion()}
        super().__init__(folder, script, first=first)

    def _refuse(self) -> ScriptedTurn:
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        return self.turn or completion()

    async def ask(self) -> str:
        _, headers, _ = await self.call(CHAT, ASK)
        return headers[b"x-swapproof-target"].decode().partition("/")[2]

    def change(self, to: Snapshot) -> None:
        self.kept.put(to)
        assert self.holder.refresh()


@pytest.mark.req("B4", "D3")
@pytest.mark.parametrize(
    ("turn", "changed", "then", "answers", "asked"),
    [
        *((refusal, world(SECOND, "two"), None, INCUMBENT, 4) for refusal in REFUSALS),
        (
            error(402),
            world(FIRST, "two", StoredKey("up", "default", "written again")),
            None,
            INCUMBENT,
            4,
        ),
        (
            error(402),
            world(FIRST, "two", team="another"),
            None,
            INCUMBENT,
            4,
        ),
        (
            error(401),
            world(SECOND, "two"),
            error(401),
            FALLBACK,
            2,
        ),
        (
            error(401),
            world(FIRST, "two"),
            error(401),
            FALLBACK,
            1,
        ),
    ],
    ids=[
        "401",
        "402",
        "403",
        "not this account's",
        "the same key written again",
        "a header",
        "a key that is refused too",
        "no new key",
    ],
)
async def test_whatever_proves_who_asks_is_tried_by_the_first_request_after_its_change(
    tmp_path: Path,
    turn: ScriptedTurn,
    changed: Snapshot,
    then: ScriptedTurn | None,
    answers: str,
    asked: int,
) -> None:
    scene = Refusing(tmp_path, turn, world(FIRST, "one"))
    assert [await scene.ask() for _ in range(3)] == [FALLBACK] * 3
    assert scene.asked[INCUMBENT] == 1

    scene.turn = then
    scene.change(changed)

    assert [await scene.ask() for _ in range(3)] == [answers] * 3
    assert scene.asked[INCUMBENT] == asked


@pytest.mark.req("B4", "D3")
async def test_a_request_on_the_way_with_the_old_key_opens_nothing(tmp_path: Path) -> None:
    scene = Refusing(tmp_path, error(401), world(FIRST, "one"))

    def changed_meanwhile() -> None:
        scene.change(world(SECOND, "two"))
        scene.app._alerts.evaluate()

    scene.meanwhile = changed_meanwhile
    assert await scene.ask() == FALLBACK

    scene.turn = None
    assert await scene.ask() == INCUMBENT


@pytest.mark.req("B4", "B11")
@pytest.mark.parametrize("force", ["provider:up", f"target:up/{INCUMBENT}"])
async def test_a_switch_thrown_for_a_target_ends_its_pause_and_closes_its_circuit(
    tmp_path: Path, force: str
) -> None:
    first = world("UP_KEY", "1")
    for turn in (
        replace(error(429), headers={"retry-after": "7200"}),
        error(401),
    ):
        refusing = Refusing(tmp_path, turn, first)
        assert [await refusing.ask() for _ in range(2)] == [FALLBACK] * 2
        refusing.turn = None

        thrown = switch_of(force)
        refusing.change(replace(first, etag="2", switches=(thrown,)))
        assert await refusing.ask() == INCUMBENT

        # Lifted again, it goes on; the same switch is not heeded twice.
        refusing.turn = replace(error(429), headers={"retry-after": "7200"})
        refusing.change(replace(first, etag="3", switches=(thrown,)))
        refusing.change(replace(first, etag="4"))
        assert [await refusing.ask() for _ in range(3)] == [FALLBACK] * 3
        assert refusing.asked[INCUMBENT] == 3


@pytest.mark.req("B4", "B11")
async def test_a_switch_for_another_target_opens_nothing(tmp_path: Path) -> None:
    first = world("UP_KEY", "1")
    refusing = Refusing(tmp_path, error(401), first)
    await refusing.ask()

    refusing.change(replace(first, etag="2", switches=(switch_of(f"target:up/{FALLBACK}"),)))
    refusing.change(replace(first, etag="3"))
    await refusing.ask()

    assert refusing.asked[INCUMBENT] == 1
