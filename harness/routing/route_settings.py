"""The settings of a route, each declared once. Pure.

A declaration gives a setting's meaning, range, option, place in the dashboard's form, and name
in a route's description. The command line, the API, the dashboard and the configuration file
follow from it (`harness.frame.configuration.setting`). They write only composite settings by
hand.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from harness.frame.configuration.setting import (
    Declaration,
    FormEntry,
    Range,
    WrittenForm,
    format_flag,
    format_unit,
    number,
    setting,
)
from harness.frame.configuration.setting_values import share_form
from harness.frame.errors import InputError
from harness.frame.formatting import format_bps, format_bytes
from harness.gate.suite_plan import SuiteRole
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.kept_responses import (
    LEAST_STATE_H,
    MOST_STATE_H,
    OFF,
    format_state_time,
    parse_state_time,
)
from harness.routing.spare import ProvenSpare

MAX_KEEP_WARM_BPS: Final = 1_000
MAX_COPY_BYTES: Final = 8 * 1024 * 1024
_TIMEOUT_S: Final = Range(0, 86_400, above=True)


class RequestKind(StrEnum):
    """A kind of request. The router detects each kind but SUBAGENT, which clients declare."""

    SUBAGENT = "subagent"
    VISION = "vision"
    IMAGE = "image"
    VIDEO = "video"
    EMBEDDING = "embedding"


class RequestTrait(StrEnum):
    """A trait of a request beside its kind. The router reads it from the body or the path."""

    TOOLS = "tools"
    NO_TOOLS = "no_tools"
    CHAT = "chat"  # CHAT, RESPONSES, MESSAGES: the endpoint
    RESPONSES = "responses"
    MESSAGES = "messages"


# By predicate: the route that answers. A predicate is a RequestKind, a RequestTrait, or a
# header with its literal value, such as `x-team: billing`.
Overrides = Mapping[str, str]
_HEADER_PREDICATE: Final = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9_-]{0,63}): (?P<value>[!-~](?:[ -~]{0,98}[!-~])?)"
)
# Headers with a secret, and headers with a meaning of their own for the router.
_OTHER_HEADERS: Final = re.compile(r"(?:proxy-)?authorization|cookie|.*api-key|x-swapproof-.*")


def is_header_predicate(predicate: str) -> bool:
    """Tells whether the predicate is a header with its value; else it is a kind or a trait."""
    return ": " in predicate


def check_predicate(text: str) -> str:
    """Returns the predicate of an override. Raises InputError if the router knows none such."""
    if text in (*RequestKind, *RequestTrait):
        return text
    header = _HEADER_PREDICATE.fullmatch(text)
    if header is None:
        raise InputError(
            f"{text!r} selects no requests: write a kind ({', '.join(RequestKind)}), a trait "
            f"({', '.join(RequestTrait)}), or a header in lower case with its value, such as "
            "'x-team: billing'"
        )
    if _OTHER_HEADERS.fullmatch(header["name"]):
        raise InputError(
            f"the header {header['name']!r} selects no requests, because it contains a secret "
            "or an instruction for the router: let clients send another header"
        )
    return text


def place_predicate(predicate: str) -> tuple[int, str]:
    """Returns a key that sorts predicates: kinds, headers by their text, tools, endpoints.

    The first predicate that a request meets decides, so that predicates never overlap.
    """
    return _PLACES.get(predicate, len(RequestKind)), predicate


# Headers come between kinds and traits.
_PLACES: Final[Mapping[str, int]] = {
    **{kind.value: place for place, kind in enumerate(RequestKind)},
    **{trait.value: place for place, trait in enumerate(RequestTrait, len(RequestKind) + 1)},
}


def format_overrides(overrides: Overrides) -> str:
    """Writes the overrides as `predicate=route`, in the order of `place_predicate`."""
    ordered = sorted(overrides, key=place_predicate)
    return ", ".join(f"{predicate}={overrides[predicate]}" for predicate in ordered)


class Stakes(StrEnum):
    LOW = "low"
    HIGH = "high"


class FailoverOrder(StrEnum):
    """The order in which the router tries a route's fallbacks."""

    DECLARED = "declared"
    PROVEN_FIRST = "proven_first"  # proven fallbacks first, each group in the declared order


class OnContentPolicy(StrEnum):
    """The router's reaction when the provider's content filter refuses a request (400)."""

    FAIL = "fail"
    FALLBACK = "fallback"


class StreamCommit(StrEnum):
    """The moment after which the router no longer moves a stream to another target."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - no password
    WHOLE = "whole"  # the router holds the stream back until it is complete


class OnBadEvent(StrEnum):
    """The router's reaction to an event of a stream that it cannot parse."""

    FAIL = "fail"
    SKIP = "skip"


class OnEmptyAnswer(StrEnum):
    """The router's reaction to an empty answer without an error."""

    FAIL = "fail"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class RouteSuite:
    """A suite that a route uses, and its part in the verdict."""

    suite: str  # its name
    role: SuiteRole = SuiteRole.PRIMARY  # its effect on the verdict
    weight: float = number(
        1.0,
        "Its weight in the mean of several primary suites.",
        Range(0.000001, 1_000_000),
    )
    # Digest of the content that a person accepted for the route.
    digest: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        weight = "" if self.weight == 1.0 else f", weight {self.weight:g}"
        return f"{self.suite} ({self.role.value}{weight})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """A route's settings. A change of them never brings a new target into traffic."""

    description: str = setting(
        "",
        Declaration(
            meaning="Purpose of the route, for people.",
            caption="description",
            length=Range(0, 10_000),
            form=FormEntry(label="What it is for", column="wide", advanced=False),
        ),
    )
    # Ids of the fallbacks that are good enough when the stakes are high.
    capable: tuple[str, ...] = setting(
        (),
        Declaration(
            meaning="Fallbacks that are good enough when the stakes are high.",
            caption="capable",
            format=lambda capable: ", ".join(capable) or "none",
            composite=True,
        ),
    )
    # The proven fallbacks of a route with `failover: proven_first`. Only the control process
    # changes them, so no interface has an entry for them.
    proven: tuple[ProvenSpare, ...] = setting(
        (),
        Declaration(
            meaning="Proven fallbacks that routers try first.",
            caption="proven first",
            format=lambda proven: ", ".join(spare.target for spare in proven) or "none",
            composite=True,
        ),
    )
    failover: FailoverOrder = setting(
        FailoverOrder.DECLARED,
        Declaration(
            meaning="Order of the fallbacks: as declared, or proven fallbacks first.",
            caption="failover",
            form=FormEntry(
                label="When the model fails, callers get",
                row=3,
                words={
                    FailoverOrder.DECLARED: "the fallbacks in the declared order",
                    FailoverOrder.PROVEN_FIRST: "proven fallbacks first",
                },
            ),
        ),
    )
    stakes: Stakes = setting(
        Stakes.LOW,
        Declaration(
            meaning="With high, only fallbacks marked capable may answer.",
            caption="stakes",
            form=FormEntry(
                label="Stakes",
                row=2,
                advanced=False,
                help="high: only fallbacks marked good enough may answer.",
            ),
        ),
    )
    on_content_policy: OnContentPolicy = setting(
        OnContentPolicy.FAIL,
        Declaration(
            meaning="After a provider's content filter refuses: fail the request, or call the "
            "next target.",
            caption="on content policy",
            form=FormEntry(
                label="When a provider's content filter refuses",
                column="right",
                row=5,
                words={
                    OnContentPolicy.FAIL: "the request fails",
                    OnContentPolicy.FALLBACK: "the router asks the next fallback",
                },
            ),
        ),
    )
    # Share of the requests for each warmed target, 0 to 1 000 (1 % is 100).
    keep_warm_bps: int = setting(
        0,
        Declaration(
            meaning="Share of callers that keeps each fallback provider warm: 1%, or 100 "
            "(basis points).",
            caption="keep warm",
            format=format_bps,
            range=Range(0, MAX_KEEP_WARM_BPS),
            metavar="SHARE",
            written=share_form("keep_warm"),
            form=FormEntry(
                label="Share that keeps each other model warm, %",
                row=4,
                step=0.5,
                help="This share of the requests goes to each healthy fallback, which shows "
                "that the fallback works before the route needs it.",
            ),
        ),
    )
    side_effects: bool = setting(
        False,
        Declaration(
            meaning="The effects of the route's tools cannot be undone: no shadow, no "
            "keep-warm.",
            caption="tools",
            format=format_flag("side effects"),
            written=WrittenForm(
                key="tools",
                kind=Literal["side_effects"] | None,
                default=None,
                read=lambda tools: tools == "side_effects",
            ),
            form=FormEntry(
                label="Its tools have side effects: no shadow, and no requests to keep models "
                "warm",
                column="wide",
            ),
        ),
    )
    data_class: str = setting(
        "",
        Declaration(
            meaning="Data class of the traffic, one of `data_classes`, which limits the "
            "providers; empty for none.",
            caption="data class",
            metavar="NAME",
            form=FormEntry(
                label="Data class",
                row=1,
                help="data_classes in swapproof.yaml names the classes, and the providers that "
                "may see each.",
            ),
        ),
    )
    task: str = setting(
        "",
        Declaration(
            meaning="The route serves requests whose header x-swapproof-task has this value.",
            caption="task",
            metavar="NAME",
            form=FormEntry(
                label="Task",
                column="right",
                row=1,
                placeholder="None",
                live=True,
                help="Requests with the header x-swapproof-task and this name come here.",
            ),
        ),
    )
    # Share of the requests that is captured, 0 to 10 000.
    capture_bps: int = setting(
        0,
        Declaration(
            meaning="Share of requests to capture, redacted, for a suite: 1%, or 100 (basis "
            "points).",
            caption="capture",
            format=format_bps,
            range=Range(0, 10_000),
            metavar="SHARE",
            written=share_form("capture"),
            form=FormEntry(
                label="Requests to capture, redacted, %",
                column="right",
                row=2,
                advanced=False,
                step=0.5,
            ),
        ),
    )
    capture_per_day: int = setting(
        200,
        Declaration(
            meaning="Maximum captured requests in a day (UTC).",
            caption="captured per day",
            range=Range(1, 100_000),
            metavar="N",
            form=FormEntry(label="Captured requests kept per day, at most", row=5),
        ),
    )
    capture_keep_days: float = setting(
        30.0,
        Declaration(
            meaning="Days until Swapproof deletes a captured request.",
            caption="captured for",
            format=format_unit("days"),
            range=Range(0, 365.0, above=True),
            metavar="DAYS",
            form=FormEntry(
                label="Days that captured requests are kept", column="right", row=6, step=1.0
            ),
        ),
    )
    # Hours that Swapproof keeps the items of Responses answers for later references; 0 for off.
    responses_state_h: float = setting(
        0.0,
        Declaration(
            meaning="Time to keep the items of Responses answers, so that "
            "`previous_response_id` and `item_reference` work across swaps: 90m, 24h, 7d or "
            "off. Stores content.",
            caption="responses state",
            format=format_state_time,
            range=Range(LEAST_STATE_H, MOST_STATE_H, zero=True),
            metavar="TIME",
            written=WrittenForm(
                key="responses_state",
                kind=str,
                default=OFF,
                read=parse_state_time,
                name="time",
                allowed=f"off, or 1 minute to {MOST_STATE_H:g} hours",
            ),
            form=FormEntry(
                label="Hours that Responses answers are kept, 0 for none",
                row=6,
                step=1.0,
                help="previous_response_id and item_reference then work across swaps. "
                "Swapproof stores the requests and answers, unredacted, for this time.",
            ),
        ),
    )
    copy_max_bytes: int = setting(
        1024 * 1024,
        Declaration(
            meaning="Largest request and largest answer to capture, mirror or judge.",
            caption="copies up to",
            format=format_bytes,
            range=Range(1, MAX_COPY_BYTES),
            metavar="BYTES",
            form=FormEntry(
                label="Largest request or answer to copy, bytes",
                row=7,
                help="The router captures, mirrors and judges no larger request or answer.",
            ),
        ),
    )
    overrides: Overrides = setting(
        {},
        Declaration(
            meaning="Other routes for some requests, by kind, trait or header.",
            caption="overrides",
            format=format_overrides,
            composite=True,
        ),
    )
    total_timeout_s: float = setting(
        120.0,
        Declaration(
            meaning="Time limit of a whole request, including failovers.",
            caption="timeout",
            format=format_unit("s"),
            range=_TIMEOUT_S,
            flags="--timeout",
            metavar="SECONDS",
            form=FormEntry(
                label="A request's whole budget, seconds", column="right", row=1, advanced=False
            ),
        ),
    )
    first_token_timeout_s: float | None = setting(
        None,
        Declaration(
            meaning="Time limit for a stream's first output.",
            caption="first token",
            format=format_unit("s"),
            range=_TIMEOUT_S,
            unset="the model's, else the router's",
            metavar="SECONDS",
            form=FormEntry(label="A stream's first output within, seconds", row=2, step=1.0),
        ),
    )
    first_byte_timeout_s: float | None = setting(
        None,
        Declaration(
            meaning="Time limit for a plain answer's first byte.",
            caption="first byte",
            format=format_unit("s"),
            range=_TIMEOUT_S,
            unset="the model's, the router's, or measured",
            metavar="SECONDS",
            form=FormEntry(
                label="A plain answer begins within, seconds", column="right", row=2, step=1.0
            ),
        ),
    )
    commit: StreamCommit = setting(
        StreamCommit.FIRST_TOKEN,
        Declaration(
            meaning="With whole, the router holds a stream back until it is complete.",
            caption="commit",
            form=FormEntry(
                label="A stream reaches the client",
                row=3,
                words={
                    StreamCommit.FIRST_TOKEN: "as soon as its first word is there",
                    StreamCommit.WHOLE: "when it is complete",
                },
            ),
        ),
    )
    on_bad_event: OnBadEvent = setting(
        OnBadEvent.FAIL,
        Declaration(
            meaning="With skip, a stream continues without the events that the router cannot "
            "parse.",
            caption="on bad event",
            form=FormEntry(
                label="When an event of a stream cannot be read",
                column="right",
                row=3,
                words={
                    OnBadEvent.FAIL: "the request fails",
                    OnBadEvent.SKIP: "the stream continues without the event",
                },
            ),
        ),
    )
    on_empty_answer: OnEmptyAnswer = setting(
        OnEmptyAnswer.FAIL,
        Declaration(
            meaning="With accept, the client gets an empty answer; with fail, the router calls "
            "the next target.",
            caption="on empty answer",
            form=FormEntry(
                label="When an answer is empty",
                column="right",
                row=4,
                words={
                    OnEmptyAnswer.FAIL: "the router asks the next target",
                    OnEmptyAnswer.ACCEPT: "the client gets the empty answer",
                },
            ),
        ),
    )
    comparable_vectors: bool = setting(
        False,
        Declaration(
            meaning="One index may hold the vectors of all models of this route for "
            "embeddings.",
            caption="vectors",
            format=format_flag("comparable"),
            flags="--comparable-vectors/--other-vectors",
            form=FormEntry(
                label="For embeddings: one index may hold the vectors of all models of this "
                "route",
                column="wide",
            ),
        ),
    )
    policy: str = setting(
        "default",
        Declaration(
            meaning="Name of the policy for swaps of this route.",
            caption="policy",
            length=Range(1, 200),
            form=FormEntry(label="Policy", row=1, advanced=False),
        ),
    )
    suites: tuple[RouteSuite, ...] = setting(
        (),
        Declaration(
            meaning="Suites that decide the route's swaps.",
            caption="suites",
            format=lambda suites: ", ".join(suite.text for suite in suites),
            composite=True,
        ),
    )
    candidates: CandidateSchedule | None = setting(
        None,
        Declaration(
            meaning="Models that the route's suites measure on a schedule, in addition to "
            "people's proposals.",
            caption="candidates",
            format=lambda schedule: schedule.text,
            composite=True,
        ),
    )


DEFAULT_ROUTE_SETTINGS: Final = RouteSettings()
