"""Overrides (D6): a client asks for `chat`, and another route may answer."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.gate.online.guardrails import UnitRule
from harness.providers.force import parse_environment_switches
from harness.providers.target import Target
from harness.routing.overrides import RequestKind
from harness.routing.table import Canary, Route, RouteSettings, RoutingTable, Snapshot
from router.snapshot.compiled import CompiledRoute
from tests.support.providers.scripted_upstream import completion, streamed
from tests.support.router.asgi_router import AUTH, CHAT, Door, code
from tests.support.router.live_router import provider, served, snapshot

pytestmark = pytest.mark.req("D6")
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
RULE = UnitRule(block_size=1)
OWN, SEES, AWAY = Target("up", "m-own"), Target("up", "m-sees"), Target("away", "m-sees")
CLASSES = {"personal": frozenset({"up", "away"}), "health": frozenset({"up"})}
LOOK = json.dumps(
    {"model": "chat", "messages": [{"role": "user", "content": [PICTURE]}]}
).encode()
TEXT = b'{"model":"photos","messages":[{"role":"user","content":"hi"}]}'


def two_routes(
    *,
    chat: str = "",
    photos: str = "",
    overrides: Mapping[RequestKind, str] | None = None,
    canary: bool = False,
) -> Snapshot:
    """chat, photos: their classes of data."""
    named = overrides or {RequestKind.VISION: "photos", RequestKind.SUBAGENT: "small"}
    settings = RouteSettings(data_class=chat, overrides=named)
    trial = Canary(AWAY.id, 10_000, "s", "r-photos", RULE) if canary else None
    # It would come back here if overrides were followed more than once.
    looking = RouteSettings(
        data_class=photos, overrides={RequestKind.VISION: "chat"}, keep_warm_bps=1_000
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

    assert (status, headers[b"x-swapgate-route"]) == (200, b"photos")
    assert headers[b"x-swapgate-kind"] == b"vision"
    assert headers[b"x-swapgate-arm"] == b"canary"
    assert headers[b"x-swapgate-target"] == b"away/m-sees"
    assert b'"chat"' in body
    door.recorder.flush(final=True)
    (block,) = door.kept.blocks.values()
    assert (block.rollout, block.units, block.canary_units) == ("r-photos", 1, 1)
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
    tmp_path: Path, kind: bytes, asked: bytes, answers: bytes
) -> None:
    door = Door(tmp_path, first=two_routes())

    _, headers, _ = await door.call(CHAT, asked, headers=(AUTH, (b"x-swapgate-kind", kind)))

    assert headers[b"x-swapgate-route"] == answers
    assert headers.get(b"x-swapgate-kind", kind) == kind


async def test_who_may_use_a_route_may_use_its_overrides_and_no_more(tmp_path: Path) -> None:
    found = two_routes()
    narrow = tuple(replace(key, routes=frozenset({"chat"})) for key in found.keys)
    door = Door(tmp_path, first=replace(found, keys=narrow))

    _, headers, _ = await door.call(CHAT, LOOK)
    status, _, body = await door.call(CHAT, TEXT)

    assert headers[b"x-swapgate-route"] == b"photos"
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
    tmp_path: Path, chat: str, photos: str, *, answers: bool
) -> None:
    door = door_of(tmp_path)
    found = two_routes(chat=chat, photos=photos, canary=True)
    door.holder.current = current = served(found, classes=CLASSES)

    status, headers, body = await door.call(CHAT, LOOK)

    assert headers[b"x-swapgate-route"] == b"photos"
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
    assert headers[b"x-swapgate-target"] == b"away/m-sees"
    assert headers[b"x-swapgate-switch"].endswith(b"; in_effect")
    # Asked by its own name, the other route is under no switch.
    _, headers, _ = await door.call(CHAT, TEXT)
    assert b"x-swapgate-switch" not in headers

    nowhere = parse_environment_switches("chat=target:up/m-own", door.clock.now())
    door.holder.current = served(two_routes(), nowhere, CLASSES)
    _, headers, _ = await door.call(CHAT, LOOK)
    assert headers[b"x-swapgate-target"] == b"up/m-sees"
    assert headers[b"x-swapgate-switch"].endswith(b"; not_in_effect")


async def test_a_wrong_word_reaches_nobody(tmp_path: Path) -> None:
    door = door_of(tmp_path)
    door.holder.current = served(two_routes(), classes=CLASSES)

    status, _, body = await door.call(CHAT, LOOK, headers=(AUTH, (b"x-swapgate-kind", b"\xff")))

    assert (status, code(body)) == (400, "invalid_header")
