"""Every endpoint, kind of incumbent, kind of other target, role and form of answer.

Made of the registry: a new kind or endpoint is in it by itself. All in this process; the
providers are `tests.wire.kinds`, each in its own protocol.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Final

import pytest

from harness.frame.people.access import key_hash
from harness.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Provider, Target
from harness.routing.plan import KeepWarm, draw_keep_warm
from harness.routing.reliability.breaker import BreakerPolicy
from harness.routing.route_settings import RequestKind, RouteSettings
from harness.routing.table import Arm, Canary, KeyGrant, Route, RoutingTable, Snapshot
from router.protocols.endpoints import ENDPOINTS
from router.upstream.transports import Transports
from tests.support.control.manual_clock import ManualClock
from tests.support.router.asgi_router import AUTH, Door
from tests.support.router.live_router import KEY, QUICK, SECRET, shadow_of
from tests.wire.kinds import StrictWire, model_of, provider_of
from tests.wire.server import Json, Reading, Reply
from tests.wire.tool_clients import CLIENTS, Call, Feature, ToolClient

pytestmark = pytest.mark.slow

KINDS: Final = tuple(sorted(SERVED_KINDS))
PATHS: Final = {endpoint: path for path, endpoint in ENDPOINTS.items()}
NOW: Final = ManualClock().now()
WARM_BPS: Final = 1_000
# Of so many cells, one is in the sample.
SHARE: Final = 11
# No circuit opens: each cell is for itself.
SETTINGS: Final = replace(QUICK, heartbeat_s=0.0, breaker=BreakerPolicy(failures=1_000_000))
CALL: Final = ("weather", {"city": "Oslo"})


def says(provider: str) -> str:
    """What it answers, so that it is known whose answer a client got."""
    return f"An answer of {provider}."


class Kinds(StrictWire):
    def reply(self, reading: Reading, provider: Provider) -> Reply:
        if reading.tools:
            return Reply(calls=(CALL,), stop="tools")
        return Reply(says(provider.name))


class Role(StrEnum):
    """What the other target is to the route."""

    FALLBACK = "fallback"
    CANARY = "canary"
    FAILING_CANARY = "failing_canary"
    KEEP_WARM = "keep_warm"
    SHADOW = "shadow"
    OVERRIDE = "override"


class Form(StrEnum):
    PLAIN = "plain"
    STREAM = "stream"
    TOOLS = "tools"
    STREAMED_TOOLS = "streamed_tools"

    @property
    def stream(self) -> bool:
        return self in (Form.STREAM, Form.STREAMED_TOOLS)

    @property
    def tools(self) -> bool:
        return self in (Form.TOOLS, Form.STREAMED_TOOLS)


FORMS: Final[Mapping[Endpoint, Sequence[Form]]] = {
    **dict.fromkeys(Endpoint, tuple(Form)),
    Endpoint.EMBEDDINGS: (Form.PLAIN,),
}


@dataclass(frozen=True)
class Cell:
    role: Role
    endpoint: Endpoint
    incumbent: str
    other: str
    form: Form

    @property
    def route(self) -> str:
        return f"{self.role}.{self.incumbent}.{self.other}"

    @property
    def failing(self) -> frozenset[str]:
        match self.role:
            case Role.FALLBACK:
                return frozenset({first_name(self.incumbent)})
            case Role.FAILING_CANARY:
                return frozenset({second(self.other)})
            case _:
                return frozenset()

    @property
    def expected_providers(self) -> list[str]:
        """Names of the providers that get the request, in order."""
        incumbent = first_name(self.incumbent)
        other = second(self.other)
        order = {
            Role.FALLBACK: (incumbent, other),
            Role.CANARY: (other, incumbent),
            Role.FAILING_CANARY: (other, incumbent),
            Role.KEEP_WARM: (incumbent, other),
            Role.SHADOW: (incumbent,),
            Role.OVERRIDE: (other,),
        }[self.role]
        if self.warms:
            order = (other, incumbent)
        kinds = {incumbent: self.incumbent, other: self.other}
        able = [
            target for target in order if self.endpoint in PROVIDER_KINDS[kinds[target]].serves
        ]
        found = []
        for name in able:
            found.append(name)
            if name not in self.failing:
                break
        return found

    @property
    def warms(self) -> bool:
        able = self.endpoint in PROVIDER_KINDS[self.other].serves
        return self.role is Role.KEEP_WARM and able and self.endpoint is not Endpoint.EMBEDDINGS

    @property
    def mirrors(self) -> bool:
        kinds = (self.incumbent, self.other)
        able = all(self.endpoint in PROVIDER_KINDS[kind].serves for kind in kinds)
        return self.role is Role.SHADOW and able and self.endpoint is not Endpoint.EMBEDDINGS

    @property
    def arm(self) -> Arm:
        if self.role in (Role.CANARY, Role.FAILING_CANARY):
            return Arm.CANARY
        return Arm.KEEP_WARM if self.warms else Arm.INCUMBENT


def cells(role: Role) -> Iterator[Cell]:
    for endpoint, incumbent, other in product(Endpoint, KINDS, KINDS):
        for form in FORMS[endpoint]:
            yield Cell(role, endpoint, incumbent, other, form)


def sampled_cells(role: Role) -> Iterator[Cell]:
    """An eleventh of the cells, another for each role, in which all forms and pairs are."""
    yield from islice(cells(role), [*Role].index(role) % SHARE, None, SHARE)


def first_name(kind: str) -> str:
    return kind


def second(kind: str) -> str:
    return f"{kind}-2"


def snapshot_of(role: Role) -> Snapshot:
    """A route for each pair of kinds."""
    targets = {kind: Target(first_name(kind), model_of(kind)) for kind in KINDS}
    others = {kind: Target(second(kind), model_of(kind)) for kind in KINDS}
    routes = {}
    shadows = []
    for incumbent, other in product(KINDS, KINDS):
        name = f"{role}.{incumbent}.{other}"
        first = targets[incumbent].id
        guest = others[other].id
        route = Route(name, 1, first, None, (), RouteSettings())
        match role:
            case Role.FALLBACK:
                route = replace(route, fallbacks=(guest,))
            case Role.CANARY | Role.FAILING_CANARY:
                route = replace(route, canary=Canary(guest, 10_000, "salt", f"r_{name}"))
            case Role.KEEP_WARM:
                settings = RouteSettings(keep_warm_bps=WARM_BPS)
                route = replace(route, fallbacks=(guest,), settings=settings)
            case Role.SHADOW:
                shadows.append(shadow_of(name, first, others[other]))
            case Role.OVERRIDE:
                override = f"to.{other}"
                routes[override] = Route(override, 1, guest, None, (), RouteSettings())
                settings = RouteSettings(overrides={RequestKind.SUBAGENT: override})
                route = replace(route, settings=settings)
        routes[name] = route
    providers = [
        provider_of(kind, name(kind)) for kind in KINDS for name in (first_name, second)
    ]
    all_targets = (*targets.values(), *others.values())
    return Snapshot(
        table=RoutingTable(1, routes, {target.id: target for target in all_targets}),
        providers={provider.name: provider for provider in providers},
        keys=(KeyGrant("k", key_hash(KEY, SECRET)),),
        etag="1",
        shadows=tuple(shadows),
    )


def body(cell: Cell) -> bytes:
    asked: Json = {"model": cell.route}
    if cell.endpoint is Endpoint.EMBEDDINGS:
        return json.dumps({**asked, "input": ["Hello?", "Bye!"]}).encode()
    asked = client_of(cell).body(cell.route, stream=cell.form.stream)
    if not cell.form.tools:
        del asked["tools"]
    return json.dumps(asked).encode()


def client_of(cell: Cell) -> ToolClient:
    return CLIENTS[cell.endpoint](Feature.PARALLEL, hosted=False)


def read_answer(cell: Cell, raw: bytes) -> tuple[str, list[Call]]:
    """Text and calls of a whole answer, as this endpoint's clients read it."""
    if cell.endpoint is not Endpoint.EMBEDDINGS:
        return client_of(cell).hear(raw, stream=cell.form.stream)
    vectors = [load["embedding"] for load in json.loads(raw)["data"]]
    assert len(vectors) == 2
    assert all(isinstance(x, float) for vector in vectors for x in vector)
    return "", []


@cache
def warm_key(route: str, target: str) -> bytes:
    found = (
        f"u{number}"
        for number in range(10_000)
        if draw_keep_warm(
            f"header:u{number}",
            route=route,
            day=NOW.date(),
            targets=(target,),
            healthy=lambda _: True,
            setting=KeepWarm(WARM_BPS),
        )
    )
    return next(found).encode()


def headers_of(cell: Cell) -> tuple[tuple[bytes, bytes], ...]:
    target = Target(second(cell.other), model_of(cell.other))
    match cell.role:
        case Role.KEEP_WARM:
            return AUTH, (
                b"x-swapproof-sticky",
                warm_key(cell.route, target.id),
            )
        case Role.OVERRIDE:
            return AUTH, (b"x-swapproof-kind", b"subagent")
        case _:
            return (AUTH,)


@pytest.fixture(scope="module")
def wire() -> Kinds:
    return Kinds()


@pytest.fixture(scope="module")
def transports(wire: Kinds) -> Transports:
    """Loading what translates is the slow part."""
    found = Transports(SETTINGS, wire)
    found.prepare(KINDS)
    return found


@pytest.mark.req("B2", "B7")
@pytest.mark.parametrize(
    "chosen", [sampled_cells, pytest.param(cells, marks=pytest.mark.verify)]
)
@pytest.mark.parametrize("role", Role)
async def test_every_kind_beside_every_kind_answers_whole_or_says_why_not(
    role: Role,
    chosen: Callable[[Role], Iterator[Cell]],
    tmp_path: Path,
    transports: Transports,
    wire: Kinds,
) -> None:
    first = snapshot_of(role)
    door = Door(
        tmp_path,
        settings=SETTINGS,
        first=first,
        transports=transports,
    )
    door.recorder.shadows.know((shadow.id for shadow in first.shadows), ())
    # As the thread that follows the store does: the router knows then that there is no cap.
    door.holder.tell_followers()
    wrong = [
        f"{cell}: {why}" for cell in chosen(role) if (why := await fault(cell, door, wire))
    ]

    assert not wrong, f"{len(wrong)} cells, such as\n" + "\n".join(wrong[:10])
    counted = door.recorder.counters
    assert not [name for name in counted if "internal" in name or "unreadable" in name]


async def fault(
    cell: Cell,
    door: Door,
    wire: Kinds,
) -> str:
    wire.failing = cell.failing
    wire.asked = []
    mirrored = door.recorder.counters["shadow_mirrored"]
    status, headers, raw = await door.call(
        PATHS[cell.endpoint],
        body(cell),
        headers=headers_of(cell),
    )
    expected = cell.expected_providers
    answers = bool(expected) and expected[-1] not in cell.failing
    wanted = 200 if answers else 502 if expected else 422
    if status != wanted:
        return f"{status} instead of {wanted}: {raw[:300]!r}"
    if headers[b"x-swapproof-arm"].decode() != cell.arm:
        return f"arm {headers[b'x-swapproof-arm']!r} instead of {cell.arm}"
    if answers:
        served = headers[b"x-swapproof-target"].decode().partition("/")[0]
        if served != expected[-1]:
            return f"{served} answered instead of {expected[-1]}"
        why = unlike(cell, raw, expected[-1])
        if why:
            return why
    if cell.mirrors:
        expected = [*expected, second(cell.other)]
        await mirrors_done()
        counted = door.recorder.counters
        if counted["shadow_mirrored"] != mirrored + 1:
            return f"it was not mirrored: {counted}"
    asked = [name for name, _ in wire.asked]
    return "" if asked == expected else f"asked were {asked} instead of {expected}"


def unlike(
    cell: Cell,
    raw: bytes,
    served: str,
) -> str:
    try:
        text, calls = read_answer(cell, raw)
    except (AssertionError, LookupError, ValueError, TypeError) as error:
        return f"not whole ({error!r}): {raw[-300:]!r}"
    spoken = "" if cell.form.tools or cell.endpoint is Endpoint.EMBEDDINGS else says(served)
    made = [CALL] if cell.form.tools else []
    return "" if (text, calls) == (spoken, made) else f"it said {text!r}, {calls}"


async def mirrors_done() -> None:
    """What was mirrored runs beside the answers, as tasks of this loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def test_every_cell_of_the_registry_is_in_it() -> None:
    roles = [cell for role in Role for cell in cells(role)]
    pairs = len(PROVIDER_KINDS) ** 2
    forms = sum(len(FORMS[endpoint]) for endpoint in Endpoint)
    assert set(KINDS) == set(PROVIDER_KINDS)
    assert set(PATHS) == set(Endpoint)
    assert len(set(roles)) == len(roles) == pairs * forms * len(Role)


@pytest.mark.req("B7")
@pytest.mark.parametrize(
    "field",
    [{"functions": [{"name": "f"}]}, {"modalities": ["text", "audio"]}],
)
async def test_a_chat_that_no_translation_can_say_goes_to_who_needs_none(
    field: Json,
    tmp_path: Path,
    transports: Transports,
    wire: Kinds,
) -> None:
    first = snapshot_of(Role.CANARY)
    door = Door(
        tmp_path,
        settings=SETTINGS,
        first=first,
        transports=transports,
    )
    wire.failing = frozenset()
    wire.asked = []
    cell = Cell(Role.CANARY, Endpoint.CHAT, "openrouter", "anthropic", Form.PLAIN)
    asked = json.dumps({**json.loads(body(cell)), **field}).encode()

    status, headers, _ = await door.call(
        PATHS[Endpoint.CHAT],
        asked,
        headers=headers_of(cell),
    )

    assert (status, headers[b"x-swapproof-arm"]) == (200, b"canary")
    assert [name for name, _ in wire.asked] == [first_name("openrouter")]
