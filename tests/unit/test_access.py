"""Roles are ordered, and whoever asks the management API shows a key, health checks aside."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harness.api.frame.access import AccessRules, Authenticated, read_bearer
from harness.control.operations import keys
from harness.domain.errors import NotAllowed
from harness.domain.operations.access import SYSTEM, Actor, Role, key_hash
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


@pytest.mark.req("F3")
@pytest.mark.parametrize(("has", "needs"), list(product(Role, Role)))
def test_a_role_may_do_what_the_ones_below_it_may(has: Role, needs: Role) -> None:
    actor = Actor("ann", has, "p")
    if has.value >= needs.value:
        actor.require(needs)
    else:
        with pytest.raises(NotAllowed, match=f"ann is .* needs {needs.name.lower()}"):
            actor.require(needs)


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


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_health_check_is_asked_by_nobody(path: str, guarded: Guarded) -> None:
    assert guarded.get(path).text == "nobody"


def test_a_key_acts_as_its_person_in_its_role(guarded: Guarded) -> None:
    assert guarded.get("/api/v1/routes", guarded.texts["vera"]).text == "vera, VIEWER"


def test_without_a_key_nothing_is_said_of_a_token(guarded: Guarded) -> None:
    answer = guarded.get("/api/v1/routes")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="swapgate"'


@pytest.mark.req("F3")
@pytest.mark.parametrize("key", ["sg-mgmt-wrong", "wrong", "data"])
def test_a_key_that_is_none_of_ours_is_an_invalid_token(key: str, guarded: Guarded) -> None:
    answer = guarded.get("/api/v1/routes", guarded.texts.get(key, key))

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].endswith('error="invalid_token"')


def test_the_metrics_token_opens_the_metrics_alone(guarded: Guarded) -> None:
    assert guarded.get("/metrics", TOKEN).text == "metrics token, VIEWER"
    assert guarded.get("/metrics", guarded.texts["vera"]).text == "vera, VIEWER"
    assert guarded.get("/metrics", "other").status_code == 401
    assert guarded.get("/api/v1/routes", TOKEN).status_code == 401


def test_without_a_metrics_token_an_empty_one_opens_nothing(guarded: Guarded) -> None:
    without = Guarded(guarded.world, guarded.texts, token=None)

    assert without.get("/metrics").status_code == 401
    assert without.get("/metrics", TOKEN).status_code == 401


@pytest.mark.req("F3")
def test_who_guesses_waits_and_who_has_a_key_does_not(guarded: Guarded) -> None:
    answers = [guarded.get("/api/v1/routes", "wrong") for _ in range(11)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["error"]["retryable"] is True
    assert guarded.get("/api/v1/routes", guarded.texts["vera"]).status_code == 200
    assert guarded.get("/api/v1/routes", "wrong", ("10.0.0.2", 1)).status_code == 401

    guarded.world.clock.advance(1)
    assert guarded.get("/api/v1/routes", "wrong").status_code == 401


def test_what_is_no_request_passes_by(guarded: Guarded) -> None:
    seen: list[str] = []

    async def inner(scope: object, receive: object, send: object) -> None:  # noqa: ARG001 - as ASGI calls it
        seen.append(scope["type"])  # type: ignore[index]

    rules = AccessRules(guarded.world.store, SECRET, guarded.world.clock)
    app = Authenticated(inner, locks=rules)
    asyncio.run(app({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
