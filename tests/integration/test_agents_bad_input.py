"""Bad requests of agents: each gets one clear error in the protocol's shape, changing nothing.
The rows of `agents_endpoints` say for every endpoint what is wrong, and who may ask.
"""

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.agents import switches
from harness.agents.records import SwitchRequests
from harness.agents.switch_request import ModelSwitchRequest
from harness.app.demo.environment import PORTS, DemoEnvironment
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from harness.operations.context import Context
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
    streamed,
)
from tests.support.router.router_process import eventually
from tests.support.site import documented_commands
from tests.support.site.agents_endpoints import (
    ENDPOINTS,
    Endpoint,
    Kind,
    body_schema,
    documented,
    wrong_types,
)
from tests.support.site.agents_site import (
    OPENAI_KEY,
    AgentsSite,
    agents_site,
    error_of,
    good,
)
from tests.support.site.documented_commands import run_in_bash, shell_blocks

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.slow]

LIMIT = 1_000_000
# A body that is no JSON object, or no strict one.
RAW = (
    b"",
    b"{",
    b"[]",
    b"5",
    b'"x"',
    b"null",
    b'{"name": "a", "name": "b"}',
    b'{"name": NaN}',
    b'{"name": "\\u0000"}',
    b'{"name": "\\ud800"}',
    b"[" * 10_000,
    b'{"a":' * 40 + b"1" + b"}" * 40,
    b"\xff\xfe",
)
QUERIES = (
    "limit=0",
    "limit=x",
    "limit=100001",
    "after=",
    "after=%F0nonsense",
    "colour=red",
)
UNKNOWN = (
    "unknown",
    "x" * 3000,
    "%20",
    "%F0%9F",
    "..%2F..",
    "'; DROP TABLE agent; --",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSite]:
    """Four processes for all tests of the file. It has what the documented commands name."""
    spare = {"incumbent": "sim/sim-base"}
    folder = tmp_path_factory.mktemp("agents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OPENAI_KEY, "sk-made-up")
        with agents_site(
            folder,
            sections={"routes": {"chat": spare, "chat-web": spare}},
            with_openai=True,
            with_control=True,
            max_message_bytes=LIMIT,
        ) as made:
            made.upstream.turns["sim-base"] = completion("hello")
            made.upstream.turns["gpt-6-luna"] = answer
            yield made


@pytest.fixture(scope="module")
def document(site: AgentsSite) -> Any:
    return good(site.client.get("/agents/openapi.json"))


@pytest.fixture(scope="module")
def bearers(site: AgentsSite) -> Mapping[Kind, dict[str, str]]:
    installation = site.world.installation
    roles = {kind: Role[kind.name] for kind in Kind if kind.name in Role.__members__}

    def bearer(kind: Kind) -> dict[str, str]:
        if kind is Kind.OPEN:
            return {}
        _, text = keys.create_key(
            installation.context,
            SYSTEM,
            f"the {kind}",
            secret=installation.secret,
            role=roles.get(kind),
        )
        return {"authorization": f"Bearer {text}"}

    return {kind: bearer(kind) for kind in Kind}


@dataclass(frozen=True)
class Place:
    """An agent with a session, for the endpoints' paths."""

    agent_id: str
    session_id: str

    def path(self, endpoint: Endpoint, **other: str) -> str:
        known = {
            "agent_id": self.agent_id,
            "session_id": self.session_id,
            "user_id": "u-0",
        }
        given = {**known, **other}
        return endpoint.path.format(**given)


def place(site: AgentsSite, headers: Mapping[str, str] | None = None) -> Place:
    sent = dict(headers or {})
    body = {"name": "support", "model": "chat"}
    agent = good(site.client.post("/agents", json=body, headers=sent))["id"]
    session = site.client.post(f"/agents/{agent}/sessions", json={}, headers=sent)
    return Place(agent, good(session)["id"])


def stored(site: AgentsSite) -> dict[str, list[tuple[object, ...]]]:
    """All rows of agents, and what goes with them."""
    file = site.world.place.folder / "swapproof.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        named = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = [
            name
            for (name,) in named
            if name.startswith("agent") or name in ("target", "audit_event")
        ]
        assert len(tables) > 6
        return {
            name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608 - our own table
            for name in tables
        }


def bad_bodies(
    document: Mapping[str, Any], endpoint: Endpoint
) -> Iterator[tuple[str, dict[str, object]]]:
    """The field that is wrong, and a body with it."""
    schema = body_schema(document, endpoint)
    if schema is None:
        return
    body = dict(endpoint.body or {})
    for name, inner in schema["properties"].items():
        for value in (
            *wrong_types(document, inner),
            *endpoint.wrong.get(name, ()),
        ):
            yield name, {**body, name: value}
    for name in schema.get("required", ()):
        yield (
            name,
            {key: value for key, value in body.items() if key != name},
        )
    yield "colour", {**body, "colour": "red"}


WITH_BODY = [endpoint for endpoint in ENDPOINTS if endpoint.body is not None]


def test_every_endpoint_has_its_row(document: Any) -> None:
    assert sorted(documented(document)) == sorted(endpoint.name for endpoint in ENDPOINTS)
    for endpoint in WITH_BODY:
        schema = body_schema(document, endpoint)
        assert schema is not None
        assert endpoint.wrong.keys() <= schema["properties"].keys(), endpoint.name


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda row: row.name)
def test_a_wrong_field_is_named_and_nothing_is_stored(
    site: AgentsSite,
    document: Any,
    endpoint: Endpoint,
) -> None:
    path = place(site).path(endpoint)
    # A stream that has not begun is refused as any other answer.
    headers = {"accept": "text/event-stream"}
    before = stored(site)
    wrong = []
    for name, body in bad_bodies(document, endpoint):
        answer = site.client.request(
            endpoint.method,
            path,
            json=body,
            headers=headers,
        )
        refused = answer.json().get("error", {}) if answer.content else {}
        is_clear = (
            400 <= answer.status_code < 410
            and refused.keys() == {"message", "type", "code", "param"}
            and str(refused["param"]).startswith(name)
            and not re.search("constrained|Body", refused["message"])  # types of pydantic
        )
        if not is_clear:
            wrong.append((body, answer.status_code, answer.text[:300]))

    assert not wrong
    assert stored(site) == before
    # What was refused leaves the place as good as it was.
    answer = site.client.request(endpoint.method, path, json=endpoint.body)
    assert answer.status_code in (200, 201), answer.text


def test_a_body_that_is_no_strict_json_object_is_refused(site: AgentsSite) -> None:
    endpoint = WITH_BODY[0]
    kind = {"content-type": "application/json"}
    path = place(site).path(endpoint)
    before = stored(site)
    for raw in RAW:
        answer = site.client.request(
            endpoint.method,
            path,
            content=raw,
            headers=kind,
        )
        assert error_of(answer, 400)["message"], raw
    for other in (
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
    ):
        sent = {"content-type": other}
        body = json.dumps(endpoint.body).encode()
        answer = site.client.request(
            endpoint.method,
            path,
            content=body,
            headers=sent,
        )
        assert error_of(answer, 415)["code"] == "unsupported_media_type"
    large = json.dumps({**(endpoint.body or {}), "more": "x" * 20_000_000}).encode()
    for url in (site.world.url, site.world.place.url("agents")):
        answer = httpx.request(
            endpoint.method,
            f"{url}{path}",
            content=large,
            headers=kind,
            timeout=120,
        )
        assert error_of(answer, 413)["code"] == "request_too_large"
    assert stored(site) == before


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: row.name)
def test_what_is_not_there_is_said(site: AgentsSite, endpoint: Endpoint) -> None:
    known = place(site)
    other = place(site)
    before = stored(site)
    named = [name for name in ("agent_id", "session_id") if f"{{{name}}}" in endpoint.path]
    for name in named:
        strangers = [
            *UNKNOWN,
            *([other.session_id] if name == "session_id" else []),
        ]
        for stranger in strangers:
            path = known.path(endpoint, **{name: stranger})
            answer = site.client.request(endpoint.method, path, json=endpoint.body)
            assert error_of(answer, 404)["code"] in (
                f"{name[:-3]}_not_found",
                "not_found",
            )
    if "{" in endpoint.path:
        nul = dict.fromkeys(("agent_id", "session_id", "user_id"), "a%00")
        path = known.path(endpoint, **nul)
        error_of(
            site.client.request(endpoint.method, path, json=endpoint.body),
            400,
        )
    wrong = site.client.put(known.path(endpoint), json={})
    assert error_of(wrong, 405)["code"] == "method_not_allowed"
    assert stored(site) == before


LISTS = [
    endpoint
    for endpoint in ENDPOINTS
    if endpoint.method == "GET" and not endpoint.path.endswith("}")
]


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda row: row.name)
def test_a_query_that_makes_no_sense_is_refused(site: AgentsSite, endpoint: Endpoint) -> None:
    path = place(site).path(endpoint)
    for query in QUERIES:
        refused = error_of(site.client.get(f"{path}?{query}"), 400)
        # A cursor is the list's own, and it says so.
        named = None if "nonsense" in query else query.partition("=")[0]
        assert refused["param"] == named, query


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: row.name)
def test_each_kind_of_client_may_do_what_its_key_allows(
    site: AgentsSite,
    bearers: Mapping[Kind, dict[str, str]],
    endpoint: Endpoint,
) -> None:
    for kind, status in endpoint.statuses.items():
        path = place(site, bearers[Kind.OWNER]).path(endpoint)
        before = stored(site)
        answer = site.client.request(
            endpoint.method,
            path,
            json=endpoint.body,
            headers=bearers[kind],
        )
        assert answer.status_code == status, (kind, answer.text)
        if status >= 400:
            error_of(answer, status)
            assert stored(site) == before


LITERAL = "sim:sim-better"
CONSENTERS = (Kind.APPROVER, Kind.ADMIN, Kind.OPEN)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("body", [{"model": LITERAL}, {"config": {"fallbackModel": LITERAL}}])
def test_a_literal_model_takes_the_consent_of_an_approver(
    site: AgentsSite,
    bearers: Mapping[Kind, dict[str, str]],
    kind: Kind,
    body: dict[str, object],
) -> None:
    headers = bearers[kind]
    # What a viewer may not make, somebody else made.
    makes = bearers[Kind.PROPOSER] if kind is Kind.VIEWER else headers
    path = f"/agents/{place(site, makes).agent_id}"
    before = stored(site)
    whole = {
        "name": "literal",
        "model": "chat",
        **body,
    }

    made = site.client.post("/agents", json=whole, headers=headers)
    changed = site.client.patch(path, json=body, headers=headers)

    if kind in CONSENTERS:
        good(made)
        good(changed)
        return
    for answer in (made, changed):
        assert error_of(answer, 403)["code"] in (
            "approval_needed",
            "not_allowed",
        )
    assert stored(site) == before


def test_a_refused_request_does_not_use_up_its_idempotency_key(site: AgentsSite) -> None:
    headers = {"idempotency-key": "once"}
    session = site.session()
    error_of(site.send(session, "", headers=headers), 400)

    good(site.send(session, "hello", headers=headers))

    for long in ("", "x" * 201):
        refused = site.send(session, "hello", headers={"idempotency-key": long})
        assert error_of(refused, 400)["param"] == "Idempotency-Key"
    assert len(site.messages(session)) == 2


DOCS = (documented_commands.DOCS / "reference/agents.md").read_text(encoding="utf-8")
ADDRESS = "http://localhost:8080"


def answer(asked: ReceivedRequest) -> ScriptedTurn:
    told = "It was 1001." if "1001" in str(asked.json["messages"]) else "I do not know."
    return streamed(told) if asked.json.get("stream") else completion(told)


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects that stand one after the other, with events between them left out."""
    decoder = json.JSONDecoder()
    at = 0
    while (start := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, start)
        yield value


def test_every_command_works(site: AgentsSite) -> None:
    commands = "".join(shell_blocks("reference/agents.md"))
    assert ADDRESS in commands
    here = commands.replace(ADDRESS, site.world.url.replace("127.0.0.1", "localhost"))

    said = run_in_bash(here)

    assert "event: turn.completed" in said
    shown = list(json_values(said))
    assert [value["content"] for value in shown if value.get("steps")] == ["It was 1001."] * 2
    made = {value["id"] for value in shown if value.get("name") == "support"}
    last = shown[-1]
    assert last["next"] is None, "it lists every agent"
    assert last["total"] == len(last["items"])
    assert not made & {agent["id"] for agent in last["items"]}, "it deleted its own"
    assert {value.get("model") for value in shown if value.get("name") == "support"} == {
        "openai:gpt-6-luna"
    }
    # The provider's check may have asked for the list of models since.
    sent = [asked for asked in site.upstream.asked if asked.body][-1].json["messages"]
    assert [message["role"] for message in sent] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_the_demo_has_what_the_commands_name(tmp_path: Path) -> None:
    demo = DemoEnvironment(tmp_path)
    demo.choose_ports(PORTS)
    demo.write_config()

    made = yaml.safe_load(demo.config.read_text(encoding="utf-8"))

    named = json.loads(re.findall(r"-d '(\{\n.*?\})'", DOCS, flags=re.DOTALL)[0])
    provider, _, model = named["model"].partition(":")
    assert model in made["providers"][provider]["prices"]
    assert named["config"]["fallbackModel"] in made["routes"]
    assert made["agents"]["open_on_loopback"]
    assert f":{PORTS['router']}" in ADDRESS


@pytest.mark.verify
@pytest.mark.req("C1", "C4")
def test_the_commands_of_a_switch_work_and_wait_for_a_person(
    site: AgentsSite,
) -> None:
    (commands,) = re.findall(
        r"```bash\n(.*?)```",
        DOCS,
        flags=re.DOTALL,
    )
    here = commands.replace(ADDRESS, site.world.url.replace("127.0.0.1", "localhost"))
    _, _, agent, _, session = site.session().split("/")
    ctx = site.world.installation.context
    with subprocess.Popen(  # noqa: S603 - the documented commands are what is tried
        ["bash", "-euo", "pipefail", "-c", here],  # noqa: S607
        env={
            "PATH": os.environ["PATH"],
            "AGENT": agent,
            "SESSION": session,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        eventually(lambda: pending_of(ctx, session) or running.poll() is not None)
        (request,) = pending_of(ctx, session)
        switches.approve_switch(ctx, SYSTEM, request.id, "go on")
        shown, _ = running.communicate(timeout=120)

    assert running.returncode == 0, shown
    listed, switched = json_values(shown)
    assert "openai/gpt-6-luna" in [model["model"] for model in listed["models"]]
    assert (switched["status"], switched["request"]) == (
        "approved",
        request.id,
    )


def pending_of(ctx: Context, session: str) -> Sequence[ModelSwitchRequest]:
    with ctx.store.read() as tx:
        return SwitchRequests(tx).pending(session=session)


def test_every_endpoint_is_in_the_table() -> None:
    told = re.findall(r"`(GET|POST|PATCH|DELETE) ([^`?]+)`", DOCS)
    named = {(method, path.replace("{sid}", "{session_id}")) for method, path in told}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{agent_id}", "{id}").replace("{user_id}", "{userId}")
        short = re.sub(r"^.*(?=/\{session_id\})", "…", path)
        assert {(endpoint.method, path), (endpoint.method, short)} & named, endpoint.name
