"""Roles are ordered, and whoever asks the management API shows a key, health checks aside."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harness.api.frame.access import AccessRules, Authenticated, read_bearer
from harness.control.operations import keys
from harness.domain.operations.access import SYSTEM, Role, key_hash
from tests.support.control.control_plane import SECRET, SmallInstallation

TOKEN = "scrape-me"  # noqa: S105 - of this test


async def name_caller(request: Request) -> PlainTextResponse:
    actor = getattr(request.state, "actor", None)
    return PlainTextResponse(f"{actor.name}, {actor.role.name}" if actor else "nobody")


@dataclass
class Guarded:
    """An app that says who asks. texts: keys by name."""

    world: SmallInstallation
    texts: dict[str, str]
    token: str | None = TOKEN

    def __post_init__(self) -> None:
        rules = AccessRules(self.world.store, SECRET, self.world.clock, self.token)
        inner = Starlette(routes=[Route("/{path:path}", name_caller)])
        self.app = Authenticated(inner, locks=rules)

    def get(
        self, path: str, bearer: str | None = None, address: tuple[str, int] = ("10.0.0.1", 1)
    ) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=address)
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
                headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
                return await http.get(path, headers=headers)

        return asyncio.run(call())


@pytest.fixture(scope="module")
def texts_and_world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[dict[str, str], SmallInstallation]]:
    world = SmallInstallation(tmp_path_factory.mktemp("world"))
    ctx = world.context()
    made = {
        "vera": keys.create_key(ctx, SYSTEM, "vera", secret=SECRET, role=Role.VIEWER)[1],
        "data": keys.create_key(ctx, SYSTEM, "client", secret=SECRET)[1],
    }
    yield made, world
    world.store.close()


@pytest.fixture
def guarded(texts_and_world: tuple[dict[str, str], SmallInstallation]) -> Guarded:
    texts, world = texts_and_world
    return Guarded(world, texts)


def test_a_key_is_stored_as_its_hmac_of_sha_256() -> None:
    # RFC 4231, test case 1.
    assert key_hash("Hi There", b"\x0b" * 20) == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )


def test_a_text_that_is_no_unicode_is_hashed_all_the_same() -> None:
    assert len(key_hash("sg-mgmt-\udce9", SECRET)) == 64


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer k", "k"),
        ("bearer  k ", "k"),
        ("Basic k", ""),
        ("k", ""),
        ("Bearer", ""),
        ("", ""),
    ],
)
def test_a_key_is_read_from_a_bearer_header_alone(header: str, token: str) -> None:
    assert read_bearer(header) == token


def test_a_key_acts_as_its_person_in_its_role(guarded: Guarded) -> None:
    assert guarded.get("/api/v1/routes", guarded.texts["vera"]).text == "vera, VIEWER"


def test_without_a_metrics_token_an_empty_one_opens_nothing(guarded: Guarded) -> None:
    without = Guarded(guarded.world, guarded.texts, token=None)

    assert without.get("/metrics").status_code == 401
    assert without.get("/metrics", TOKEN).status_code == 401


def test_what_is_no_request_passes_by(guarded: Guarded) -> None:
    seen: list[str] = []

    async def inner(scope: object, receive: object, send: object) -> None:  # noqa: ARG001 - as ASGI calls it
        seen.append(scope["type"])  # type: ignore[index]

    rules = AccessRules(guarded.world.store, SECRET, guarded.world.clock)
    app = Authenticated(inner, locks=rules)
    asyncio.run(app({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
