"""Overrides (D6): the official client asks for `chat`, and another route may answer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest

from evals.sim import server
from harness import config, package_data
from harness.control.operations import keys
from harness.control.routing import seed
from harness.domain.canary.guardrails import UnitRule
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.kill_switch import parse_environment_switches
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.table import Canary, Route, RouteSettings, RoutingTable, Snapshot
from harness.domain.routing.target import Target
from router.snapshot.compiled import CompiledRoute
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import AUTH, CHAT, Door, code
from tests.support.router.live_router import (
    QUICK,
    SECRET,
    provider,
    running_router,
    served,
    snapshot,
)
from tests.support.router.live_router import World as Running
from tests.support.router.router_process import eventually

pytestmark = pytest.mark.req("D6")
FILE = """
providers:
  one: {{kind: sim, api_base: {url}}}
routes:
  chat:
    incumbent: one/sim-base
    overrides: {{vision: photos, embedding: vectors, subagent: small}}
  photos: {{incumbent: one/sim-base, fallbacks: [one/sim-better], overrides: {{vision: chat}}}}
  vectors: {{incumbent: one/sim-backup}}
  small: {{incumbent: one/sim-worse}}
"""
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
RULE = UnitRule(block_size=1)


@dataclass(frozen=True)
class Scene:
    """narrow: its key may use `chat` alone."""

    router: Running
    client: openai.OpenAI
    narrow: openai.OpenAI


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("overrides")
    world = SmallInstallation(folder)
    ctx = world.context()
    with simulator_thread.serve_in_thread(server.simulator(time_scale=0)) as url:
        file = folder / "swapgate.yaml"
        file.write_text(FILE.format(url=f"{url}/v1"), encoding="utf-8")
        seed.apply_seed(
            ctx,
            config.load_settings(file, {}, defaults=package_data.path("config/default.yaml")),
        )
        _, key = keys.create_key(ctx, SYSTEM, "app", secret=SECRET)
        _, narrow = keys.create_key(ctx, SYSTEM, "narrow", secret=SECRET, routes=["chat"])
        with (
            running_router(with_canary(world.store.snapshot()), folder, QUICK) as router,
            openai.OpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0) as client,
        ):
            yield Scene(router, client, client.with_options(api_key=narrow))


def with_canary(found: Snapshot) -> Snapshot:
    """The fallback of `photos` is its canary, for everybody."""
    photos = found.table.routes["photos"]
    canary = Canary(photos.fallbacks[0], 10_000, "salt", "r-photos", RULE)
    after = {**found.table.routes, "photos": replace(photos, canary=canary, fallbacks=())}
    return replace(found, table=replace(found.table, routes=after))


def turns(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def ask(client: openai.OpenAI, content: Any = "Say 12 words please.", **more: Any) -> Any:
    """The answer's headers."""
    raw = client.chat.completions.with_raw_response.create(
        model="chat", messages=turns(content), extra_headers=more
    )
    assert raw.parse().model == "chat"
    return raw.headers


def test_a_picture_goes_to_the_vision_route_and_counts_for_its_canary(scene: Scene) -> None:
    photo = [{"type": "text", "text": "Say 12 words please."}, PICTURE]
    blocks = scene.router.store.blocks

    headers = ask(scene.client, photo)
    assert headers["x-swapgate-route"] == "photos"
    assert headers["x-swapgate-kind"] == "vision"
    assert (headers["x-swapgate-arm"], headers["x-swapgate-target"]) == (
        "canary",
        "one/sim-better",
    )
    chunks = scene.client.chat.completions.create(
        model="chat", messages=turns(photo), stream=True
    )
    assert {chunk.model for chunk in chunks} == {"chat"}

    eventually(lambda: sum(block.units for block in blocks.values()) >= 1)
    assert {block.rollout for block in blocks.values()} == {"r-photos"}
    assert all(block.canary_units == block.units for block in blocks.values())
    eventually(lambda: any(row.route == "photos" for row in scene.router.store.traffic))


def test_a_subagent_says_so_and_its_word_counts_for_more_than_its_pictures(
    scene: Scene,
) -> None:
    kind = {"x-swapgate-kind": "subagent"}

    assert ask(scene.client, **kind)["x-swapgate-route"] == "small"
    headers = ask(scene.client, [PICTURE], **kind)
    assert (headers["x-swapgate-route"], headers["x-swapgate-kind"]) == ("small", "subagent")
    # Of a kind that has no override the route itself takes care.
    headers = ask(scene.client, [PICTURE], **{"x-swapgate-kind": "video"})
    assert headers["x-swapgate-route"] == "chat"


def test_who_may_use_a_route_may_use_its_overrides_and_no_more(scene: Scene) -> None:
    assert ask(scene.narrow, [PICTURE])["x-swapgate-route"] == "photos"
    with pytest.raises(openai.PermissionDeniedError, match="'photos'"):
        scene.narrow.chat.completions.create(model="photos", messages=[])


# Without a network: what configuration and database may come to.

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
    named = overrides or {RequestKind.VISION: "photos"}
    settings = RouteSettings(data_class=chat, overrides=named)
    trial = Canary(AWAY.id, 10_000, "s", "r-photos", RULE) if canary else None
    # It would come back here if overrides were followed more than once.
    looking = RouteSettings(
        data_class=photos, overrides={RequestKind.VISION: "chat"}, keep_warm_bps=1_000
    )
    made = {
        "chat": Route("chat", 1, OWN.id, settings=settings),
        "photos": Route("photos", 1, SEES.id, trial, (AWAY.id,), looking),
    }
    targets = {target.id: target for target in (OWN, SEES, AWAY)}
    first = snapshot("http://up", providers=[provider("http://away", "away")])
    return replace(first, table=RoutingTable(1, made, targets))


def door_of(folder: Path) -> Door:
    return Door(folder, lambda _: completion(), classes=CLASSES)


async def test_an_override_is_followed_once(tmp_path: Path) -> None:
    door = door_of(tmp_path)
    door.holder.current = served(two_routes(), classes=CLASSES)

    status, headers, _ = await door.call(CHAT, LOOK)

    assert (status, headers[b"x-swapgate-route"]) == (200, b"photos")


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
