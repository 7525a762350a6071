"""Defines a simulated provider's faults: kinds and fields, parsing a switch from JSON, and
which requests are hit (an exact, seeded share of every 100). `FaultBook` keeps those set by
model.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, field
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from evals.sim import seeded_random
from evals.sim.parsing import STRICT_FIELDS, AtLeastZero, Share, parse
from harness.domain.errors import InputError

BLOCK = 100
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]


class FaultKind(StrEnum):
    """What happens instead of the answer, or in the middle of it."""

    STATUS = "status"  # an error with `status`, `headers`, `code`, `message`
    NOT_FOUND = "not_found"  # 404 model_not_found, as if the model had been withdrawn
    HANG = "hang"  # nothing at all: for `delay_s`, else until the client leaves
    STALL = "stall"  # silence after `after_chunks`: for `delay_s`, else until the client leaves
    RESET = "reset"  # TCP RST: before the first byte, or after `after_chunks`
    CLOSE = "close"  # TCP FIN at the same places
    TRUNCATE = "truncate"  # the HTTP answer ends well, without its finish reason
    ERROR_IN_STREAM = "error_in_stream"  # 200, then an error event after `after_chunks`
    GARBAGE = "garbage"  # 200 and JSON that is none, or is not ours: see `variant`
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
}
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "html": {"status": 200},
    "stall": {"after_chunks": 1},
    "truncate": {"after_chunks": 1},
    "garbage": {"variant": "text"},
    "huge": {"variant": "plain"},
}


@dataclass(frozen=True, slots=True, config=STRICT_FIELDS)
class Fault:
    """Describes one fault that can be switched on."""

    kind: FaultKind
    rate: Share = 1.0  # share of the model's requests that are hit
    status: Annotated[int, Field(ge=200, le=599)] = 500
    code: str | None = None
    message: str = ""
    headers: Mapping[HeaderName, HeaderValue] = field(default_factory=dict)
    delay_s: AtLeastZero | None = None
    # Pieces of content sent before a fault in mid-answer; an answer that is not streamed is cut
    # in its middle. 0 means before the first event; with role_first a ping and the role chunk
    # come before it.
    after_chunks: Annotated[int, Field(ge=0)] = 0
    role_first: bool = False
    until_count: Annotated[int, Field(ge=0)] | None = None  # it ends after so many hits
    size_bytes: Annotated[int, Field(ge=0, le=4 * 2**30)] = 2**20
    variant: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_fault(data: object) -> Fault:
    """Reads a fault from a request's body. Raises InputError that names the field."""
    if not isinstance(data, dict):
        raise InputError("a fault must be a JSON object with a 'kind'")
    kind = str(data.get("kind"))
    fault = parse(Fault, {**DEFAULTS.get(kind, {}), **data}, "fault")
    variants = VARIANTS.get(fault.kind, ("",))
    if fault.variant not in variants:
        raise InputError(f"variant: must be one of {', '.join(variants)}")
    return fault


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

    def draw(self, model: str, *, seed: int) -> Fault | None:
        """Draws the fault that hits this request, if any."""
        switch = self._switches.get(model) or self._switches.get("*")
        if switch is None:
            return None
        return switch.fault if switch.draw(seed) else None

    def as_json(self) -> dict[str, Any]:
        return {
            model: {**switch.fault.as_json(), "seen": switch.requests, "hit": switch.hit}
            for model, switch in self._switches.items()
        }
