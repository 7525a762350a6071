"""A tool loop of four turns goes on after it was moved to another target, whatever it carries.

Every kind × every other, endpoint, form, feature and occasion, made of the registry. The
providers are strict: they refuse what the real ones refuse of another's conversation.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Final

import pytest

from harness.frame.people.access import key_hash
from harness.providers.force import KillSwitch
from harness.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Provider, Target
from harness.routing.reliability.breaker import BreakerPolicy
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Canary, KeyGrant, Route, RoutingTable, Snapshot
from router.protocols.endpoints import ENDPOINTS
from router.upstream.transports import Transports
from tests.support.router.asgi_router import Door
from tests.support.router.live_router import KEY, QUICK, SECRET, switch_of
from tests.wire.kinds import StrictWire, model_of, provider_of
from tests.wire.server import Json, Reading, Reply
from tests.wire.tool_clients import CLIENTS, Feature, MessageClient

pytestmark = pytest.mark.slow
KINDS: Final = tuple(sorted(SERVED_KINDS - {"sim"}))
SETTINGS: Final = replace(QUICK, heartbeat_s=0.0, breaker=BreakerPolicy(failures=1_000_000))
PATHS: Final = {endpoint: path for path, endpoint in ENDPOINTS.items()}
TURNS: Final = 4
# Of so many cells, one is in the sample: a prime, so that all forms are among them.
SHARE: Final = 197
# Reasoning that only its maker can read is no part of a chat.
NOT_IN_CHATS: Final = (Feature.HOSTED, Feature.ENCRYPTED)


class Occasion(StrEnum):
    """Why a conversation moves after its second turn."""

    CANARY = "canary"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    FALLBACK = "fallback"
    KILL_SWITCH = "kill_switch"


@dataclass(frozen=True)
class Cell:
    old: str
    new: str
    endpoint: Endpoint
    stream: bool
    feature: Feature
    occasion: Occasion

    def route(self, turn: int) -> str:
        if turn < 2 or (turn == 3 and self.occasion is Occasion.ROLLED_BACK):
            return f"old.{self.old}"
        if self.occasion in (
            Occasion.CANARY,
            Occasion.FALLBACK,
            Occasion.KILL_SWITCH,
        ):
            return f"{self.occasion}.{self.old}.{self.new}"
        return f"new.{self.new}"


def cells(*occasions: Occasion) -> Iterator[Cell]:
    for old, new, endpoint, stream, feature, occasion in product(
        KINDS, KINDS, CLIENTS, (False, True), Feature, occasions or Occasion
    ):
        able = all(endpoint in PROVIDER_KINDS[kind].serves for kind in (old, new))
        if able and not (endpoint is Endpoint.CHAT and feature in NOT_IN_CHATS):
            yield Cell(old, new, endpoint, stream, feature, occasion)


def sampled_cells() -> Iterator[Cell]:
    yield from islice(cells(), 0, None, SHARE)


def snapshot_of() -> Snapshot:
    old = {kind: Target(f"{kind}-old", model_of(kind)) for kind in KINDS}
    new = {kind: Target(f"{kind}-new", model_of(kind)) for kind in KINDS}
    routes = [Route(f"old.{k}", 1, t.id, None, (), RouteSettings()) for k, t in old.items()]
    routes += [Route(f"new.{k}", 1, t.id, None, (), RouteSettings()) for k, t in new.items()]
    switches: list[KillSwitch] = []
    for one, other in product(KINDS, KINDS):
        pair = f"{one}.{other}"
        guest = new[other].id
        plain = Route(f"canary.{pair}", 1, old[one].id, None, (), RouteSettings())
        routes.append(replace(plain, canary=Canary(guest, 10_000, "salt", f"r_{pair}")))
        behind = replace(plain, name=f"fallback.{pair}", fallbacks=(guest,))
        killed = replace(behind, name=f"{Occasion.KILL_SWITCH}.{pair}")
        routes += [behind, killed]
        force = f"provider:{new[other].provider}"
        switches.append(switch_of(force, id=f"sw_{killed.name}", route=killed.name))
    providers = [provider_of(kind, f"{kind}-{age}") for kind in KINDS for age in ("old", "new")]
    targets = {target.id: target for target in (*old.values(), *new.values())}
    return Snapshot(
        table=RoutingTable(1, {route.name: route for route in routes}, targets),
        providers={provider.name: provider for provider in providers},
        keys=(KeyGrant("k", key_hash(KEY, SECRET)),),
        etag="1",
        switches=tuple(switches),
    )


class ToolLoops(StrictWire):
    """Every model asks `together` calls at once, and answers in words at the last turn."""

    together = 1

    def reply(self, reading: Reading, provider: Provider) -> Reply:
        results = sum(len(turn.results) for turn in reading.turns)
        thinks = reading.thinks or provider.kind == "deepseek"
        thought = "I look it up." if thinks else ""
        step = results // self.together
        if step == TURNS - 1:
            return Reply("It is 9 C.", reasoning=thought)
        calls = tuple(("weather", city) for city in cities(step, self.together))
        return Reply(reasoning=thought, calls=calls, stop="tools")


def cities(step: int, together: int) -> list[Json]:
    return [{"city": f"c{step}{number}"} for number in range(together)]


def door_before(wire: ToolLoops, folder: Path) -> Door:
    transports = Transports(SETTINGS, wire)
    transports.prepare(KINDS)
    return Door(
        folder,
        settings=SETTINGS,
        first=snapshot_of(),
        transports=transports,
    )


@pytest.mark.req("B1", "B2", "B7")
@pytest.mark.parametrize(
    "chosen",
    [
        sampled_cells,
        *(
            pytest.param(
                partial(cells, occasion),
                marks=pytest.mark.verify,
                id=occasion.value,
            )
            for occasion in Occasion
        ),
    ],
)
async def test_a_moved_tool_loop_goes_on(
    chosen: Callable[[], Iterator[Cell]], tmp_path: Path
) -> None:
    wire = ToolLoops()
    door = door_before(wire, tmp_path)

    count = 0
    wrong = []
    for cell in chosen():
        count += 1
        if why := await fault(cell, door, wire):
            wrong.append(f"{cell}: {why}")

    assert not wrong, f"{len(wrong)} of {count} cells, such as\n" + "\n".join(wrong[:20])


async def fault(
    cell: Cell,
    door: Door,
    wire: ToolLoops,
) -> str:
    hosted = cell.endpoint in PROVIDER_KINDS[cell.old].speaks
    client = CLIENTS[cell.endpoint](cell.feature, hosted=hosted)
    wire.together = 2 if cell.feature is Feature.PARALLEL else 1
    wire.refused = []
    for turn in range(TURNS):
        falls = cell.occasion is Occasion.FALLBACK and turn >= 2
        wire.failing = frozenset({f"{cell.old}-old"} if falls else ())
        asked = json.dumps(client.body(cell.route(turn), stream=cell.stream)).encode()
        status, _, raw = await door.call(PATHS[cell.endpoint], asked)
        if status != 200:
            return f"turn {turn + 1}: {status} {raw[:300]!r}; refused: {wire.refused}"
        text, calls = client.hear(raw, stream=cell.stream)
        wanted = (
            [] if turn == TURNS - 1 else [("weather", c) for c in cities(turn, wire.together)]
        )
        if calls != wanted or bool(text) != (turn == TURNS - 1):
            return f"turn {turn + 1}: {text!r} {calls} instead of {wanted}"
    return ""


@pytest.mark.req("B1", "B7")
@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_of_an_unknown_maker_is_tried_once_and_counted_as_no_failure(
    *, stream: bool, tmp_path: Path
) -> None:
    wire = ToolLoops()
    door = door_before(wire, tmp_path)
    client = MessageClient(Feature.THINKING, hosted=False)
    thought = {
        "type": "thinking",
        "thinking": "hm",
        "signature": "another",
    }
    use = {
        "type": "tool_use",
        "id": "toolu_x",
        "name": "weather",
        "input": {"city": "c00"},
    }
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_x",
        "content": "9 C",
    }
    client.history += [
        {"role": "assistant", "content": [thought, use]},
        {"role": "user", "content": [result]},
    ]
    body = json.dumps(client.body("new.anthropic", stream=stream)).encode()

    status, headers, raw = await door.call("/v1/messages", body)

    assert client.hear(raw, stream=stream) == (
        "",
        [("weather", {"city": "c10"})],
    )
    assert (status, headers[b"x-swapproof-attempts"]) == (200, b"1")
    assert headers[b"x-swapproof-degraded"] == b"messages.thinking, thinking"
    (refusal,) = wire.refused
    assert "Invalid `signature`" in refusal
    _, _, metrics = await door.call("/metrics", method="GET")
    target = f"anthropic-new/{model_of('anthropic')}"
    refused = f'swapproof_refused_pieces_total{{piece="thinking",target="{target}"}} 1.0'
    labels = f'failure_class="none",provider="anthropic-new",target="{target}"'
    answered = f"swapproof_attempts_total{{{labels}}} 1.0"
    assert all(line in metrics.decode() for line in (refused, answered))


@pytest.mark.req("A4", "B7")
async def test_an_outage_is_the_answer_where_the_next_target_cannot_be_asked_the_same(
    tmp_path: Path,
) -> None:
    wire = ToolLoops()
    door = door_before(wire, tmp_path)
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    filed = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    wire.failing = frozenset({"anthropic-old"})
    for fields in (
        {"tools": [hosted], "content": "hi"},
        {"content": [filed]},
    ):
        message = {"role": "user", "content": fields.pop("content")}
        body = {
            "model": "fallback.anthropic.groq",
            "max_tokens": 9,
            "messages": [message],
        }
        status, _, raw = await door.call(
            "/v1/messages", json.dumps({**body, **fields}).encode()
        )
        assert status == 502
        told = json.loads(raw)["error"]["message"]
        assert "anthropic-old/" in told
        assert "timeout" in told
    wire.failing = frozenset()
    status, _, raw = await door.call(
        "/v1/messages", json.dumps({**body, "model": "new.groq"}).encode()
    )
    assert status == 422
    assert "document" in json.loads(raw)["error"]["message"]
