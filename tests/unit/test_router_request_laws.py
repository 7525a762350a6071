"""Whatever JSON a client sends: it is refused, or routed and sent on."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.domain.errors import InputError
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.table import Canary, Route, choose_arm
from harness.domain.routing.target import RequestPatch, Target
from router.frame.body import read_request
from router.protocols.endpoints import DIALECTS
from router.request.client_directives import sticky_key
from router.request.needs import detect_needs

NAMES = (
    "content format function functions image_url input instructions max_output_tokens "
    "max_tokens messages metadata model parallel_tool_calls prompt_cache_key response_format "
    "role stream stream_options system temperature text tool_choice tools type user user_id"
)
WORDS = "assistant developer image_url input_text json_schema system text user support \ud800"
leaves = (
    st.none() | st.booleans() | st.integers(-1, 10**30) | st.sampled_from([1.5, *WORDS.split()])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(NAMES.split()), values, max_size=8)
PATCHED = Target(
    "p",
    "m",
    {"max_tokens": 5, "temperature": 0},
    request_patch=RequestPatch(
        prompt_addendum="Be brief.",
        response_format={"type": "json_object"},
        parameters={"top_p": 1, "stream_options": {"a": 1}},
    ),
)
ROUTE = Route("r", 1, "inc", Canary("can", 5000, "salt", "r-1"))
pytestmark = pytest.mark.req("A1", "B8")


def refuse(constant: str) -> None:
    raise AssertionError(constant)


@pytest.mark.parametrize("endpoint", DIALECTS)
@pytest.mark.parametrize("target", [Target("p", "m"), PATCHED], ids=["plain", "patched"])
@example(body={"tool_choice": {"a": 1.5}, "text": {"a": 1.5}}, huge=True)
@given(body=bodies, huge=st.booleans())
def test_any_body_is_refused_or_sent_on(
    endpoint: Endpoint, target: Target, body: dict[str, object], *, huge: bool
) -> None:
    text = json.dumps({"model": "support", **body}).encode()
    text = text.replace(b"1.5", b"1e999") if huge else text
    try:
        request = read_request(text, endpoint)
    except InputError:
        return

    key = sticky_key(request, None, "k-1")
    choose_arm(ROUTE, key)
    detect_needs(request)
    for serialize in (False, True):
        sent = DIALECTS[endpoint].patched(request, target, serialize_tools=serialize)
        assert json.loads(sent, parse_constant=refuse)["model"] == "m"
