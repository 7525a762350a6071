"""Which route answers what was asked of another (D6): by kind, declared or seen."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.target import is_at_least_as_strict, may_see
from harness.routing.overrides import RequestKind, choose_kind
from router.frame.body import read_request
from router.frame.body_patch import to_json
from router.protocols.endpoints import ENDPOINTS
from router.request.client_directives import detect_kinds

pytestmark = pytest.mark.req("D6")
SUBAGENT, VISION, IMAGE, VIDEO, EMBEDDING = RequestKind
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
FILM = {"type": "video_url", "video_url": {"url": "https://films.example/1"}}
kinds = st.sampled_from(RequestKind)
classes_ = st.sampled_from(["", "a", "b", "nobody named it"])
who_may = st.frozensets(st.sampled_from(["p", "q", "r"]))


def detected_kinds(path: str, **body: Any) -> set[RequestKind]:
    given_ = to_json({"model": "chat", **body}).encode()
    return set(detect_kinds(read_request(given_, ENDPOINTS[path])))


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("overrides", "declared", "seen_", "decides"),
    [
        ({}, None, {VISION}, None),
        ({}, SUBAGENT, {VISION}, None),
        ({VISION: "v"}, None, set(), None),
        ({VISION: "v"}, None, {VISION}, VISION),
        ({VISION: "v"}, VISION, set(), VISION),
        ({VISION: "v"}, SUBAGENT, {VISION}, None),
        ({VISION: "v", SUBAGENT: "s"}, SUBAGENT, {VISION}, SUBAGENT),
        ({VISION: "v", SUBAGENT: "s"}, None, {VISION}, VISION),
        ({VISION: "v", VIDEO: "f"}, None, {VISION, VIDEO}, VIDEO),
        ({VISION: "v", IMAGE: "i"}, None, {VISION, VIDEO, IMAGE}, IMAGE),
        ({VISION: "v"}, None, {VISION, VIDEO, IMAGE}, VISION),
        ({EMBEDDING: "e", VISION: "v"}, None, {EMBEDDING}, EMBEDDING),
    ],
)
def test_the_declared_kind_decides_else_the_first_that_is_seen_and_has_an_override(
    overrides: Mapping[RequestKind, str],
    declared: RequestKind | None,
    seen_: set[RequestKind],
    decides: RequestKind | None,
) -> None:
    assert choose_kind(overrides, declared, seen_) is decides


@given(
    overrides=st.dictionaries(kinds, st.text(min_size=1)),
    declared=st.none() | kinds,
    seen_=st.frozensets(kinds),
)
def test_only_a_kind_that_was_declared_or_seen_decides_and_only_where_it_has_a_route(
    overrides: dict[RequestKind, str],
    declared: RequestKind | None,
    seen_: frozenset[RequestKind],
) -> None:
    kind = choose_kind(overrides, declared, seen_)
    possible = ({declared} if declared else seen_ - {SUBAGENT}) & overrides.keys()

    assert (kind in possible) if possible else kind is None
    if kind is not None:
        # What it is not asked for changes nothing.
        alone = {kind: overrides[kind]}
        assert choose_kind(alone, declared, seen_) is kind


OUTPUT = {"type": "function_call_output", "output": [{"type": "input_image"}]}
FOUND = {"type": "tool_result", "content": [{"type": "image"}]}
USED = {"type": "tool_use", "input": {"content": [PICTURE]}}
SHOWN = {"type": "function", "function": {"parameters": PICTURE}}


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}, set()),
        (CHAT, {"messages": user({"type": "text", "text": "hi"})}, set()),
        (CHAT, {"messages": user(PICTURE)}, {VISION}),
        (CHAT, {"messages": [*user(PICTURE), {"role": "user", "content": "and?"}]}, {VISION}),
        (CHAT, {"messages": user(FILM)}, {VIDEO}),
        (CHAT, {"messages": user(FILM, PICTURE)}, {VIDEO, VISION}),
        (CHAT, {"messages": [], "modalities": ["text", "image"]}, {IMAGE}),
        (CHAT, {"messages": [], "modalities": ["text", "audio"]}, set()),
        (RESPONSES, {"input": "hi"}, set()),
        (RESPONSES, {"input": user({"type": "input_image", "image_url": "x"})}, {VISION}),
        (RESPONSES, {"input": [OUTPUT]}, {VISION}),
        (RESPONSES, {"input": "a cat", "tools": [{"type": "image_generation"}]}, {IMAGE}),
        (MESSAGES, {"messages": user({"type": "image", "source": {}})}, {VISION}),
        (MESSAGES, {"messages": user(FOUND)}, {VISION}),
        ("/v1/embeddings", {"input": "hi"}, {EMBEDDING}),
        # What a tool was given is the client's own, whatever it looks like.
        (MESSAGES, {"messages": user(USED)}, set()),
        (CHAT, {"messages": [], "tools": [SHOWN]}, set()),
        # Nothing that a client may write breaks it.
        (CHAT, {"messages": {"type": "image"}, "tools": 3, "modalities": "image"}, set()),
        (CHAT, {"messages": [None, {"content": {"type": "image"}}, [PICTURE]]}, set()),
        (CHAT, {"messages": user({"type": ["image"]})}, set()),
    ],
)
def test_what_a_request_is_seen_to_be(
    path: str, body: dict[str, Any], wanted: set[RequestKind]
) -> None:
    assert detected_kinds(path, **body) == wanted


@given(
    classes=st.dictionaries(st.sampled_from(["a", "b"]), who_may),
    own=classes_,
    than=classes_,
    provider=st.sampled_from(["p", "q", "r"]),
)
@pytest.mark.req("D8")
def test_who_may_see_the_stricter_class_may_see_the_other(
    classes: dict[str, frozenset[str]], own: str, than: str, provider: str
) -> None:
    if is_at_least_as_strict(classes, own, than=than) and may_see(classes, own, provider):
        assert may_see(classes, than, provider)


@pytest.mark.parametrize(
    ("own", "than", "strict"),
    [
        ("", "", True),
        ("personal", "", True),
        ("", "personal", False),
        ("personal", "personal", True),
        ("health", "personal", True),
        ("personal", "health", False),
        ("gone", "personal", True),
        ("personal", "gone", False),
    ],
)
@pytest.mark.req("D8")
def test_a_class_is_as_strict_as_another_when_it_lets_nobody_else_in(
    own: str, than: str, *, strict: bool
) -> None:
    classes = {"personal": frozenset({"local", "eu"}), "health": frozenset({"local"})}

    assert is_at_least_as_strict(classes, own, than=than) is strict
