"""The kinds of request whose cost `benchmarks/router/calls_per_request.toml` holds."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from harness.frame.people.limits import KeyLimits
from harness.gate.online.guardrails import ExposureRule, Guardrails
from harness.routing.table import Snapshot
from tests.support.router.counted_router import (
    RouterMeter,
    metered_router,
)
from tests.support.router.live_router import snapshot

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
CHAT: Final = "/v1/chat/completions"
FEW_CHUNKS = 2
MANY_CHUNKS = 12
WORDS: Final = b"word " * 60
ASKED: Final = (
    b'{"model":"support","user":"CALLER","temperature":0.2,"max_tokens":256,"messages":['
    b'{"role":"system","content":"You answer in one paragraph, and politely."},'
    b'{"role":"user","content":"What does the blue light on my router tell me?"}]%s}'
)
COMPLETION: Final = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"' + WORDS + b'"}}],'
    b'"usage":{"prompt_tokens":40,"completion_tokens":60,"total_tokens":100}}'
)
CHUNK: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":['
    b'{"index":0,"delta":{%s},"finish_reason":%s}]}\n\n'
)
EMBEDDED: Final = b'{"model":"support","user":"CALLER","input":"blue light"}'
VECTOR: Final = (
    b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":['
    + b"0.25," * 255
    + b'0.25]}],"usage":{"prompt_tokens":2,"total_tokens":2}}'
)
MESSAGE: Final = (
    b'{"id":"m","type":"message","role":"assistant","model":"m","stop_reason":"end_turn",'
    b'"content":[{"type":"text","text":"' + WORDS + b'"}],'
    b'"usage":{"input_tokens":40,"output_tokens":60}}'
)


class CostedRequest(NamedTuple):
    """One kind of request; its caller is a new one each time. limited: its key has limits and a
    budget. provider: its provider's kind. body_apart: its head and its body are two packets.
    """

    path: str
    body: bytes
    packets: tuple[bytes, ...]
    weight_bps: int = 0
    rule: ExposureRule | None = None
    limited: bool = False
    provider: str = "custom"
    body_apart: bool = False

    def bodies(self) -> Iterator[bytes]:
        return (self.body.replace(b"CALLER", b"user-%06d" % number) for number in count())

    def snapshot(self, url: str) -> Snapshot:
        made = snapshot(url, weight_bps=self.weight_bps, rule=self.rule)
        providers = {
            name: replace(known, kind=self.provider) for name, known in made.providers.items()
        }
        made = replace(made, providers=providers)
        if not self.limited:
            return made
        limits = KeyLimits(requests_per_min=1e9, tokens_per_min=1e12, budget_day_usd=1e9)
        return replace(
            made,
            keys=tuple(replace(key, limits=limits) for key in made.keys),
        )


def whole(body: bytes) -> tuple[bytes, ...]:
    return (HEAD % b"application/json" + b"content-length: %d\r\n\r\n%b" % (len(body), body),)


def stream(chunks: int) -> tuple[bytes, ...]:
    """A packet for each chunk; the role comes with the first, the end with the last."""
    role = _framed(CHUNK % (b'"role":"assistant","content":""', b"null"))
    words = [_framed(CHUNK % (b'"content":"word "', b"null"))] * chunks
    end = _framed(CHUNK % (b"", b'"stop"'), b"data: [DONE]\n\n") + b"0\r\n\r\n"
    head = HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"
    first, *others, last = words
    return head + role + first, *others, last + end


def _framed(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


STREAMED: Final = ASKED % b',"stream":true'
ALL_GUARDRAILS: Final = ExposureRule(guardrails=Guardrails().tolerated(), local_alpha=0.01)
PLAIN: Final = CostedRequest(CHAT, ASKED % b"", whole(COMPLETION))
KINDS: Final[Mapping[str, CostedRequest]] = {
    "plain": PLAIN,
    "apart": PLAIN._replace(body_apart=True),
    "limited": PLAIN._replace(limited=True),
    "canary": PLAIN._replace(weight_bps=5_000),
    "guardrails": PLAIN._replace(weight_bps=5_000, rule=ALL_GUARDRAILS),
    "stream": CostedRequest(CHAT, STREAMED, stream(FEW_CHUNKS)),
    "long_stream": CostedRequest(CHAT, STREAMED, stream(MANY_CHUNKS)),
    "embeddings": CostedRequest("/v1/embeddings", EMBEDDED, whole(VECTOR)),
    "messages": CostedRequest(
        "/v1/messages", ASKED % b"", whole(MESSAGE), provider="anthropic"
    ),
}


def files(kind: CostedRequest, folder: Path) -> Counter[Path]:
    with meter_of(kind, folder) as meter:
        return meter.files(kind.path, kind.bodies())


def garbage(kind: CostedRequest, folder: Path) -> Counter[str]:
    """What requests of this kind leave to the garbage collector."""
    with meter_of(kind, folder) as meter:
        return meter.garbage(kind.path, kind.bodies())


def meter_of(kind: CostedRequest, folder: Path) -> AbstractContextManager[RouterMeter]:
    return metered_router(kind.snapshot, kind.packets, folder, body_apart=kind.body_apart)
