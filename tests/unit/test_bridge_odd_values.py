"""Whatever a client or a provider sends, a bridge refuses it or translates it."""

import contextlib
import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.routing.capabilities import Endpoint, OptionalFeature
from harness.domain.routing.target import Provider, Target
from router.conversation.chat_history import move_chat
from router.conversation.intake import INTAKES
from router.conversation.message_history import move_message
from router.conversation.response_history import move_response
from router.frame.body import CHAT_PATH, read_request
from router.frame.failure import Untranslatable, UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.provider_failures import Piece
from router.request.needs import given_fields as hints_of
from router.request.needs import without_fields
from router.upstream.endpoint_translation import TRANSLATIONS, UNTRANSLATABLE_FIELDS
from router.upstream.learned_repairs import without_piece
from router.upstream.transport import UpstreamRequest

WORDS = st.sampled_from(
    """assistant user tool system developer text thinking tool_use tool_result image document
    base64 url custom function auto enabled json_schema message function_call reasoning
    function_call_output input_text input_image input_file refusal length stop""".split()  # noqa: SIM905 - words
)
NAMES = st.sampled_from(
    """messages content role type text source data media_type input name id tool_use_id
    is_error tools input_schema tool_choice thinking budget_tokens system stop_sequences
    signature function output_config format schema effort max_tokens input instructions
    call_id arguments output reasoning summary include cache_control image_url file_data choices
    message delta index tool_calls finish_reason stop_reason usage prompt_tokens
    completion_tokens_details created reasoning_content refusal error
    metadata parallel_tool_calls""".split()  # noqa: SIM905 - words
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=25,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=6)
PROVIDER = Provider("p", "custom", "http://127.0.0.1:9/v1")
PIECES = list(Piece)
BRIDGED = pytest.mark.parametrize("endpoint", [Endpoint.MESSAGES, Endpoint.RESPONSES])


@BRIDGED
@given(body=BODIES, turns=st.none() | st.lists(BODIES, max_size=3))
def test_any_request(
    endpoint: Endpoint, body: dict[str, Any], turns: list[dict[str, Any]] | None
) -> None:
    if turns is not None:
        body = {**body, "messages": turns, "input": turns}
    text = json.dumps({"model": "m", **body}).encode()
    request = read_request(text, endpoint)
    UNTRANSLATABLE_FIELDS[endpoint](request.value)
    less = without_fields(
        text, endpoint, hints_of(request, frozenset(OptionalFeature)), Target("p", "m")
    )
    for intake in INTAKES.values():
        move_chat(text, intake)
    for path, refused in product((CHAT_PATH, "/messages", "/responses"), PIECES):
        without_piece(UpstreamRequest(PROVIDER, text, False, path=path), refused)  # noqa: FBT003 - no stream
    with contextlib.suppress(Untranslatable):
        move_response(text, "mine")
    for variant in (text, less, move_message(text, "").body):
        with contextlib.suppress(Untranslatable):
            assert (
                json.loads(TRANSLATIONS[endpoint](variant, "custom", "mine").body)["model"]
                == "m"
            )


@BRIDGED
@given(answers=st.lists(BODIES, min_size=1, max_size=4), choice=BODIES)
def test_any_answer(
    endpoint: Endpoint, answers: list[dict[str, Any]], choice: dict[str, Any]
) -> None:
    translated = TRANSLATIONS[endpoint](b'{"model":"m"}', "custom", "mine")
    events = translated.events()
    for answer in (*answers, {**answers[0], "choices": [choice]}):
        with contextlib.suppress(UpstreamFailed):
            json.loads(translated.whole(parse_object(json.dumps(answer).encode())))
        with contextlib.suppress(UpstreamFailed):
            events.feed(f"data: {json.dumps(answer)}\n\n".encode())
    with contextlib.suppress(UpstreamFailed):
        events.feed(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        events.end()
