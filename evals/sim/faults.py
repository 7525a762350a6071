"""Defines a simulated provider's faults: kinds and fields, parsing a switch from JSON, and
which requests are hit (an exact, seeded share of every 100). `FaultBook` keeps those set by
model.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any

from evals.sim import seeded_random
from harness.domain.errors import InputError
from harness.domain.suggestions import did_you_mean

BLOCK = 100
MOST_BYTES = 4 * 2**30
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class FaultKind(StrEnum):
    """What happens instead of the answer, or in the middle of it."""

    STATUS = "status"  # an error with `status`, `headers`, `code`, `message`
    NOT_FOUND = "not_found"  # 404 model_not_found, as if the model had been withdrawn
    HANG = "hang"  # nothing at all: for `delay_s`, else until the client leaves
    SLOW = "slow"  # `delay_s` before the first byte, then the answer
    STALL = "stall"  # silence after `after_chunks`: for `delay_s`, else until the client leaves
    RESET = "reset"  # TCP RST: before the first byte, or after `after_chunks`
    CLOSE = "close"  # TCP FIN at the same places
    TRUNCATE = "truncate"  # the HTTP answer ends well, without its finish reason
    ERROR_IN_STREAM = "error_in_stream"  # 200, then an error event after `after_chunks`
    GARBAGE = "garbage"  # 200 and JSON that is none, or is not ours: see `variant`
    BROKEN_JSON = (
        "broken_json"  # what was asked for as JSON is none, or does not fit: `variant`
    )
    HTML = "html"  # `status` (default 200) and a page
    WRONG_CONTENT_TYPE = "wrong_content_type"  # the right answer as text/plain
    HUGE = "huge"  # 200 and `size_bytes` of JSON white space; `variant` gzip: packed
    ENDLESS_HEADER = "endless_header"  # `size_bytes` of response header


MID_ANSWER = frozenset(
    {
        FaultKind.STALL,
        FaultKind.RESET,
        FaultKind.CLOSE,
        FaultKind.TRUNCATE,
        FaultKind.ERROR_IN_STREAM,
    }
)
VARIANTS: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.GARBAGE: ("text", "nan", "nested", "no_choices"),
    FaultKind.HUGE: ("plain", "gzip"),
    FaultKind.BROKEN_JSON: ("cut", "keys"),
}
DEFAULT_STATUS = {FaultKind.HTML: 200, FaultKind.NOT_FOUND: 404}
DEFAULT_AFTER = {FaultKind.STALL: 1, FaultKind.TRUNCATE: 1}


@dataclass(frozen=True, slots=True)
class Fault:
    """Describes one fault that can be switched on."""

    kind: FaultKind
    rate: float = 1.0  # share of the model's requests that are hit
    status: int = 500
    code: str | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float | None = None
    # Pieces of content sent before a fault in mid-answer; an answer that is not streamed is cut
    # in its middle. 0 means before the first event; with role_first a ping and the role chunk
    # come before it.
    after_chunks: int = 0
    role_first: bool = False
    until_count: int | None = None  # the fault ends after so many hits
    size_bytes: int = 2**20
    variant: str = ""
    streams_only: bool = False  # requests that do not stream are spared, and not counted

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_fault(data: object) -> Fault:
    """Reads a fault from a request's body. Raises InputError that names the field."""
    if not isinstance(data, dict):
        raise InputError("a fault must be a JSON object with a 'kind'")
    names = [f.name for f in fields(Fault)]
    for key in data:
        if key not in names:
            known = "; known: " + ", ".join(names)
            hint = did_you_mean(str(key), names, otherwise=known)
            raise InputError(f"unknown field {key!r}{hint}")
    kind = data.get("kind")
    if kind not in list(FaultKind):
        raise InputError(f"kind: must be one of {', '.join(FaultKind)}, not {kind!r}")
    kind = FaultKind(kind)
    variants = VARIANTS.get(kind, ("",))
    variant = data.get("variant", variants[0])
    if variant not in variants:
        raise InputError(f"variant: must be one of {', '.join(variants)}, not {variant!r}")
    delay = data.get("delay_s", 1.0 if kind is FaultKind.SLOW else None)
    return Fault(
        kind=kind,
        rate=_number(data, "rate", 1.0, high=1.0),
        status=_whole(data, "status", DEFAULT_STATUS.get(kind, 500), low=200, high=599),
        code=None if data.get("code") is None else str(data["code"]),
        message=str(data.get("message", "")),
        headers=_headers(data.get("headers", {})),
        delay_s=None if delay is None else _number({"delay_s": delay}, "delay_s", 0.0),
        after_chunks=_whole(data, "after_chunks", DEFAULT_AFTER.get(kind, 0)),
        role_first=data.get("role_first") is True,
        until_count=None if data.get("until_count") is None else _whole(data, "until_count", 1),
        size_bytes=_whole(data, "size_bytes", 2**20, high=MOST_BYTES),
        variant=variant,
        streams_only=data.get("streams_only") is True,
    )


def _number(
    data: Mapping[str, object], key: str, default: float, high: float = math.inf
) -> float:
    value = data.get(key, default)
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        if 0 <= number <= high and math.isfinite(number):
            return number
    limit = "" if high == math.inf else f" and at most {high:g}"
    raise InputError(f"{key}: must be a number of at least 0{limit}, not {value!r}")


def _whole(
    data: Mapping[str, object], key: str, default: int, *, low: int = 0, high: int = 10**9
) -> int:
    value = data.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InputError(f"{key}: must be a whole number from {low} to {high}, not {value!r}")


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError("headers: must be an object of texts")
    headers = {str(name): str(text) for name, text in value.items()}
    for name, text in headers.items():
        if not (HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(text)):
            raise InputError(f"headers: {name!r} is not a header that HTTP allows")
    return headers


@lru_cache(maxsize=256)
def _order(seed: int, block: int) -> tuple[int, ...]:
    """Where each of a block's places comes in a seeded shuffle."""
    ranked = sorted(
        range(BLOCK), key=lambda at: seeded_random.random_bits("fault", seed, block, at)
    )
    places = [0] * BLOCK
    for rank, at in enumerate(ranked):
        places[at] = rank
    return tuple(places)


def hits(n: int, *, rate: float, seed: int) -> bool:
    """Whether the n-th request (from 0) is hit.

    In every block of 100 requests the share is exact to one request, over all blocks too; which
    ones are hit looks random, and is the same for the same seed.
    """
    block, at = divmod(n, BLOCK)
    tiny = 1e-9  # 0.29 * 100 is a little less than 29
    due = math.floor((block + 1) * rate * BLOCK + tiny) - math.floor(
        block * rate * BLOCK + tiny
    )
    return _order(seed, block)[at] < due


@dataclass(slots=True)
class FaultSwitch:
    """A fault that is set, with what it has seen and hit since."""

    fault: Fault
    requests: int = 0
    hit: int = 0

    def draw(self, seed: int) -> bool:
        """Count a request; whether it is hit."""
        spent = self.fault.until_count is not None and self.hit >= self.fault.until_count
        struck = not spent and hits(self.requests, rate=self.fault.rate, seed=seed)
        self.requests += 1
        self.hit += struck
        return struck


class FaultBook:
    """The switches that are set, one per model; `*` concerns every model without its own."""

    def __init__(self) -> None:
        self._switches: dict[str, FaultSwitch] = {}

    def set(self, model: str, fault: Fault) -> None:
        self._switches[model] = FaultSwitch(fault)

    def clear(self, model: str | None = None) -> None:
        if model is None:
            self._switches.clear()
        else:
            self._switches.pop(model, None)

    def draw(self, model: str, *, seed: int, stream: bool = False) -> Fault | None:
        """Draws the fault that hits this request, if any."""
        switch = self._switches.get(model) or self._switches.get("*")
        if switch is None or (switch.fault.streams_only and not stream):
            return None
        return switch.fault if switch.draw(seed) else None

    def as_json(self) -> dict[str, Any]:
        return {
            model: {**switch.fault.as_json(), "seen": switch.requests, "hit": switch.hit}
            for model, switch in self._switches.items()
        }
