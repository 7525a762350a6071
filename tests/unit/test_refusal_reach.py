"""A refusal is remembered for the requests that it reaches: endpoint, key and model, caller."""

import json
from pathlib import Path
from typing import Final

import pytest

from harness.frame.alerts.alert import AlertKind
from harness.providers.models.capabilities import Endpoint
from router.health.slowdowns import Slowdowns
from router.recording.shared_files import SharedMarks
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Place, code
from tests.support.router.live_router import FALLBACK, INCUMBENT

pytestmark = pytest.mark.req("A5", "B3", "B4")
EMBEDDINGS: Final = "/v1/embeddings"
INPUT: Final = b'{"model":"support","input":"hi"}'
GONE: Final = error(404, "The model `m` does not exist", "model_not_found")
FORBIDDEN: Final = error(403, "You are not allowed to sample from this model", "forbidden")
LIMITED: Final = ScriptedTurn(429, {"retry-after": "30"}, error(429).steps)


class Endpoints(Place):
    """A route of a chat model: `refusal` answers embeddings, and chats while `gone` is set."""

    def __init__(self, folder: Path, refusal: ScriptedTurn, *, fallback: bool = True) -> None:
        super().__init__(folder, {}, fallback=fallback)
        self._refusal = refusal
        self.gone = False

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        model = json.loads(request.body)["model"]
        self.asked[model] += 1
        refused = self.gone or "input" in json.loads(request.body)
        return self._refusal if refused and model == INCUMBENT else completion(model)

    async def embed(self) -> tuple[int, dict[bytes, bytes], bytes]:
        return await self.call(EMBEDDINGS, INPUT)


@pytest.mark.parametrize(
    ("refusal", "chats"),
    [
        (GONE, True),
        (GONE, False),
        (FORBIDDEN, True),
        (FORBIDDEN, False),
        (error(500), True),
    ],
)
async def test_a_refusal_of_embeddings_leaves_the_chats_to_the_target(
    tmp_path: Path, refusal: ScriptedTurn, *, chats: bool
) -> None:
    place = Endpoints(tmp_path, refusal)
    if chats:
        await place.ask()
    for _ in range(3):
        await place.embed()

    place.asked.clear()
    await place.ask(times=5)
    place.recorder.flush()

    assert place.asked == {INCUMBENT: 5}
    assert await place.state() == 0
    assert place.kept.alerts == []


@pytest.mark.parametrize("refusal", [GONE, FORBIDDEN], ids=["404", "403"])
async def test_the_caller_learns_that_the_endpoint_is_not_served(
    tmp_path: Path, refusal: ScriptedTurn
) -> None:
    place = Endpoints(tmp_path, refusal, fallback=False)
    await place.ask()

    status, headers, body = await place.embed()

    assert (status, code(body)) == (refusal.status, "endpoint_missing")
    assert headers[b"x-should-retry"] == b"false"
    assert b"does not serve this endpoint" in body


async def test_a_model_that_is_gone_at_an_endpoint_that_it_served_opens_the_circuit(
    tmp_path: Path,
) -> None:
    place = Endpoints(tmp_path, GONE)
    await place.ask()
    place.gone = True

    # Others got good answers, so one caller's refusal is not enough.
    await place.ask(times=2)
    assert await place.state() == 0
    await place.ask()
    assert await place.state() == 2
    place.recorder.flush()
    assert [alert.kind for alert in place.kept.alerts] == [AlertKind.MODEL_UNKNOWN]


async def test_all_workers_know_which_endpoint_a_target_serves(tmp_path: Path) -> None:
    marks = SharedMarks(b"secret", tmp_path / "marks")
    other = SharedMarks(b"secret", tmp_path / "marks")
    place = Place(tmp_path / "a", {INCUMBENT: completion()})
    place.app._health._shared._marks = marks
    await place.ask()
    (target,) = place.app._health.spoken

    late = Place(tmp_path / "b", {INCUMBENT: completion()})
    late.app._health._shared._marks = other

    assert late.app._health.served_endpoints(target) == {Endpoint.CHAT}


async def test_a_models_limit_rests_its_key_for_this_model_alone(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {INCUMBENT: LIMITED, FALLBACK: completion()},
        fallback=True,
        more_keys=("UP_KEY_2",),
    )
    used: list[tuple[str, str]] = []
    script = place._script_turn

    def noted(request: UpstreamRequest) -> ScriptedTurn:
        assert request.key is not None
        used.append((json.loads(request.body)["model"], request.key.name))
        return script(request)

    place.transport._script = noted
    await place.ask()

    assert used == [(INCUMBENT, "UP_KEY"), (INCUMBENT, "UP_KEY_2"), (FALLBACK, "UP_KEY")]

    # A refused key rests for all models.
    used.clear()
    place.script[INCUMBENT] = error(401, "No such key", "invalid_api_key")
    place.clock.advance(31)
    await place.ask()
    assert [model for model, _ in used] == [INCUMBENT, INCUMBENT, FALLBACK]


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (LIMITED, error(400), (429, b"30", b"true")),
        (error(529), error(400), (529, None, b"true")),
        (error(503), error(422), (503, None, b"true")),
        (LIMITED, error(500), (429, b"30", b"true")),
        (error(500), error(400), (400, None, b"false")),
        (error(503), error(500), (502, None, b"false")),
        (error(400), LIMITED, (400, None, b"false")),
    ],
)
async def test_a_chains_error_is_the_one_that_helps(
    tmp_path: Path,
    first: ScriptedTurn,
    last: ScriptedTurn,
    told: tuple[int, bytes | None, bytes],
) -> None:
    place = Place(tmp_path, {INCUMBENT: first, FALLBACK: last}, fallback=True)

    status, headers, _ = await place.call(CHAT, ASK, headers=(AUTH,))

    assert (status, headers.get(b"retry-after"), headers[b"x-should-retry"]) == told


async def test_a_stream_that_begins_ends_the_slowdown(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: LIMITED, FALLBACK: completion()}, fallback=True)
    await place.ask()
    slowdowns: Slowdowns = place.app._health.slowdowns
    assert slowdowns.slowed

    place.script[INCUMBENT] = completion()
    place.clock.advance(1)
    await place.ask()

    assert not slowdowns.slowed
