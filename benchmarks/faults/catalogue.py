"""Faults 1 to 15 as rows: what the first provider does, and what a client may expect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

Fault = Mapping[str, Any]  # as the simulator's switch takes it

# The share for a fault that comes and goes: less than opens a breaker.
SOME: Final = 0.15


class Expect(StrEnum):
    """What is right for a client of the row."""

    WHOLE = "whole"  # another target is healthy and nothing was sent yet
    HONEST = "honest"  # some streams break after their first words: an error, never an end
    TOLD = "told"  # the client's own mistake: the provider's 400, 413 or 422
    LEFT = "left"  # it hung up: the provider is told within a second
    DOWN = "down"  # nobody is there: an error


class Place(StrEnum):
    """Where the first provider is looked for."""

    PRIMARY = "primary"
    REFUSED = "refused"
    NO_NAME = "no-name"
    NO_TLS = "no-tls"


class Manner(StrEnum):
    """What the clients do."""

    ASK = "ask"
    CROWD = "crowd"  # slow and idle connections beside those who ask
    LEAVE = "leave"  # hang up in mid-stream


@dataclass(frozen=True)
class Variant:
    """One route's fault. name: of the route. both: the fallback has the fault as well."""

    name: str
    fault: Fault | None = None
    place: Place = Place.PRIMARY
    both: bool = False


@dataclass(frozen=True)
class Row:
    """A fault with its variants, asked in turn. share: of the usual requests a second."""

    number: int
    title: str
    expect: Expect
    variants: tuple[Variant, ...]
    share: float = 1.0
    manner: Manner = Manner.ASK


def row(number: int, title: str, expect: Expect, faults: Mapping[str, Fault]) -> Row:
    variants = (Variant(f"f{number}-{name}", fault) for name, fault in faults.items())
    return Row(number, title, expect, tuple(variants))


def status(number: int, **more: Any) -> Fault:
    return {"kind": "status", "status": number, **more}


def limited(header: str, value: str) -> Fault:
    return status(429, headers={header: value})


def in_stream(kind: str, **more: Any) -> Fault:
    return {"kind": kind, **more}


def date_in(seconds: int) -> str:
    soon = datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: TID251 - a provider's clock
    return format_datetime(soon, usegmt=True)


def rows() -> tuple[Row, ...]:
    """All of them, in order; the first has no fault."""
    return (Row(0, "no fault", Expect.WHOLE, (Variant("f0-none"),)), *answers(), *streams())


def answers() -> tuple[Row, ...]:
    """Faults 1 to 6."""
    waits = {
        "seconds": limited("retry-after", "1"),
        "date": limited("retry-after", date_in(600)),
        "ms": limited("retry-after-ms", "200"),
        "x-ms": limited("x-ms-retry-after-ms", "200"),
    }
    refusals = {str(code): status(code) for code in (401, 402, 403)}
    refusals["quota"] = status(429, code="insufficient_quota")
    outages = {str(code): status(code) for code in (500, 502, 503, 504, 529)}
    at_times = {f"some-{code}": status(code, rate=SOME) for code in (500, 503)}
    unreachable = (
        Variant("f5-refused", place=Place.REFUSED),
        Variant("f5-no-name", place=Place.NO_NAME),
        Variant("f5-no-tls", place=Place.NO_TLS),
        Variant("f5-reset", {"kind": "reset"}),
    )
    bad = tuple(Variant(f"f3-{code}", status(code), both=True) for code in (400, 413, 422))
    return (
        row(1, "429 with Retry-After", Expect.WHOLE, waits),
        row(2, "500, 502, 503, 504, 529", Expect.WHOLE, outages),
        row(2, "500, 503 at times", Expect.WHOLE, at_times),
        Row(3, "400, 413, 422", Expect.TOLD, bad),
        row(4, "our key or account refused", Expect.WHOLE, refusals),
        Row(5, "no connection, reset", Expect.WHOLE, unreachable),
        row(6, "silence before the first byte", Expect.WHOLE, {"hang": {"kind": "hang"}}),
    )


def streams() -> tuple[Row, ...]:
    """Faults 7 to 15."""
    middle: dict[str, Any] = {"after_chunks": 3, "rate": SOME}
    early: dict[str, Any] = {"after_chunks": 0, "role_first": True}
    stall = {"stall": in_stream("stall", **middle)}
    broken = {kind: in_stream(kind, **middle) for kind in ("reset", "close", "truncate")}
    pinged = {
        kind: in_stream(kind, **early) for kind in ("error_in_stream", "reset", "truncate")
    }
    garbage: dict[str, Fault] = {
        variant: {"kind": "garbage", "variant": variant}
        for variant in ("text", "nan", "nested", "no_choices")
    }
    garbage["html"] = {"kind": "html"}
    large = tuple(Variant(f"f12-{what}") for what in ("huge", "gzip", "header"))
    nobody = Variant("f15-503", status(503), both=True)
    # Both: health checks find the first one stalling, and a whole answer of the other's would
    # leave nobody to hang up on.
    left = Variant("f14-stall", in_stream("stall", after_chunks=3), both=True)
    none = Variant("f13-none")
    return (
        row(7, "stall in mid-stream, at times", Expect.HONEST, stall),
        row(8, "reset or end in mid-stream, at times", Expect.HONEST, broken),
        row(
            9, "200, then an error event", Expect.WHOLE, {"error": in_stream("error_in_stream")}
        ),
        row(10, "role and ping, then failure", Expect.WHOLE, pinged),
        row(11, "garbage, NaN, nesting, HTML", Expect.WHOLE, garbage),
        Row(12, "huge body, gzip bomb, endless header", Expect.WHOLE, large, share=0.1),
        Row(13, "slow and idle clients", Expect.WHOLE, (none,), manner=Manner.CROWD),
        Row(14, "clients leave in mid-stream", Expect.LEFT, (left,), 0.25, Manner.LEAVE),
        Row(15, "nobody is there", Expect.DOWN, (nobody,)),
    )


PRIMARY, SPARE = "p", "s"
# The official client's own retries: off, and its default.
RETRIES: Final = (0, 2)


class Route(NamedTuple):
    """name: what clients call it. primary, spare: models at the first provider, the other."""

    name: str
    variant: Variant

    @property
    def primary(self) -> str:
        return f"{PRIMARY}.{self.name}"

    @property
    def spare(self) -> str:
        return f"{SPARE}.{self.name}"


def route(variant: Variant, retries: int) -> Route:
    return Route(f"{variant.name}-r{retries}", variant)


def routes(rows: tuple[Row, ...]) -> Iterator[Route]:
    for row in rows:
        for variant in row.variants:
            for retries in RETRIES:
                yield route(variant, retries)
