"""Answers `GET /v1/models` in the shape that a switch sets: as gateways and local servers list
their models, or as a broken or hostile one might (too long, without an end, of wrong types).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from evals.sim.faults import MOST_BYTES
from evals.sim.protocols.http_exchange import HttpExchange
from harness.domain.errors import InputError
from harness.domain.suggestions import did_you_mean

JSON: Final = "application/json"
TRICKLE_S: Final = 0.05
PIECE_ENTRIES: Final = 1_000
DEPTH: Final = 100_000
MOST_ENTRIES: Final = 10_000_000


class ListShape(StrEnum):
    """Up to TOGETHER: as these list models, with what they say of each. Then what can go
    wrong.
    """

    OPENAI = "openai"
    OPENROUTER = "openrouter"
    VLLM = "vllm"
    LM_STUDIO = "lm_studio"
    OLLAMA = "ollama"
    GOOGLE = "google"
    TOGETHER = "together"
    HUGE = "huge"  # `size_bytes` of a list
    MANY = "many"  # `count` models
    ENDLESS = "endless"  # models until the client leaves, as fast as it reads
    TRICKLE = "trickle"  # the same, a few bytes at a time
    WRONG_TYPES = "wrong_types"  # nothing is of the type that it should have
    CONTROL = "control"  # names with control characters, and others that mislead
    NESTED = "nested"  # brackets in brackets
    REDIRECT = "redirect"  # 302 to `location`


@dataclass(frozen=True, slots=True)
class ModelListSwitch:
    """What is set of the list of models."""

    shape: ListShape = ListShape.OPENAI
    names: tuple[str, ...] = ()  # instead of the simulator's own
    count: int = 1_000_000
    size_bytes: int = 100 * 2**20
    location: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_list_switch(data: object) -> ModelListSwitch:
    """Raises InputError that names the field."""
    known = [field.name for field in fields(ModelListSwitch)]
    if not isinstance(data, dict):
        raise InputError("a list of models must be a JSON object with a 'shape'")
    for key in data:
        if key not in known:
            hint = did_you_mean(str(key), known, otherwise="; known: " + ", ".join(known))
            raise InputError(f"unknown field {key!r}{hint}")
    if data.get("shape") not in list(ListShape):
        raise InputError(f"shape: must be one of {', '.join(ListShape)}")
    names = data.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("names: must be a list of texts")
    location = data.get("location", "")
    if not (isinstance(location, str) and location.isascii() and location.isprintable()):
        raise InputError("location: must be an address")
    return ModelListSwitch(
        ListShape(data["shape"]),
        tuple(names),
        _whole(data, "count", MOST_ENTRIES),
        _whole(data, "size_bytes", MOST_BYTES),
        location,
    )


def _whole(data: Mapping[str, object], key: str, most: int) -> int:
    value = data.get(key, getattr(ModelListSwitch(), key))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InputError(f"{key}: must be a whole number from 0 to {most}")
    return value


async def answer_list(
    exchange: HttpExchange, switch: ModelListSwitch, own: list[dict[str, Any]]
) -> None:
    """own: the simulator's models, as OpenAI lists them. Raises ClientGone."""
    if switch.shape is ListShape.REDIRECT:
        exchange.headers = {**exchange.headers, "location": switch.location}
        await exchange.whole(302, b"", JSON)
        return
    hostile = _HOSTILE.get(switch.shape)
    if hostile is not None:
        await hostile(exchange, switch)
        return
    entries = [{"id": name, "object": "model"} for name in switch.names] or own
    await exchange.json(200, _WRITERS[switch.shape](entries))


Entries = list[dict[str, Any]]


def _openai(entries: Entries, more: Mapping[str, object] | None = None) -> object:
    return {"object": "list", "data": [{**entry, **(more or {})} for entry in entries]}


def _openrouter(entries: Entries) -> object:
    prices = {"prompt": "0.0000025", "completion": "0.00001", "request": "0"}
    return {
        "data": [
            {
                "id": entry["id"],
                "name": f"Vendor: {entry['id']}",
                "context_length": 131072,
                # What it picks a model for has no price of its own.
                "pricing": {"prompt": "-1", "completion": "-1"}
                if entry["id"].endswith("/auto")
                else prices,
            }
            for entry in entries
        ]
    }


def _google(entries: Entries) -> object:
    return {
        "models": [
            {"name": f"models/{entry['id']}", "inputTokenLimit": 1048576} for entry in entries
        ]
    }


_WRITERS: Final[Mapping[ListShape, Callable[[Entries], object]]] = {
    ListShape.OPENAI: _openai,
    ListShape.OPENROUTER: _openrouter,
    ListShape.VLLM: lambda entries: _openai(entries, {"max_model_len": 32768}),
    ListShape.LM_STUDIO: lambda entries: _openai(entries, {"max_context_length": 8192}),
    ListShape.OLLAMA: lambda entries: _openai(entries, {"owned_by": "library"}),
    ListShape.GOOGLE: _google,
    # Without anything around it.
    ListShape.TOGETHER: lambda entries: [
        {"id": entry["id"], "type": "chat", "context_length": 65536} for entry in entries
    ],
}
_WRONG_TYPES: Final = {
    "data": [
        None,
        7,
        "a-name",
        ["a-name"],
        {},
        {"id": None},
        {"id": 3.5},
        {"id": {"id": "x"}},
        {
            "id": "sound",
            "context_length": "much",
            "max_model_len": True,
            "context_window": -5,
            "max_context_length": 1e99,
            "pricing": {"prompt": "NaN", "completion": [1]},
        },
        {"id": "cheap", "pricing": {"prompt": "-0.1", "completion": "Infinity"}},
        {"id": "free", "context_length": 10**40, "pricing": {"prompt": 0, "completion": "0"}},
        {"id": "priced", "pricing": "0.1"},
    ]
}
_ODD_NAMES: Final = (
    "sound",
    "bell\a",
    "\x1b[2Jscreen",
    "line\nbreak",
    "nul\0",
    "right\u202eleft",
    "zero\u200bwidth",
    "cyrillic-\u0441laude",
    "two words",
    " blank ",
    "",
    "\ud800",
    "x" * 100_000,
)


async def _send(exchange: HttpExchange, pieces: Iterator[bytes]) -> None:
    await exchange.start(200, JSON)
    for piece in pieces:
        await exchange.write(piece)
        await exchange.give_way()
    await exchange.write(b"", last=True)


def _numbered(count: int | None) -> Iterator[bytes]:
    """So many models; None for no end."""
    yield b'{"object": "list", "data": [{"id": "model-0"}'
    number = 1
    while count is None or number < count:
        until = number + PIECE_ENTRIES
        if count is not None:
            until = min(until, count)
        yield b"".join(b',{"id": "model-%d"}' % entry for entry in range(number, until))
        number = until
    yield b"]}"


def _sized(size: int) -> Iterator[bytes]:
    """Models until the list is so long."""
    sent = 0
    for piece in _numbered(None):
        yield piece
        sent += len(piece)
        if sent >= size:
            break
    yield b"]}"


async def _huge(exchange: HttpExchange, switch: ModelListSwitch) -> None:
    await _send(exchange, _sized(switch.size_bytes))


async def _many(exchange: HttpExchange, switch: ModelListSwitch) -> None:
    await _send(exchange, _numbered(switch.count))


async def _endless(exchange: HttpExchange, _: ModelListSwitch) -> None:
    await _send(exchange, _numbered(None))


async def _trickle(exchange: HttpExchange, _: ModelListSwitch) -> None:
    await exchange.start(200, JSON)
    for piece in _numbered(None):
        for start in range(0, len(piece), 16):
            await exchange.write(piece[start : start + 16])
            await asyncio.sleep(TRICKLE_S)
            await exchange.give_way()


async def _wrong_types(exchange: HttpExchange, _: ModelListSwitch) -> None:
    await exchange.json(200, _WRONG_TYPES)


async def _control(exchange: HttpExchange, _: ModelListSwitch) -> None:
    # Escaped: a lone surrogate is no UTF-8.
    text = json.dumps({"data": [{"id": name} for name in _ODD_NAMES]}, ensure_ascii=True)
    await exchange.whole(200, text.encode(), JSON)


async def _nested(exchange: HttpExchange, _: ModelListSwitch) -> None:
    await exchange.whole(200, b"[" * DEPTH + b"]" * DEPTH, JSON)


_HOSTILE: Final[
    Mapping[ListShape, Callable[[HttpExchange, ModelListSwitch], Awaitable[None]]]
] = {
    ListShape.HUGE: _huge,
    ListShape.MANY: _many,
    ListShape.ENDLESS: _endless,
    ListShape.TRICKLE: _trickle,
    ListShape.WRONG_TYPES: _wrong_types,
    ListShape.CONTROL: _control,
    ListShape.NESTED: _nested,
}
