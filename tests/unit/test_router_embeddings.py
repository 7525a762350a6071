"""POST /v1/embeddings: the same loop, another answer."""

import json
from pathlib import Path

import pytest

from harness.domain.routing.target import RequestPatch
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import Door, Place
from tests.support.router.live_router import FALLBACK, INCUMBENT, snapshot

EMBEDDINGS = "/v1/embeddings"
ASK = b'{"model":"support", "input":["hello"],"encoding_format":"float"}'
BODY = (
    b'{"object" : "list", "model":"m", "data":[{"object":"embedding","index":0,'
    b'"embedding":[0.25, -1e-3]}],"usage":{"prompt_tokens":7,"total_tokens":7}, "x":1.0}'
)
VECTORS = ScriptedTurn(steps=(BODY,))


@pytest.mark.req("A2")
async def test_vectors_come_back_under_the_routes_name_and_are_recorded(tmp_path: Path) -> None:
    door = Door(tmp_path, lambda _: VECTORS)

    _, headers, body = await door.call(EMBEDDINGS, ASK)

    assert body == BODY.replace(b'"m"', b'"support"')
    assert headers[b"x-swapgate-target"] == f"up/{INCUMBENT}".encode()
    (asked,) = door.transport.seen
    assert asked.path == "/embeddings"
    assert asked.body == ASK.replace(b'"support"', f'"{INCUMBENT}"'.encode())
    door.recorder.flush(final=True)
    (row,) = door.kept.traffic
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (7, 0, 7e-6)


@pytest.mark.req("A2", "B4")
async def test_both_endpoints_of_a_target_share_its_breaker(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: error(401), FALLBACK: VECTORS}, fallback=True)
    await place.door.call(EMBEDDINGS, ASK)
    place.script = {INCUMBENT: error(500), FALLBACK: completion("spare")}

    assert (await place.ask())[0] == 200
    assert place.asked == {INCUMBENT: 1, FALLBACK: 2}


async def test_a_targets_settings_about_words_are_left_out(tmp_path: Path) -> None:
    patch = RequestPatch(prompt_addendum="be brief", parameters={"temperature": 0})
    door = Door(tmp_path, lambda _: VECTORS, first=snapshot("http://up", patch=patch))

    await door.call(EMBEDDINGS, ASK)

    assert json.loads(door.transport.seen[0].body) == {**json.loads(ASK), "model": INCUMBENT}
