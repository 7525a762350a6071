"""`max_tokens` or `max_completion_tokens`: each provider gets the one that it knows."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.kinds import (
    PROVIDER_KINDS,
    AnswerLimit,
    rename_answer_limit,
)
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Provider, RequestPatch, Target
from router.frame.body import read_request
from router.protocols.endpoints import DIALECTS
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import provider, snapshot

OLD, NEW = (answer_limit.value for answer_limit in AnswerLimit)
ASK = {"model": "support", "messages": [{"role": "user", "content": "hi"}]}


async def sent_body(
    folder: Path,
    kind: str,
    client: Mapping[str, object],
    patch: RequestPatch | None = None,
) -> dict[str, object]:
    up = provider("http://up", kind=kind)
    door = Door(folder, first=snapshot("http://up", providers=[up], patch=patch))
    status, _, _ = await door.call(
        CHAT,
        json.dumps({**ASK, **client}).encode(),
        headers=(AUTH,),
    )
    assert status == 200
    found: dict[str, object] = json.loads(door.transport.seen[0].body)
    return found


@pytest.mark.req("B1", "B7")
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("openai", NEW),
        ("azure_openai", NEW),
        ("mistral", OLD),
        ("deepseek", OLD),
        ("ollama", OLD),
        ("lm_studio", OLD),
        ("tgi", OLD),
    ],
)
@pytest.mark.parametrize("client", [OLD, NEW])
async def test_a_limit_goes_under_the_name_that_the_provider_knows(
    tmp_path: Path,
    kind: str,
    named: str,
    client: str,
) -> None:
    sent = await sent_body(tmp_path, kind, {client: 7})

    assert {name: sent[name] for name in (OLD, NEW) if name in sent} == {named: 7}


@pytest.mark.req("A2", "B7")
@pytest.mark.parametrize("kind", ["custom", "vllm", "openrouter", "groq"])
@pytest.mark.parametrize(
    "client",
    [
        {OLD: 7},
        {NEW: 7},
        {OLD: 7, NEW: 9},
    ],
)
async def test_a_kind_that_knows_both_or_of_which_nobody_knows_gets_the_clients_own(
    tmp_path: Path,
    kind: str,
    client: dict[str, int],
) -> None:
    sent = await sent_body(tmp_path, kind, client)

    assert {name: sent[name] for name in (OLD, NEW) if name in sent} == client


@pytest.mark.req("A8", "B7")
async def test_a_patch_sets_the_one_limit_there_is(tmp_path: Path) -> None:
    sent = await sent_body(tmp_path, "openai", {OLD: 7}, RequestPatch({OLD: 5}))

    assert (sent.get(OLD), sent[NEW]) == (None, 5)


@pytest.mark.req("B7")
def test_a_targets_own_limit_is_the_weaker_one_under_either_name() -> None:
    up = Provider("up", "openai", "http://h", extra_body={OLD: 1})
    target = up.as_sent(Target("up", "m", {OLD: 3}))
    chat = DIALECTS[Endpoint.CHAT]

    for client, limit in (
        ({OLD: 7}, 7),
        ({NEW: 8}, 8),
        ({}, 3),
    ):
        request = read_request(
            json.dumps({**ASK, **client}).encode(), Endpoint.CHAT
        ).with_kinds_limit("openai")
        sent = json.loads(chat.patched(request, target))
        assert (sent.get(OLD), sent[NEW]) == (None, limit)


@pytest.mark.parametrize("kind", PROVIDER_KINDS)
@pytest.mark.parametrize("endpoint", [Endpoint.MESSAGES, Endpoint.RESPONSES])
def test_other_endpoints_are_left_as_they_are(kind: str, endpoint: Endpoint) -> None:
    request = read_request(json.dumps({**ASK, OLD: 7}).encode(), endpoint)

    assert request.with_kinds_limit(kind) is request


@pytest.mark.req("A2")
@given(
    name=st.sampled_from([OLD, "max\\u005ftokens"]),
    space=st.text(" \n\t", max_size=2),
    beside=st.sampled_from([OLD, f'"{OLD}"', f'{{"{OLD}": 1}}', "é"]),
    first=st.booleans(),
)
def test_only_the_name_changes_and_every_other_byte_stays(
    name: str,
    space: str,
    beside: str,
    *,
    first: bool,
) -> None:
    limit = f'"{name}"{space}:{space}7'
    others = [
        '"model":"r"',
        f'"user": {json.dumps(beside)}',
        f'"x": {{"{OLD}": [1.0]}}',
    ]
    parts = [limit, *others] if first else [*others, limit]
    before = f"{space}{{{space}{', '.join(parts)} }}"

    after = read_request(before.encode(), Endpoint.CHAT).with_kinds_limit("openai")

    assert after.text == before.replace(limit, limit.replace(name, NEW, 1))
    assert after.members.values[NEW].value == 7
    assert after.value(NEW) == 7
    assert OLD not in after.members


@given(st.dictionaries(st.sampled_from([OLD, NEW, "a"]), st.integers()))
def test_of_two_limits_the_one_that_has_the_right_name_stays(fields: dict[str, int]) -> None:
    for kind, named, other in (("openai", NEW, OLD), ("mistral", OLD, NEW)):
        sent = rename_answer_limit(fields, kind)

        assert other not in sent
        assert sent.get(named) == fields.get(named, fields.get(other))
        assert sent.get("a") == fields.get("a")
    assert rename_answer_limit(fields, "custom") == fields
