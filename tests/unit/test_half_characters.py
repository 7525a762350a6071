"""Clients cut texts within an emoji: https://github.com/anomalyco/opencode/issues/13988.

JSON can write such half a character, and strict providers refuse it.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.providers.target import Provider
from router.frame.body import CHAT_PATH
from router.protocols.provider_failures import classify_error
from router.protocols.provider_refusals import Piece
from router.upstream.refused_pieces import without_piece
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("B7", "A4")
SURROGATES = st.characters(categories=["Cs"])
TEXTS = st.text(
    st.one_of(SURROGATES, st.sampled_from('\\u"d83\U0001f600\ue000'), st.characters())
)


def write_whole(body: bytes) -> bytes:
    request = UpstreamRequest(
        Provider("p", "custom", "http://x/v1"), body, stream=False, path=CHAT_PATH
    )
    changed = without_piece(request, Piece.HALF_CHARACTER)
    return body if changed is None else changed[0].body


@given(TEXTS)
def test_only_halves_of_characters_are_replaced(text: str) -> None:
    sent = json.loads(write_whole(json.dumps({text: text}).encode()))

    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert sent == {whole: whole}


async def test_a_provider_that_refuses_half_an_emoji_is_asked_with_a_whole_text(
    tmp_path: Path,
) -> None:
    refusal = {
        "error": {
            "message": "The request body is not valid JSON: no low surrogate in string",
            "type": "invalid_request_error",
        }
    }
    asked: list[bytes] = []

    def answer(request: UpstreamRequest) -> ScriptedTurn:
        asked.append(request.body)
        is_whole = "\ud83d" not in json.loads(request.body)["messages"][0]["content"]
        refused = ScriptedTurn(400, steps=(json.dumps(refusal).encode(),))
        return completion() if is_whole else refused

    door = Door(tmp_path, answer, moves=True)
    message = {"role": "user", "content": "party \ud83d, C:\\\\ud83d"}
    body = json.dumps({"model": "support", "messages": [message]}).encode()

    for _ in range(2):
        status, headers, _ = await door.call(CHAT, body, headers=(AUTH,))

        assert status == 200
        assert headers[b"x-swapproof-degraded"] == b"half_character"
        sent = json.loads(asked[-1])["messages"][0]["content"]
        assert sent == "party \ufffd, C:\\\\ud83d"
    # A body that a lenient provider takes keeps its bytes, so each request is tried as it came.
    assert len(asked) == 4


@pytest.mark.parametrize("content", ["party", "party \ud83d"], ids=["whole", "half"])
async def test_a_server_that_cannot_write_its_own_text_fails_over(
    tmp_path: Path, content: str
) -> None:
    words = "'utf-8' codec can't encode character '\\ud83d': surrogates not allowed"
    failure = json.dumps({"error": {"message": words, "code": 500}}).encode()

    def answer(request: UpstreamRequest) -> ScriptedTurn:
        is_first = json.loads(request.body)["model"] == "m-incumbent"
        return ScriptedTurn(500, steps=(failure,)) if is_first else completion()

    door = Door(
        tmp_path, answer, first=snapshot("http://127.0.0.1:1/v1", fallback=True), moves=True
    )
    body = {"model": "support", "messages": [{"role": "user", "content": content}]}

    status, _, _ = await door.call(CHAT, json.dumps(body).encode(), headers=(AUTH,))

    assert status == 200


def test_a_half_character_in_a_begun_answer_is_no_fault_of_the_request() -> None:
    error = {"message": "lone leading surrogate in hex escape", "code": 500}

    assert classify_error(error) is FailureClass.SERVER
