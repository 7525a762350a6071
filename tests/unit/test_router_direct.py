import asyncio
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.people.limits import KeyLimits
from harness.gate.online.guardrails import Guardrails, UnitRule
from harness.providers.target import RequestPatch
from harness.routing.settings import AnsweredModel
from harness.routing.table import KeyGrant, OnBadEvent, RouteSettings, Snapshot, StreamCommit
from tests.support.providers.scripted_transport import ScriptedEvent, ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    EVENTS,
    ROLE,
    USAGE,
    completion,
    event,
)
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    QUICK,
    provider,
    snapshot,
)

# Tasks are what differs; the rest is by the machine's own clock.
OF_THE_MOMENT: Final = (
    b"swapgate_router_tasks",
    b"swapgate_snapshot_age_seconds",
    b"swapgate_time_to_first_token_seconds_bucket",
    b"swapgate_time_to_first_token_seconds_sum",
)
TOOK: Final = re.compile(rb', "ms": \d+')
JSON: Final = {"content-type": "application/json"}
WHOLE: Final = completion()
TURNS: Final[Mapping[str, ScriptedTurn]] = {
    "whole": WHOLE,
    "parts": replace(WHOLE, steps=tuple(bytes([byte]) for byte in WHOLE.steps[0])),  # type: ignore[union-attr]
    "headers": replace(
        WHOLE, headers={**JSON, "x-request-id": "up-1", "x-ratelimit-limit-requests": "9"}
    ),
    "length": ScriptedTurn(
        steps=(
            (
                b'{"id":"c","model":"m-x","choices":[{"index":0,"finish_reason":"length",'
                b'"message":{"role":"assistant","content":"w\\u00f6rd"}}],'
                b'"usage":{"prompt_tokens":7,"completion_tokens":5}}'
            ),
        )
    ),
    "unended": ScriptedTurn(
        steps=(b'{"model":"m","choices":[{"message":{"role":"assistant","content":"x"}}]}',)
    ),
    "no json": ScriptedTurn(steps=(b"<html>",)),
    "twice": ScriptedTurn(steps=(b'{"choices":[],"choices":[]}',)),
    "no choice": ScriptedTurn(steps=(b'{"choices":[]}',)),
    "html": ScriptedTurn(headers={"content-type": "text/html"}, steps=(b"<html>",)),
    "pause": replace(WHOLE, steps=(0.001, *WHOLE.steps)),
    "breaks off": replace(WHOLE, steps=(b'{"choices"', ScriptedEvent.RESET)),
    "reset": ScriptedTurn(steps=(ScriptedEvent.RESET,)),
    "refused": ScriptedTurn(refuse=True),
    "server error": ScriptedTurn(500, JSON, (b"{}",)),
    "overloaded": ScriptedTurn(503, JSON, (b"{}",)),
    "limited": ScriptedTurn(429, {**JSON, "retry-after": "20"}, (b"{}",)),
    "quota": ScriptedTurn(429, JSON, (b'{"error":{"code":"insufficient_quota"}}',)),
    "bad key": ScriptedTurn(401, JSON, (b"{}",)),
    "bad request": ScriptedTurn(400, JSON, (b'{"error":{"message":"no"}}',)),
    "created": replace(WHOLE, status=201),
}
WORDS: Final = tuple(event({"content": word}) for word in ("one", "w\u00f6rd", "3", "4", "5"))
STOP: Final = (event(finish="stop"), DONE)
STREAM: Final = ScriptedTurn(headers=EVENTS, steps=(ROLE, *WORDS, *STOP))
STREAMS: Final[Mapping[str, ScriptedTurn]] = {
    "stream": STREAM,
    "one read": replace(STREAM, steps=(b"".join((ROLE, *WORDS, *STOP)),)),
    "bytes": replace(STREAM, steps=tuple(bytes([b]) for b in b"".join((ROLE, *WORDS, *STOP)))),
    "usage": replace(STREAM, steps=(ROLE, *WORDS, event(finish="length"), USAGE, DONE)),
    "pauses": replace(STREAM, steps=(0.001, ROLE, 0.001, *WORDS, 0.001, *STOP)),
    "no end": replace(STREAM, steps=(ROLE, *WORDS)),
    "no last event": replace(STREAM, steps=(ROLE, *WORDS, event(finish="stop"))),
    "reset late": replace(STREAM, steps=(ROLE, *WORDS, ScriptedEvent.RESET)),
    "reset early": replace(STREAM, steps=(ROLE, ScriptedEvent.RESET)),
    "reset at the end": replace(STREAM, steps=(ROLE, *WORDS, *STOP, ScriptedEvent.RESET)),
    "hangs at the end": replace(STREAM, steps=(ROLE, *WORDS, *STOP, ScriptedEvent.HANG)),
    "bad event": replace(STREAM, steps=(ROLE, WORDS[0], b"data: {\n\n", *WORDS, *STOP)),
    "bad first": replace(STREAM, steps=(b"data: {\n\n", *WORDS, *STOP)),
    "error event": replace(
        STREAM, steps=(ROLE, *WORDS, b'data: {"error":{"message":"sorry"}}\n\n')
    ),
    "error at once": replace(STREAM, steps=(b'data: {"error":{"message":"sorry"}}\n\n',)),
    "nothing": replace(STREAM, steps=(ROLE, *STOP)),
    "empty": replace(STREAM, steps=()),
    "comments": replace(STREAM, steps=(b": hi\n\n", ROLE, b": hi\n\n", *WORDS, *STOP)),
    "encoded": replace(STREAM, headers={**EVENTS, "content-encoding": "br"}),
    "line end": replace(STREAM, headers={**EVENTS, "x-request-id": "a\nb"}),
    "tools": replace(
        STREAM,
        steps=(
            ROLE,
            event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}),
            event(finish="tool_calls"),
            DONE,
        ),
    ),
    **{name: TURNS[name] for name in ("whole", "refused", "server error", "limited", "reset")},
}
FIELDS: Final[Sequence[Mapping[str, object]]] = (
    {},
    {"user": "user-1"},
    {"user": "user-2", "max_tokens": 9},
    {"stream": False, "temperature": 0.5},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"response_format": {"type": "json_object"}},
    {"metadata": {"model": "other"}},
    {"model": "nobody"},
    {"model": 3},
    {"stream": "yes"},
)
ALL_TURNS: Final = {**TURNS, **STREAMS}
STREAM_FIELDS: Final[Sequence[Mapping[str, object]]] = (
    {"stream": True},
    {"stream": True, "user": "user-1"},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "n": 2},
)
BODIES: Final = (b"", b"[]", b'{"model":"support","model":"other"}', b"\xff", ASK[:-1])
HEADERS: Final = (
    (b"x-swapgate-sticky", b"somebody"),
    (b"x-swapgate-timeout", b"5"),
    (b"x-swapgate-timeout", b"soon"),
    (b"x-swapgate-kind", b"vision"),
    (b"x-swapgate-capture", b"off"),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"content-type", b"text/plain"),
)


@dataclass(frozen=True)
class Ask:
    """One request, and what the provider says to it, by model."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    turns: Mapping[str, str]


@dataclass(frozen=True)
class Config:
    weight_bps: int
    fallback: bool
    guardrails: bool
    limited: bool
    patched: bool
    captures: bool
    own_name: bool
    whole: bool = False
    skips: bool = False

    def snapshot(self) -> Snapshot:
        rule = UnitRule(
            block_size=2,
            guardrails=Guardrails().tolerated() if self.guardrails else {},
            local_alpha=0.01,
        )
        made = snapshot(
            "http://up",
            weight_bps=self.weight_bps,
            fallback=self.fallback,
            rule=rule,
            patch=RequestPatch(parameters={"top_p": 0.5}) if self.patched else None,
            settings=RouteSettings(
                capture_bps=10_000 if self.captures else 0,
                commit=StreamCommit.WHOLE if self.whole else StreamCommit.FIRST_TOKEN,
                on_bad_event=OnBadEvent.SKIP if self.skips else OnBadEvent.FAIL,
            ),
            providers=[provider("http://up", more_api_key_envs=("UP_KEY_2",))],
        )
        limits = KeyLimits(requests_per_min=4, tokens_per_min=5_000, budget_day_usd=0.01)
        keys = (replace(key, limits=limits if self.limited else None) for key in made.keys)
        return replace(made, keys=tuple(keys))


def chats(fields: Sequence[Mapping[str, object]]) -> st.SearchStrategy[bytes]:
    more = st.sampled_from(fields)
    return more.map(lambda more: json.dumps({**json.loads(ASK), **more}).encode())


def asks(bodies: st.SearchStrategy[bytes], *names: str) -> st.SearchStrategy[Ask]:
    headers = st.lists(st.sampled_from(HEADERS), max_size=1)
    turns = st.sampled_from(names)
    return st.builds(
        Ask,
        bodies,
        headers.map(lambda more: (AUTH, *more)),
        st.fixed_dictionaries({INCUMBENT: turns, CANDIDATE: turns, FALLBACK: turns}),
    )


# Most are of the common kind: else no breaker ever sees a success.
ASKS: Final = asks(
    st.one_of(chats(FIELDS), chats(FIELDS), st.sampled_from(BODIES)), "whole", *TURNS
)
STREAMED_ASKS: Final = asks(chats(STREAM_FIELDS), "stream", *STREAMS)


CONFIGS: Final = st.builds(Config, st.sampled_from((0, 5_000, 10_000)), *[st.booleans()] * 6)
STREAM_CONFIGS: Final = st.builds(
    Config, st.sampled_from((0, 5_000, 10_000)), *[st.booleans()] * 8
)


async def played(config: Config, sequence: Sequence[Ask], *, direct: bool) -> dict[str, Any]:
    """Everything that can be seen of these requests, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        now: list[Ask] = []
        named = AnsweredModel.PROVIDER if config.own_name else AnsweredModel.ROUTE
        door = Door(
            Path(folder),
            lambda request: ALL_TURNS[now[0].turns[json.loads(request.body)["model"]]],
            replace(QUICK, response_model=named, flush_interval_s=3600.0),
            first=config.snapshot(),
            direct=direct,
        )
        answers = []
        for ask in sequence:
            now[:] = [ask]
            status, headers, body = await door.call(CHAT, ask.body, headers=ask.headers)
            if status >= 400:  # it says how long the attempts took
                body = TOOK.sub(b"", body)
                del headers[b"content-length"]
            answers.append((status, headers, body))
            door.clock.advance(1.0)
        async with asyncio.timeout(60):
            # A stream's connection waits for its last bytes.
            while door.transport.open_replies:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        _, _, metrics = await door.call("/metrics", method="GET")
        seen = [
            (request.body, request.path, request.headers, request.key)
            for request in door.transport.seen
        ]
        lines = [line for line in metrics.splitlines() if not line.startswith(OF_THE_MOMENT)]
        return {
            "answers": answers,
            "provider": seen,
            "open replies": door.transport.open_replies,
            "metrics": lines,
            "counters": dict(door.recorder.counters),
            **recorded(door),
        }


def recorded(door: Door) -> dict[str, Any]:
    door.recorder.start()
    door.recorder.stop()
    failovers = [replace(row, latency_ms=0.0) for row in door.kept.failovers]
    return {
        "blocks": door.kept.blocks,
        "traffic": door.kept.traffic,
        "spends": door.kept.spends,
        "failovers": failovers,
        "sightings": door.kept.sightings,
        "alerts": door.kept.alerts,
    }


@pytest.mark.parametrize(
    ("configs", "requests"),
    [
        (CONFIGS, st.lists(ASKS, min_size=1, max_size=6)),
        (STREAM_CONFIGS, st.lists(STREAMED_ASKS, min_size=1, max_size=4)),
    ],
    ids=["whole", "streamed"],
)
@given(data=st.data())
def test_both_paths_answer_count_and_record_alike(
    data: st.DataObject,
    configs: st.SearchStrategy[Config],
    requests: st.SearchStrategy[list[Ask]],
) -> None:
    config, sequence = data.draw(configs), data.draw(requests)
    direct = asyncio.run(played(config, sequence, direct=True))
    general = asyncio.run(played(config, sequence, direct=False))

    for part, expected in general.items():
        assert direct[part] == expected, part


async def test_a_head_that_is_known_opens_no_more_than_the_revision_of_its_request(
    tmp_path: Path,
) -> None:
    door = Door(tmp_path, direct=True)
    whole = door.kept.snapshot()

    async def status(etag: str, keys: tuple[KeyGrant, ...]) -> int:
        door.kept.put(replace(whole, etag=etag, keys=keys))
        assert door.holder.refresh()
        return (await door.call(CHAT, ASK))[0]

    nothing = tuple(replace(key, routes=frozenset({"another"})) for key in whole.keys)
    assert (await door.call(CHAT, ASK))[0] == (await door.call(CHAT, ASK))[0] == 200
    assert [
        await status("taken", ()),
        await status("back", whole.keys),
        await status("of another route", nothing),
        await status("back again", whole.keys),
    ] == [401, 200, 403, 200]


async def test_what_a_known_head_asks_is_what_it_asked_the_first_time(tmp_path: Path) -> None:
    door = Door(tmp_path, direct=True)
    headers = (AUTH, (b"x-swapgate-timeout", b"soon"))
    refused = [(await door.call(CHAT, ASK, headers=headers))[0] for _ in range(3)]
    served = [(await door.call(CHAT, ASK))[0] for _ in range(3)]

    assert refused == [400] * 3
    assert served == [200] * 3
