"""Which route answers what was asked of another (D6): by kind, declared or seen."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate.online.guardrails import ExposureRule
from harness.providers.force import parse_environment_switches
from harness.providers.target import Target, is_at_least_as_strict, may_see
from harness.routing.route_settings import (
    RequestKind,
    RequestTrait,
    RouteSettings,
    check_predicate,
)
from harness.routing.table import (
    Canary,
    Route,
    RoutingTable,
    Snapshot,
    choose_kind,
    list_predicates,
)
from router.frame.body import read_request, to_json
from router.protocols.endpoints import ENDPOINTS
from router.request.client_directives import detect_kinds, find_override
from router.snapshot.compiled import CompiledRoute
from tests.support.providers.scripted_upstream import completion, streamed
from tests.support.router.asgi_router import AUTH, CHAT, Door, code
from tests.support.router.live_router import provider, served, snapshot

pytestmark = pytest.mark.req("D6")
SUBAGENT, VISION, IMAGE, VIDEO, EMBEDDING = RequestKind
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,AA"},
}
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
    overrides: Mapping[str, str],
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
    overrides: dict[str, str],
    declared: RequestKind | None,
    seen_: frozenset[RequestKind],
) -> None:
    kind = choose_kind(overrides, declared, seen_)
    possible = ({declared} if declared else seen_ - {SUBAGENT}) & overrides.keys()

    assert (kind in possible) if possible else kind is None
    if kind is not None:
        # What it is not asked for changes nothing.
        alone: dict[str, str] = {kind: overrides[kind]}
        assert choose_kind(alone, declared, seen_) is kind


TOOL = {"type": "function", "function": {"name": "find"}}
BILLING = "x-team: billing"
predicates = st.sampled_from(
    [*RequestKind, *RequestTrait, BILLING, "x-team: sales", "x-plan: a=b; c"]
)


def chosen(
    overrides: Mapping[str, str],
    *,
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
    declared: RequestKind | None = None,
    **body: Any,
) -> str | None:
    request = read_request(to_json({"model": "chat", **body}).encode(), ENDPOINTS[path])
    return find_override(
        overrides, list_predicates(overrides), request, declared, (headers or {}).get
    )


@pytest.mark.parametrize(
    ("overrides", "asked", "decides"),
    [
        (["tools"], {"tools": [TOOL]}, "tools"),
        (["tools"], {"tools": []}, None),
        (["tools"], {}, None),
        (["no_tools"], {}, "no_tools"),
        (["no_tools"], {"tools": [TOOL]}, None),
        (["messages"], {"path": MESSAGES}, "messages"),
        (["messages"], {"path": CHAT}, None),
        (["responses", "chat"], {"path": RESPONSES}, "responses"),
        ([BILLING], {"headers": {"x-team": "billing"}}, BILLING),
        ([BILLING], {"headers": {"x-team": "Billing"}}, None),
        ([BILLING], {"headers": {"x-team": "billing, sales"}}, None),
        ([BILLING], {}, None),
        # A kind comes first, then a header, then tools, then the endpoint.
        (["chat", "tools"], {"tools": [TOOL]}, "tools"),
        (["tools", BILLING], {"tools": [TOOL], "headers": {"x-team": "billing"}}, BILLING),
        (
            [BILLING, "vision"],
            {"messages": user(PICTURE), "headers": {"x-team": "billing"}},
            "vision",
        ),
        ([BILLING, "x-a: 1"], {"headers": {"x-team": "billing", "x-a": "1"}}, "x-a: 1"),
        # A declared kind replaces the kinds of the content, and nothing else.
        (["vision", "chat"], {"messages": user(PICTURE), "declared": VIDEO}, "chat"),
    ],
)
def test_kind_header_tools_and_endpoint_decide_in_this_order(
    overrides: list[str], asked: dict[str, Any], decides: str | None
) -> None:
    assert chosen(dict.fromkeys(overrides, "other"), **asked) == decides


@given(
    overrides=st.sets(predicates, min_size=1),
    path=st.sampled_from([CHAT, MESSAGES, RESPONSES]),
    tools=st.booleans(),
    team=st.sampled_from(["billing", "sales", "other"]),
)
def test_at_most_one_override_answers_whatever_order_they_were_written_in(
    overrides: set[str], path: str, team: str, *, tools: bool
) -> None:
    asked: dict[str, Any] = {"path": path, "headers": {"x-team": team}}
    if tools:
        asked["tools"] = [TOOL]

    forwards = dict.fromkeys(sorted(overrides), "other")
    backwards = dict.fromkeys(sorted(overrides, reverse=True), "other")
    decides = chosen(forwards, **asked)

    assert chosen(backwards, **asked) == decides
    assert decides is None or decides in overrides
    if decides is not None:
        assert chosen({decides: "other"}, **asked) == decides


@pytest.mark.parametrize(
    "predicate",
    ["sound", "x-team:billing", "X-Team: billing", "x-team: ", "x-team: a ", "x-team: ä", ""],
)
def test_what_selects_no_requests_is_refused_with_the_choices(predicate: str) -> None:
    with pytest.raises(InputError, match=r"write a kind \(subagent, vision"):
        check_predicate(predicate)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "api-key",
        "x-swapproof-kind",
    ],
)
def test_a_header_with_a_secret_or_an_instruction_selects_no_requests(name: str) -> None:
    with pytest.raises(InputError, match="let clients send another header"):
        check_predicate(f"{name}: v")


OUTPUT = {
    "type": "function_call_output",
    "output": [{"type": "input_image"}],
}
FOUND = {"type": "tool_result", "content": [{"type": "image"}]}
USED = {"type": "tool_use", "input": {"content": [PICTURE]}}
SHOWN = {"type": "function", "function": {"parameters": PICTURE}}


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}, set()),
        (CHAT, {"messages": user({"type": "text", "text": "hi"})}, set()),
        (CHAT, {"messages": user(PICTURE)}, {VISION}),
        (
            CHAT,
            {
                "messages": [
                    *user(PICTURE),
                    {"role": "user", "content": "and?"},
                ]
            },
            {VISION},
        ),
        (CHAT, {"messages": user(FILM)}, {VIDEO}),
        (CHAT, {"messages": user(FILM, PICTURE)}, {VIDEO, VISION}),
        (CHAT, {"messages": [], "modalities": ["text", "image"]}, {IMAGE}),
        (CHAT, {"messages": [], "modalities": ["text", "audio"]}, set()),
        (RESPONSES, {"input": "hi"}, set()),
        (
            RESPONSES,
            {"input": user({"type": "input_image", "image_url": "x"})},
            {VISION},
        ),
        (RESPONSES, {"input": [OUTPUT]}, {VISION}),
        (
            RESPONSES,
            {"input": "a cat", "tools": [{"type": "image_generation"}]},
            {IMAGE},
        ),
        (
            MESSAGES,
            {"messages": user({"type": "image", "source": {}})},
            {VISION},
        ),
        (MESSAGES, {"messages": user(FOUND)}, {VISION}),
        ("/v1/embeddings", {"input": "hi"}, {EMBEDDING}),
        # What a tool was given is the client's own, whatever it looks like.
        (MESSAGES, {"messages": user(USED)}, set()),
        (CHAT, {"messages": [], "tools": [SHOWN]}, set()),
        # Nothing that a client may write breaks it.
        (
            CHAT,
            {
                "messages": {"type": "image"},
                "tools": 3,
                "modalities": "image",
            },
            set(),
        ),
        (
            CHAT,
            {"messages": [None, {"content": {"type": "image"}}, [PICTURE]]},
            set(),
        ),
        (CHAT, {"messages": user({"type": ["image"]})}, set()),
    ],
)
def test_what_a_request_is_seen_to_be(
    path: str,
    body: dict[str, Any],
    wanted: set[RequestKind],
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
    classes: dict[str, frozenset[str]],
    own: str,
    than: str,
    provider: str,
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
    own: str,
    than: str,
    *,
    strict: bool,
) -> None:
    classes = {
        "personal": frozenset({"local", "eu"}),
        "health": frozenset({"local"}),
    }

    assert is_at_least_as_strict(classes, own, than=than) is strict


RULE = ExposureRule(block_size=1)
OWN = Target("up", "m-own")
SEES = Target("up", "m-sees")
AWAY = Target("away", "m-sees")
CLASSES = {
    "personal": frozenset({"up", "away"}),
    "health": frozenset({"up"}),
}
LOOK = json.dumps(
    {"model": "chat", "messages": [{"role": "user", "content": [PICTURE]}]}
).encode()
TEXT = b'{"model":"photos","messages":[{"role":"user","content":"hi"}]}'


def two_routes(
    *,
    chat: str = "",
    photos: str = "",
    overrides: Mapping[str, str] | None = None,
    canary: bool = False,
) -> Snapshot:
    """Builds a snapshot with the routes `chat` and `photos`.

    Args:
        chat: its class of data.
        photos: its class of data.
    """
    named = overrides or {
        RequestKind.VISION: "photos",
        RequestKind.SUBAGENT: "small",
    }
    settings = RouteSettings(data_class=chat, overrides=named)
    trial = Canary(AWAY.id, 10_000, "s", "r-photos", RULE) if canary else None
    # It would come back here if overrides were followed more than once.
    looking = RouteSettings(
        data_class=photos,
        overrides={RequestKind.VISION: "chat"},
        keep_warm_bps=1_000,
    )
    made = {
        "chat": Route("chat", 1, OWN.id, settings=settings),
        "small": Route("small", 1, OWN.id),
        "photos": Route("photos", 1, SEES.id, trial, (AWAY.id,), looking),
    }
    targets = {target.id: target for target in (OWN, SEES, AWAY)}
    first = snapshot("http://up", providers=[provider("http://away", "away")])
    return replace(first, table=RoutingTable(1, made, targets))


def door_of(folder: Path) -> Door:
    return Door(folder, lambda _: completion(), classes=CLASSES)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_goes_to_the_vision_route_and_counts_for_its_canary(
    tmp_path: Path, *, stream: bool
) -> None:
    turn = streamed("a") if stream else completion()
    door = Door(tmp_path, lambda _: turn, first=two_routes(canary=True))

    asked = LOOK[:-1] + b',"stream":true}' if stream else LOOK
    status, headers, body = await door.call(CHAT, asked)

    assert (status, headers[b"x-swapproof-route"]) == (200, b"photos")
    assert headers[b"x-swapproof-kind"] == b"vision"
    assert headers[b"x-swapproof-arm"] == b"canary"
    assert headers[b"x-swapproof-target"] == b"away/m-sees"
    assert b'"chat"' in body
    door.recorder.flush(final=True)
    (block,) = door.kept.blocks.values()
    assert (block.rollout, block.units, block.canary_units) == (
        "r-photos",
        1,
        1,
    )
    assert [row.route for row in door.kept.traffic] == ["photos"]


@pytest.mark.parametrize(
    ("kind", "asked", "answers"),
    [
        (b"subagent", b'{"model":"chat","messages":[]}', b"small"),
        (b"subagent", LOOK, b"small"),
        # Of a kind that has no override the route itself takes care.
        (b"video", LOOK, b"chat"),
    ],
)
async def test_a_subagent_says_so_and_its_word_counts_for_more_than_its_pictures(
    tmp_path: Path,
    kind: bytes,
    asked: bytes,
    answers: bytes,
) -> None:
    door = Door(tmp_path, first=two_routes())

    _, headers, _ = await door.call(
        CHAT,
        asked,
        headers=(AUTH, (b"x-swapproof-kind", kind)),
    )

    assert headers[b"x-swapproof-route"] == answers
    assert headers.get(b"x-swapproof-kind", kind) == kind


async def test_a_header_with_its_value_and_tools_choose_the_route(tmp_path: Path) -> None:
    named = {BILLING: "small", "tools": "photos"}
    door = Door(tmp_path, first=two_routes(overrides=named))
    with_tools = json.dumps({"model": "chat", "messages": [], "tools": [TOOL]}).encode()
    team = (AUTH, (b"x-team", b"billing"))

    _, by_header, _ = await door.call(CHAT, with_tools, headers=team)
    _, by_tools, _ = await door.call(CHAT, with_tools)
    _, plain, _ = await door.call(CHAT, b'{"model":"chat","messages":[]}')

    assert by_header[b"x-swapproof-route"] == b"small"
    assert by_header[b"x-swapproof-kind"] == b"x-team: billing"
    assert by_tools[b"x-swapproof-route"] == b"photos"
    assert by_tools[b"x-swapproof-kind"] == b"tools"
    assert plain[b"x-swapproof-route"] == b"chat"
    assert b"x-swapproof-kind" not in plain


async def test_who_may_use_a_route_may_use_its_overrides_and_no_more(tmp_path: Path) -> None:
    found = two_routes()
    narrow = tuple(replace(key, routes=frozenset({"chat"})) for key in found.keys)
    door = Door(tmp_path, first=replace(found, keys=narrow))

    _, headers, _ = await door.call(CHAT, LOOK)
    status, _, body = await door.call(CHAT, TEXT)

    assert headers[b"x-swapproof-route"] == b"photos"
    assert status == 403
    assert b"'photos'" in body


def photos_of(route: CompiledRoute) -> CompiledRoute:
    return route.overrides[RequestKind.VISION]


@pytest.mark.req("D8")
@pytest.mark.parametrize(
    ("chat", "photos", "answers"),
    [
        ("", "", True),
        ("", "personal", True),
        ("personal", "personal", True),
        ("personal", "health", True),
        ("personal", "", False),
        ("health", "personal", False),
        ("gone", "health", False),
    ],
)
async def test_a_route_that_is_not_as_strict_answers_nothing_for_another(
    tmp_path: Path,
    chat: str,
    photos: str,
    *,
    answers: bool,
) -> None:
    door = door_of(tmp_path)
    found = two_routes(chat=chat, photos=photos, canary=True)
    door.holder.current = current = served(found, classes=CLASSES)

    status, headers, body = await door.call(CHAT, LOOK)

    assert headers[b"x-swapproof-route"] == b"photos"
    if answers:
        assert status == 200
        return
    assert (status, code(body)) == (503, "no_target_left")
    left = json.loads(body)["error"]["targets"]
    assert {target["left_out"] for target in left} == {"data_class"}
    taken = photos_of(current.routes["chat"])
    assert (taken.warmed, taken.shadow, taken.experiment) == ((), None, None)
    # It is no failure of the route's canary, and its own requests go on.
    door.recorder.flush(final=True)
    assert not door.kept.blocks
    assert (await door.call(CHAT, TEXT))[0] == 200


async def test_a_switch_of_the_route_that_was_asked_holds_for_what_was_asked(
    tmp_path: Path,
) -> None:
    door = door_of(tmp_path)
    forced = parse_environment_switches("chat=provider:away", door.clock.now())
    door.holder.current = served(two_routes(), forced, CLASSES)

    _, headers, _ = await door.call(CHAT, LOOK)
    assert headers[b"x-swapproof-target"] == b"away/m-sees"
    assert headers[b"x-swapproof-switch"].endswith(b"; in_effect")
    # Asked by its own name, the other route is under no switch.
    _, headers, _ = await door.call(CHAT, TEXT)
    assert b"x-swapproof-switch" not in headers

    nowhere = parse_environment_switches("chat=target:up/m-own", door.clock.now())
    door.holder.current = served(two_routes(), nowhere, CLASSES)
    _, headers, _ = await door.call(CHAT, LOOK)
    assert headers[b"x-swapproof-target"] == b"up/m-sees"
    assert headers[b"x-swapproof-switch"].endswith(b"; not_in_effect")


async def test_a_wrong_word_reaches_nobody(tmp_path: Path) -> None:
    door = door_of(tmp_path)
    door.holder.current = served(two_routes(), classes=CLASSES)

    status, _, body = await door.call(
        CHAT,
        LOOK,
        headers=(AUTH, (b"x-swapproof-kind", b"\xff")),
    )

    assert (status, code(body)) == (400, "invalid_header")
