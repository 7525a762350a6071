"""Whatever JSON a provider sends, an endpoint's protocol has an answer to it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.routing.capabilities import Endpoint
from router.conversation.call_ids import AnswerIds
from router.frame.body import read_request
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import parse_object
from router.protocols.endpoints import DIALECTS

NAMES = (
    "arguments call_id choices code content content_block delta error finish_reason function "
    "id index input_tokens item message model output output_index output_tokens prompt_tokens "
    "response status stop_reason text tool_calls type usage"
)
WORDS = (
    "content_block_delta content_block_start error message_delta message_start message_stop "
    "function_call ping response.completed response.created response.failed "
    "response.output_item.added response.output_text.delta text tool_use"
)
ASKED = read_request(b'{"model":"r","stream":true}', Endpoint.CHAT)
leaves = st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | st.text(max_size=3)
values = st.recursive(
    leaves | st.sampled_from(WORDS.split()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES.split()), values, max_size=6)
endpoints = pytest.mark.parametrize("endpoint", DIALECTS)
pytestmark = pytest.mark.req("A1", "B8")


@endpoints
@given(events=st.lists(objects, max_size=4))
def test_any_stream_of_objects_is_read_or_refused(
    endpoint: Endpoint, events: list[dict[str, object]]
) -> None:
    stream = DIALECTS[endpoint].stream(ASKED, '"r"')

    for event in events:
        if not (stream.failure or stream.finished):
            stream.feed(f"data: {json.dumps(event)}\n\n".encode())
    if not (stream.failure or stream.finished):
        stream.end()

    assert stream.finished or stream.failure
    assert min(stream.used()) >= 0


@endpoints
@given(answer=objects)
def test_any_whole_answer_is_read_or_refused(
    endpoint: Endpoint, answer: dict[str, object]
) -> None:
    with contextlib.suppress(UpstreamFailed):
        DIALECTS[endpoint].checked(parse_object(json.dumps(answer).encode()))
    AnswerIds("{}").mend(answer)
