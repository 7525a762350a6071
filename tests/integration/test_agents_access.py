"""Who may ask the agents process: keys, and with `open_on_loopback` this machine."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.agents.caller import (
    AgentCaller,
    ApprovalLinks,
    sign_agent_header,
    sign_peer_header,
)
from harness.app.agents import TurnService, open_agents
from harness.app.installation import Installation
from harness.frame.errors import ConfigError
from harness.frame.people.access import SYSTEM, Role
from harness.frame.signing.keyring import KeyPurpose
from harness.interfaces.api.agents.process import (
    SignsForAgents,
    build_agents_app,
)
from harness.operations import keys
from tests.support.control.manual_clock import ManualClock
from tests.support.control.waiting_switch import waiting_switch
from tests.support.router.router_process import routed
from tests.support.site.agents_site import error_of

pytestmark = pytest.mark.req("E1", "E2")

LOOPBACK = "127.0.0.1"
OUTSIDE = "203.0.113.9"
PEER = "x-swapproof-peer"
AGENT = "x-swapproof-agent"
BODY = {"name": "support", "model": "chat"}


@dataclass
class AgentsDoor:
    """The app as the agents process serves it, asked from an address of the test's choice."""

    installation: Installation
    clock: ManualClock
    app: Any

    def send(
        self,
        method: str = "GET",
        path: str = "/agents",
        *,
        address: str = LOOPBACK,
        host: str = "127.0.0.1:8080",
        **options: Any,
    ) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(address, 1234))
            url = f"http://{host}"
            async with httpx.AsyncClient(transport=transport, base_url=url) as http:
                return await http.request(method, path, **options)

        return asyncio.run(call())

    def key(self, name: str, role: Role | None = None) -> tuple[str, dict[str, str]]:
        ctx = self.installation.context
        secret = self.installation.secret
        key, text = keys.create_key(
            ctx,
            SYSTEM,
            name,
            secret=secret,
            role=role,
        )
        return key.id, {"authorization": f"Bearer {text}"}

    def peer(
        self,
        address: str,
        *,
        age_s: float = 0.0,
        secret: bytes | None = None,
    ) -> bytes:
        """What the router says of who is connected to it."""
        now = self.clock.now().timestamp() - age_s
        return sign_peer_header(address, secret or self.installation.secret, now)


def open_door(
    folder: Path,
    *,
    is_open: bool,
    signs_as: KeyPurpose | None = KeyPurpose.CONTROL,
) -> Iterator[AgentsDoor]:
    clock = ManualClock()
    with routed(folder, "http://127.0.0.1:9") as world:
        settings = world.installation.settings
        where = replace(settings.agents, open_on_loopback=is_open)
        installation = replace(
            world.installation,
            settings=replace(settings, agents=where),
            clock=clock,
            signs_as=signs_as,
        )
        try:
            app = build_agents_app(installation, TurnService(installation))
            yield AgentsDoor(installation, clock, app)
        finally:
            installation.close()


@pytest.fixture(scope="module")
def shared_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsDoor]:
    yield from open_door(tmp_path_factory.mktemp("open"), is_open=True)


@pytest.fixture
def door(shared_door: AgentsDoor) -> AgentsDoor:
    # Nobody of the test before has any failed attempt left.
    shared_door.clock.advance(3600)
    return shared_door


@pytest.fixture(scope="module")
def closed_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsDoor]:
    yield from open_door(tmp_path_factory.mktemp("closed"), is_open=False)


def test_the_agents_process_has_no_signing_key_and_asks_the_control_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with routed(tmp_path, "http://127.0.0.1:9") as world:
        config = world.place.config
        monkeypatch.setenv("SWAPPROOF_SIGNING_KEY", "not for the agents process")
        monkeypatch.setenv("SWAPPROOF_SIGNING_KEY_FILE", str(config))
        with (
            closing(open_agents(config)) as opened,
            pytest.raises(ConfigError),
        ):
            opened.signatures.sign(b"a grant")
    assert not {"SWAPPROOF_SIGNING_KEY", "SWAPPROOF_SIGNING_KEY_FILE"} & os.environ.keys()


def test_while_the_control_plane_is_away_literal_models_wait_and_routes_do_not(
    tmp_path: Path,
) -> None:
    for door in open_door(tmp_path, is_open=True, signs_as=None):
        answer = door.send("POST", json={"name": "literal", "model": "sim:sim-better"})

        error = error_of(answer, 503)
        assert error["code"] == "not_available"
        assert "no signing key" in error["message"]
        assert answer.headers["retry-after"] == "2"
        assert door.send("POST", json=BODY).status_code == 201
        # A link shows its question without the control plane; guesses do not reach that.
        request = waiting_switch(door.installation.context, "sim/sim-better")
        link = ApprovalLinks("", door.installation.secret).link(request)
        assert door.send(path=f"{link}0").status_code == 404
        assert door.send(path=link).status_code == 200
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (
            door.send(
                "POST",
                link,
                content=b"",
                headers=form,
            ).status_code
            == 503
        )


def test_the_control_plane_signs_only_what_the_agents_process_passes_on(tmp_path: Path) -> None:
    literal = {"name": "literal", "model": "sim:sim-better"}
    for agents in open_door(tmp_path, is_open=True):
        control = replace(agents, app=SignsForAgents(agents.app, agents.installation))
        peer = {PEER: control.peer(LOOPBACK).decode()}
        forged = {PEER: control.peer(LOOPBACK, secret=b"another").decode()}
        stale = {PEER: control.peer(LOOPBACK, age_s=3600).decode()}
        for headers in (
            {},
            forged,
            stale,
            control.key("boss", Role.ADMIN)[1],
        ):
            answer = control.send("POST", headers=headers, json=literal)
            assert answer.status_code == 404
            assert ("secrets and clocks" in answer.text) == (PEER in headers)
        outside = {PEER: control.peer(OUTSIDE).decode()}
        assert control.send("POST", headers=outside, json=literal).status_code == 401
        proposer = peer | control.key("proposer", Role.PROPOSER)[1]
        assert control.send("POST", headers=proposer, json=literal).status_code == 403
        made = control.send("POST", headers=peer, json=literal)
        assert made.status_code == 201, made.text


def test_without_a_key_nobody_is_served_unless_the_settings_say_so(
    closed_door: AgentsDoor,
) -> None:
    answer = closed_door.send()

    assert error_of(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == 'Bearer realm="swapproof agents"'
    signed = {PEER: closed_door.peer(LOOPBACK).decode()}
    assert closed_door.send(headers=signed).status_code == 401
    for path in (
        "/agents/openapi.json",
        "/agents/a/sessions",
        "/agents/nothing/here",
    ):
        assert closed_door.send(path=path).status_code == 401
    assert closed_door.send(path="/healthz").status_code == 200
    _, good = closed_door.key("a client key")
    assert closed_door.send(headers=good, address=OUTSIDE).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        [("authorization", "Bearer sk-sg-0123456789abcdef")],
        [("authorization", "Bearer sg-mgmt-0123456789abcdef")],
        [("authorization", "Bearer sk-proj-somebody-else")],
        [("authorization", "Bearer ")],
        [("authorization", "")],
        [("authorization", "Basic YTpi")],
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    ],
)
def test_a_key_that_opens_nothing_is_refused_also_on_this_machine(
    door: AgentsDoor, given: list[tuple[str, str]]
) -> None:
    assert error_of(door.send(headers=given), 401)["code"] == "invalid_api_key"


@pytest.mark.parametrize("role", [None, Role.ADMIN])
def test_a_revoked_key_opens_nothing_from_now_on(door: AgentsDoor, role: Role | None) -> None:
    name = door.installation.context.chance.token("key-")
    id_, headers = door.key(name, role)
    assert door.send(headers=headers).status_code == 200

    keys.revoke_key(door.installation.context, SYSTEM, id_)

    assert error_of(door.send(headers=headers), 401)["code"] == "invalid_api_key"


def test_failed_attempts_of_an_address_are_limited_and_a_good_key_is_not(
    door: AgentsDoor,
) -> None:
    wrong = {"authorization": "Bearer sk-sg-guess"}
    _, good = door.key("not limited")
    statuses = [door.send(headers=wrong, address=OUTSIDE).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2

    limited = door.send(headers=wrong, address=OUTSIDE)

    assert error_of(limited, 429)["code"] == "too_many_failures"
    assert limited.headers["retry-after"] == "1"
    assert door.send(headers=good, address=OUTSIDE).status_code == 200
    assert door.send(headers=wrong, address="203.0.113.10").status_code == 401
    door.clock.advance(1)
    assert door.send(headers=wrong, address=OUTSIDE).status_code == 401
    assert door.send(headers=wrong, address=OUTSIDE).status_code == 429


def test_failed_attempts_are_counted_by_the_address_that_the_router_saw(
    door: AgentsDoor,
) -> None:
    wrong = {"authorization": "Bearer sk-sg-guess"}
    for number in range(20):
        # Each of another address, through one router.
        signed = {PEER: door.peer(f"198.51.100.{number}").decode()}
        assert door.send(headers={**wrong, **signed}).status_code == 401
    signed = {PEER: door.peer("198.51.100.99").decode()}
    statuses = [door.send(headers={**wrong, **signed}).status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    # Who invents an address is counted by his own.
    forged = {PEER: door.peer("198.51.100.1", secret=b"another").decode()}
    statuses = [
        door.send(headers={**wrong, **forged}, address=OUTSIDE).status_code for _ in range(11)
    ]
    assert statuses == [401] * 10 + [429]


FOREIGN_HOSTS = (
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "0.0.0.0:8080",
    "192.168.1.7:8080",
    "[::ffff:192.168.1.7]:8080",
)
OTHER_ORIGINS = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost:3000"},
    {"origin": "https://127.0.0.1:8080"},
    {"origin": "http://127.0.0.1:8080.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
)
# As a page may send unasked.
SIMPLE_KINDS = (
    "text/plain",
    "text/plain; application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "",
)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_what_a_foreign_page_may_send_is_refused(door: AgentsDoor, method: str) -> None:
    has_body = method in ("POST", "PATCH")
    body: Any = {"json": BODY} if has_body else {}
    for host in FOREIGN_HOSTS:
        answer = door.send(method, host=host, **body)
        assert error_of(answer, 403)["code"] == "foreign_origin", host
    for headers in OTHER_ORIGINS:
        answer = door.send(method, headers=headers, **body)
        assert error_of(answer, 403)["code"] == "foreign_origin", headers
    for kind in SIMPLE_KINDS if has_body else ():
        content = b'{"name": "x", "model": "chat"}'
        answer = door.send(method, content=content, headers={"content-type": kind})
        assert error_of(answer, 415)["code"] == "unsupported_media_type", kind


def test_only_this_machine_by_its_own_names_is_served_without_a_key(door: AgentsDoor) -> None:
    for host in (
        "localhost",
        "localhost:8080",
        "127.0.0.1",
        "127.8.9.1:1",
        "[::1]:8080",
    ):
        assert door.send(host=host).status_code == 200, host
    # A client behind a proxy may be anyone.
    for header in (
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
        "via",
    ):
        assert door.send(headers={header: LOOPBACK}).status_code == 401, header
    for address in (OUTSIDE, "192.168.1.7", "2001:db8::1", "fe80::1", ""):
        signed = {PEER: door.peer(address).decode()}
        statuses = {
            door.send(address=address).status_code,
            door.send(headers=signed).status_code,
        }
        assert statuses == {401}, address


def test_no_answer_lets_a_page_of_another_origin_read_it(door: AgentsDoor) -> None:
    answers = [
        door.send(headers=headers)
        for headers in (
            {},
            {"origin": "http://127.0.0.1:8080"},
            {"origin": "https://e.example"},
        )
    ]

    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_the_peer_is_the_routers_word_alone_and_of_this_minute(door: AgentsDoor) -> None:
    now = door.clock.now().timestamp()
    good = door.peer(LOOPBACK).decode()
    another = sign_agent_header(AgentCaller("ag_1", "se_1"), door.installation.secret, now)
    refused = {
        "nothing": "",
        "no header": "v1.e30.00",
        "another secret's": door.peer(LOOPBACK, secret=b"another").decode(),
        "stale": door.peer(LOOPBACK, age_s=61).decode(),
        "of the future": door.peer(LOOPBACK, age_s=-6).decode(),
        "cut short": good[:-1],
        "without a time": f"v1.eyJwZWVyIjoiMTI3LjAuMC4xIn0.{good.rpartition('.')[2]}",
        "the other process's": another.decode(),
        "unknown": door.peer("unknown").decode(),
    }

    assert door.send(headers={PEER: good}).status_code == 200
    for name, value in refused.items():
        assert door.send(headers={PEER: value}).status_code in (401, 429), name
    twice = [(PEER, good), (PEER, good)]
    assert door.send(headers=twice).status_code in (401, 429)
    # The header of the agents process opens the router, and nothing here.
    agent = {AGENT: another.decode()}
    assert door.send(headers=agent, address=OUTSIDE).status_code == 401
