import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2

from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import (
    BUCKETS,
    Arm,
    Canary,
    Handover,
    Route,
    choose_arm,
    hash_bucket,
)
from router.frame.body import ClientRequest, read_request
from router.recording.sums import MAX_KEYS_OF_ROUTE, RouteKeys
from router.request.client_directives import (
    digest_opening,
    read_directives,
    sticky_key,
)
from tests.support.control.manual_clock import ManualClock
from tests.support.router.asgi_router import CHAT, Door
from tests.support.router.live_router import snapshot

ROUTE = Route("support", 1, "t_old", Canary("t_new", 100, "salt", "r-1"))
KEYS = 100_000
SALTS = 12
GOLDEN = [5902, 7796, 3689, 3669, 7819]
IntArray = npt.NDArray[np.int64]


def request(**fields: object) -> ClientRequest:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "hi"},
    ]
    return read_request(
        json.dumps(
            {
                "model": "support",
                "messages": messages,
                **fields,
            }
        ).encode(),
        Endpoint.CHAT,
    )


@cache
def at(weight_bps: int) -> Route:
    assert ROUTE.canary
    return replace(ROUTE, canary=replace(ROUTE.canary, weight_bps=weight_bps))


def arm(key: str, weight_bps: int) -> Arm:
    return choose_arm(at(weight_bps), key)


@pytest.fixture(scope="module")
def buckets() -> IntArray:
    """A row for each salt, a column for each key."""
    keys = [f"user:user-{i}" for i in range(KEYS)]
    rows = [[hash_bucket(key, salt=f"salt_{n}") for key in keys] for n in range(SALTS)]
    return np.array(rows)


@pytest.mark.req("F3")
@pytest.mark.parametrize("weight_bps", [1, 100, 500, 2500])
def test_whatever_the_salt_1_percent_of_100_000_keys_is_1_percent(
    buckets: IntArray, weight_bps: int
) -> None:
    found = (buckets < weight_bps).sum(axis=1)

    share = weight_bps / 10_000
    assert np.all(np.abs(found - KEYS * share) <= 4 * math.sqrt(KEYS * share * (1 - share)))
    # Not too even either: the salts draw independently, they do not deal out.
    assert len(set(found.tolist())) > 1


@pytest.mark.req("F3")
def test_every_bucket_gets_its_keys_whatever_the_salt(buckets: IntArray) -> None:
    cells = 100
    for row in buckets:
        counts = np.bincount(row // (BUCKETS // cells), minlength=cells)
        statistic = float(((counts - KEYS / cells) ** 2 / (KEYS / cells)).sum())
        assert 1e-5 < chi2.sf(statistic, cells - 1) < 1 - 1e-5


@pytest.mark.req("F3")
@pytest.mark.parametrize("weight_bps", [100, 2500, 5000])
def test_a_rollouts_canary_says_nothing_about_the_next_ones(
    buckets: IntArray, weight_bps: int
) -> None:
    share = weight_bps / 10_000
    both = share * share
    for one, other in itertools.combinations(buckets < weight_bps, 2):
        found = int((one & other).sum())
        assert abs(found - KEYS * both) <= 4.5 * math.sqrt(KEYS * both * (1 - both))


def test_every_worker_and_every_version_puts_a_key_in_the_same_bucket() -> None:
    """A change here would move users to the other arm in the middle of their rollout."""
    found = [hash_bucket(f"user:{i}", salt="salt_1") for i in range(5)]

    assert found == GOLDEN
    key = "user:0"
    bucket = hash_bucket("user:0", salt="salt")
    assert [arm(key, bucket + more) for more in (0, 1)] == [
        Arm.INCUMBENT,
        Arm.CANARY,
    ]
    for less, kept in ((0, Arm.HOLDBACK), (1, Arm.INCUMBENT)):
        held = Canary("t_new", BUCKETS - bucket - less, "salt", "r-1")
        assert choose_arm(replace(ROUTE, canary=None, holdback=held), key) is kept


@pytest.mark.req("F3", "F4")
def test_raising_the_weight_moves_nobody_back() -> None:
    weights = (1, 100, 500, 2500, 10_000)
    for i in range(KEYS // 5):
        arms = [choose_arm(route, f"user:{i}") for route in map(at, weights)]
        moves = [(a, b) for a, b in itertools.pairwise(arms) if a is not b]
        assert moves in ([], [(Arm.INCUMBENT, Arm.CANARY)])


def test_the_first_key_that_is_there_counts() -> None:
    full = request(user="u", safety_identifier="s", prompt_cache_key="c")

    assert sticky_key(full, b"h", "k") == "header:h"
    assert sticky_key(full, None, "k") == "safety_identifier:s"
    assert sticky_key(request(user="u"), None, "k") == "user:u"
    shared = {"prompt_cache_key": "of one feature"}
    assert sticky_key(request(**shared), None, "k") == sticky_key(request(), None, "k")
    assert sticky_key(request(user=""), None, "k").startswith("opening:")


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "x",
        [{"role": "system", "content": "s"}],
        [1],
    ],
)
def test_a_request_without_anything_else_is_its_own_caller(messages: object) -> None:
    assert sticky_key(request(messages=messages), None, "k-1") == ""


class Shape(NamedTuple):
    """How a client names itself, in headers and fields, where TALK is its conversation.
    compacts: it shortens the first message in time; without a name, that makes it another one.
    """

    endpoint: Endpoint
    headers: Mapping[str, str] = {}
    fields: Mapping[str, object] = {}
    compacts: bool = True


CHATS = Endpoint.CHAT
RESPONSES = Endpoint.RESPONSES
MESSAGES = Endpoint.MESSAGES
IN_USER_ID = {"metadata": {"user_id": "user_7f3c_account__session_TALK"}}
SHAPES = {
    "OpenAI's SDK": Shape(CHATS, compacts=False),
    "OpenAI's SDK, responses": Shape(RESPONSES, compacts=False),
    "OpenAI's SDK, a person": Shape(CHATS, fields={"safety_identifier": "TALK"}),
    "Anthropic's SDK": Shape(MESSAGES, compacts=False),
    "LangChain": Shape(CHATS, compacts=False),
    "LangChain, a thread": Shape(CHATS, fields={"metadata": {"thread_id": "TALK"}}),
    "Claude Code": Shape(MESSAGES, {"x-claude-code-session-id": "TALK"}, IN_USER_ID),
    "Claude Code before 2.1.86": Shape(MESSAGES, {}, IN_USER_ID),
    "Codex": Shape(
        RESPONSES,
        {"session-id": "TALK", "thread-id": "TALK"},
        {"prompt_cache_key": "app"},
    ),
    "Open WebUI": Shape(
        CHATS,
        {
            "x-openwebui-user-name": "Ann",
            "x-openwebui-user-id": "TALK",
            "x-openwebui-user-email": "TALK@example.com",
            "x-openwebui-user-role": "user",
            "x-openwebui-chat-id": "TALK-1",
        },
    ),
    "LibreChat": Shape(CHATS, fields={"user": "TALK"}),
    "LibreChat, a header": Shape(CHATS, {"x-conversation-id": "TALK"}),
    "Vercel's SDK": Shape(CHATS, compacts=False),
    "Vercel's gateway": Shape(CHATS, {}, {"providerOptions": {"gateway": {"user": "TALK"}}}),
    "opencode": Shape(CHATS, {"x-session-affinity": "TALK"}),
    "Portkey": Shape(CHATS, {"x-portkey-metadata": '{"_user": "TALK", "feature": "chat"}'}),
}


def body_of(
    shape: Shape,
    talk: int,
    turn: int,
) -> bytes:
    """A turn with all before it, a clock, a count and an id in front, and more tools."""
    rules = (
        "x-anthropic-billing-header: cc_version=2.1; cch=" * (shape.endpoint is MESSAGES)
        + f"{turn:05x};\n" * (shape.endpoint is MESSAGES)
        + f"Be kind. It is Thursday, 26 November 2026, {turn:02}:{turn * 7 % 60:02}:09 UTC. "
        f"Request 7f3c{turn:04x}-a1b2-4c3d-8e9f-0123456789ab. {900 - turn} tokens are left."
    )
    opening = f"Question {talk} about my order"
    if shape.compacts and turn > 5:
        opening = f"Summary up to turn {turn}: the order is late"
    messages = [{"role": "user", "content": opening}]
    for past in range(turn):
        messages += [
            {"role": "assistant", "content": f"answer {past}"},
            {"role": "user", "content": f"and {past}?"},
        ]
    fields: dict[Endpoint, dict[str, object]] = {
        CHATS: {"messages": [{"role": "system", "content": rules}, *messages]},
        RESPONSES: {"instructions": rules, "input": messages},
        MESSAGES: {
            "system": [{"type": "text", "text": rules}],
            "messages": messages,
        },
    }
    tools = [{"type": "function", "function": {"name": f"f{n}"}} for n in range(turn)]
    body = json.dumps(
        {
            "model": "m",
            "tools": tools,
            **shape.fields,
            **fields[shape.endpoint],
        }
    )
    return body.replace("TALK", f"t-{talk}").encode()


@pytest.mark.req("F3")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_conversation_of_a_real_client_keeps_its_arm_through_10_turns(
    shape: Shape,
) -> None:
    route = at(1000)
    seen = set[Arm]()
    for talk in range(200):
        lines = [
            (name.encode(), value.replace("TALK", f"t-{talk}").encode())
            for name, value in shape.headers.items()
        ]
        arms = set()
        for turn in range(1, 11):
            asked = read_request(body_of(shape, talk, turn), shape.endpoint)
            sticky = read_directives({"headers": lines}).sticky
            arms.add(choose_arm(route, sticky_key(asked, sticky, "k")))
        assert len(arms) == 1, talk
        seen |= arms
    assert len(seen) == 2, "conversations are told apart"


async def test_a_key_that_carries_most_requests_is_drawn_by_conversation(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, first=snapshot("http://up", weight_bps=5000))
    arms: list[bytes] = []

    async def ask(number: int, key: str) -> None:
        said = [{"role": "user", "content": f"question {number}"}]
        body = {
            "model": "support",
            "user": key,
            "messages": said,
        }
        _, headers, _ = await door.call(CHAT, json.dumps(body).encode())
        arms.append(headers[b"x-swapproof-arm"])

    for number in range(150):
        await ask(number, "shop")
        await ask(number, f"person {number % 50}")
    shop = arms[::2]
    others = {arms[n::100][0] for n in range(1, 100, 2)}
    assert len(set(shop)) == 1
    assert len(others) == 2
    door.app._alerts.evaluate()

    arms.clear()
    for number in range(200):
        await ask(number, "shop")
    assert 60 <= arms.count(b"canary") <= 140
    door.app._alerts.shares.waiting["support"].extend(f"user:{n}" for n in range(8_000))
    door.app._alerts.evaluate()
    door.recorder.flush(final=True)
    raised, ended = [a for a in door.kept.alerts if a.kind is AlertKind.SHARED_KEY]
    assert "50 % of support's requests carry one key (user:shop)" in raised.text
    assert ended.news is AlertEvent.ENDED


@pytest.mark.req("F3")
async def test_requests_that_share_their_examples_are_drawn_by_what_comes_behind_them(
    tmp_path: Path,
) -> None:
    first = snapshot("http://up", weight_bps=5000)
    route = first.table.routes["support"]
    assert route.canary is not None
    now_s = ManualClock().now().timestamp()
    canary = replace(route.canary, handover=Handover(now_s + 1800, settled_bps=0))
    routes = {**first.table.routes, "support": replace(route, canary=canary)}
    first = replace(first, table=replace(first.table, routes=routes))
    door = Door(tmp_path, first=first)
    example = [
        {"role": "user", "content": "2 + 2"},
        {"role": "assistant", "content": "4"},
    ]
    arms: list[bytes] = []

    async def ask(*more: dict[str, str]) -> bytes:
        messages = [
            *example,
            {"role": "user", "content": "3 + 3"},
            example[1],
            *more,
        ]
        body = {"model": "support", "messages": messages}
        _, headers, _ = await door.call(CHAT, json.dumps(body).encode())
        return headers[b"x-swapproof-arm"]

    for number in range(600):
        arms.append(await ask({"role": "user", "content": f"{number} + 5"}))
        if number % 100 == 99:
            door.app._alerts.evaluate()

    assert set(arms[:100]) == {b"incumbent"}
    assert 70 <= arms[-200:].count(b"canary") <= 130
    last = {"role": "user", "content": f"{599} + 5"}
    assert await ask(last, example[1], {"role": "user", "content": "sure?"}) == arms[-1]
    door.recorder.flush(final=True)
    (alert,) = {a.text for a in door.kept.alerts if a.kind is AlertKind.SHARED_KEY}
    assert "of support's requests begin with one message" in alert


def test_the_shares_of_keys_are_bounded_and_forget() -> None:
    keys = RouteKeys()
    for start in range(0, 50_000, 1_000):
        keys.add([f"user:{n}" if n % 10 else "user:shop" for n in range(start, start + 1_000)])
        assert len(keys._counts) <= MAX_KEYS_OF_ROUTE
    assert [(key, round(share, 1)) for key, share in keys.shares.items()] == [
        ("user:shop", 0.1)
    ]

    keys.add(f"user:{n}" for n in range(60_000))
    assert not keys.shares


@pytest.mark.req("F3")
def test_an_opening_has_the_same_digest_in_every_process_and_version() -> None:
    parts = [
        {
            "type": "text",
            "text": "Wo ist mein Paket \u2013 \ud800?",
            "n": [1, 1.5, None, True],
        }
    ]
    assert digest_opening([("system", "Be kind."), ("user", parts)]) == (
        "4563e2bb6473bbda68553f829c912746"
    )


@pytest.mark.parametrize(
    ("content", "other"),
    [
        ([1], [True]),
        ([1], [1.0]),
        ([{"a": "b"}], [[["a", "b"]]]),
        ([], {}),
        ("", None),
        (["ab"], ["a", "b"]),
    ],
)
def test_openings_that_python_could_take_for_one_have_digests_of_their_own(
    content: object, other: object
) -> None:
    assert digest_opening([("user", content)]) != digest_opening([("user", other)])
