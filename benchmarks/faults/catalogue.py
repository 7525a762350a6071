"""Faults 1 to 15, each with the outcome that a client may expect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

Fault = Mapping[str, Any]  # the body of the simulator's fault switch

# Share of failing requests for intermittent faults: too few to open a breaker.
SOME: Final = 0.15


class Expect(StrEnum):
    """The outcome that a row's clients may expect."""

    WHOLE = "whole"  # a whole answer, from the fallback if the provider fails before any output
    HONEST = "honest"  # a whole answer, or an error if the stream breaks after its first words
    TOLD = "told"  # the provider's 400, 413 or 422, because the request is wrong
    LEFT = "left"  # the client hangs up, and the provider's request ends within a second
    DOWN = "down"  # an error, because both providers fail


class Place(StrEnum):
    """The address under which the router calls the first provider."""

    PRIMARY = "primary"
    REFUSED = "refused"
    NO_NAME = "no-name"
    NO_TLS = "no-tls"


class Manner(StrEnum):
    """The behaviour of the clients."""

    ASK = "ask"
    CROWD = "crowd"  # further clients hold slow and idle connections
    LEAVE = "leave"  # hang up in mid-stream


@dataclass(frozen=True)
class Variant:
    """One route's fault. name: the route's name. both: the fallback has the fault, too."""

    name: str
    fault: Fault | None = None
    place: Place = Place.PRIMARY
    both: bool = False


@dataclass(frozen=True)
class Row:
    """A fault with its variants, which take turns. share: of the usual request rate."""

    number: int
    title: str
    expect: Expect
    variants: tuple[Variant, ...]
    share: float = 1.0
    manner: Manner = Manner.ASK


def row(
    number: int,
    title: str,
    expect: Expect,
    faults: Mapping[str, Fault],
) -> Row:
    variants = (Variant(f"f{number}-{name}", fault) for name, fault in faults.items())
    return Row(number, title, expect, tuple(variants))


def status(number: int, **more: Any) -> Fault:
    return {
        "kind": "status",
        "status": number,
        **more,
    }


def limited(header: str, value: str) -> Fault:
    return status(429, headers={header: value})


def in_stream(kind: str, **more: Any) -> Fault:
    return {"kind": kind, **more}


def date_in(seconds: int) -> str:
    soon = datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: TID251 - a provider's clock
    return format_datetime(soon, usegmt=True)


def rows() -> tuple[Row, ...]:
    """Returns all rows in order; the first has no fault."""
    return (
        Row(0, "no fault", Expect.WHOLE, (Variant("f0-none"),)),
        *answers(),
        *streams(),
    )


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
        row(
            6,
            "silence before the first byte",
            Expect.WHOLE,
            {"hang": {"kind": "hang"}},
        ),
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
    # Both providers stall. Otherwise, once health checks found the first stalling, the fallback
    # would answer completely, and a client could not hang up in mid-stream.
    left = Variant("f14-stall", in_stream("stall", after_chunks=3), both=True)
    none = Variant("f13-none")
    return (
        row(7, "stall in mid-stream, at times", Expect.HONEST, stall),
        row(8, "reset or end in mid-stream, at times", Expect.HONEST, broken),
        row(
            9,
            "200, then an error event",
            Expect.WHOLE,
            {"error": in_stream("error_in_stream")},
        ),
        row(10, "role and ping, then failure", Expect.WHOLE, pinged),
        row(11, "garbage, NaN, nesting, HTML", Expect.WHOLE, garbage),
        Row(
            12,
            "huge body, gzip bomb, endless header",
            Expect.WHOLE,
            large,
            share=0.1,
        ),
        Row(
            13,
            "slow and idle clients",
            Expect.WHOLE,
            (none,),
            manner=Manner.CROWD,
        ),
        Row(
            14,
            "clients leave in mid-stream",
            Expect.LEFT,
            (left,),
            0.25,
            Manner.LEAVE,
        ),
        Row(15, "nobody is there", Expect.DOWN, (nobody,)),
    )


PRIMARY = "p"
SPARE = "s"
# The retries of the official client: off, and its default.
RETRIES: Final = (0, 2)


class Route(NamedTuple):
    """A route, with its models at the first provider (`primary`) and the fallback (`spare`)."""

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
