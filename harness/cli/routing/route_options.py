"""`swapgate route settings` changes a route's settings. Its click options (policy, stakes,
timeouts, capture, overrides …) are shared with `route create`.
"""

from dataclasses import dataclass, replace
from functools import partial

import click

from harness.cli.evals.suite_options import SuiteOptions
from harness.cli.frame import output
from harness.cli.frame.command import command, opt, taken_from
from harness.cli.frame.session import Session
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.routing.keep_warm import parse_keep_warm_share, parse_share_bps
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.table import (
    ROUTE_TIMEOUTS,
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)

_NEW = RouteSettings()


class ShareType(click.ParamType[int]):
    """Reads a share such as `1%`, in basis points. trickle: at most what may be kept warm."""

    name = "share"

    def __init__(self, *, trickle: bool = True) -> None:
        self._read = (
            parse_keep_warm_share if trickle else partial(parse_share_bps, what="capture")
        )

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return self._read(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class OverrideType(click.ParamType[tuple[RequestKind, str]]):
    """Reads an override such as `vision=photo-chat`; `vision=` takes it away."""

    name = "override"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[RequestKind, str]:
        kind, equals, route = str(value).partition("=")
        if not equals or kind not in list(RequestKind):
            kinds = ", ".join(RequestKind)
            self.fail(f"{value!r} is not KIND=ROUTE with a kind of {kinds}", param, ctx)
        return RequestKind(kind), route


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """Holds the settings that were given: None for those that were not."""

    policy: str | None = opt(f"Name of a policy. A new route's: {_NEW.policy}.")
    stakes: Stakes | None = opt(
        "high: only fallbacks marked capable may answer. New routes: low."
    )
    on_content_policy: OnContentPolicy | None = opt(
        "What to do after a provider's content filter refuses. New routes: fail."
    )
    keep_warm_bps: int | None = opt(
        "Share of requests that keeps each later provider warm: 1%. New routes: 0%.",
        "--keep-warm",
        type=ShareType(),
        metavar="SHARE",
    )
    side_effects: bool | None = opt(
        "Its tools have side effects: no request is sent to a model for practice.",
        "--side-effects/--no-side-effects",
    )
    data_class: str | None = opt(
        "Data class of its traffic, which limits its providers; '' for none.", metavar="NAME"
    )
    task: str | None = opt(
        "Serve requests with the header x-swapgate-task: NAME.", metavar="NAME"
    )
    capture_bps: int | None = opt(
        "Share of requests to capture, redacted, for a suite: 1%. New routes: 0%.",
        "--capture",
        type=ShareType(trickle=False),
        metavar="SHARE",
    )
    capture_per_day: int | None = opt(
        f"Kept at most, by UTC day. A new route's: {_NEW.capture_per_day}.", metavar="N"
    )
    capture_keep_days: float | None = opt(
        f"Deleted after that. A new route's: {_NEW.capture_keep_days:g}.", metavar="DAYS"
    )
    total_timeout_s: float | None = opt(
        f"A request's whole budget. A new route's: {_NEW.total_timeout_s:g}.",
        "--timeout",
        metavar="SECONDS",
    )
    first_token_timeout_s: float | None = opt(
        "Limit for a stream's first output. 0 (default): the model's, or the router's.",
        "--first-token-timeout",
        metavar="SECONDS",
    )
    first_byte_timeout_s: float | None = opt(
        "Limit for a plain answer to begin. 0 (default): the model's, the router's, or "
        "measured.",
        "--first-byte-timeout",
        metavar="SECONDS",
    )
    commit: StreamCommit | None = opt(
        "whole: hold a stream back until it is complete. New routes: first_token."
    )
    on_bad_event: OnBadEvent | None = opt(
        "skip: leave out stream events that cannot be parsed. New routes: fail."
    )
    on_empty_answer: OnEmptyAnswer | None = opt(
        "accept: an answer that says nothing is no failure. New routes: fail."
    )
    overrides: tuple[tuple[RequestKind, str], ...] = opt(
        "Which route answers requests of the kind "
        f"({', '.join(RequestKind)}); KIND= for none. May be repeated.",
        "--override",
        type=OverrideType(),
        metavar="KIND=ROUTE",
    )
    description: str | None = opt("What the route is for.")

    def over(self, before: RouteSettings, suites: tuple[RouteSuite, ...]) -> RouteSettings:
        """The settings after this choice. An override replaces that of its kind alone."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        given |= {name: given[name] or None for name in ROUTE_TIMEOUTS if name in given}
        overrides = {**before.overrides, **dict(self.overrides)}
        given["overrides"] = {kind: route for kind, route in overrides.items() if route}
        return replace(before, **given, suites=suites)


@command()
def settings(
    session: Session,
    name: str,
    *,
    options: SettingsOptions = taken_from(SettingsOptions),
    suites: SuiteOptions = taken_from(SuiteOptions),
    reason: str = opt("Why; another policy needs a reason.", default=""),
) -> None:
    """Change a route's settings; options that are not given stay unchanged."""

    def changed(before: RouteSettings) -> RouteSettings:
        return options.over(before, suites.over(before.suites))

    made = session.decide(routes.change_settings, name, changed, reason=reason)
    output.answer(made, f"route {name} is at version {made.version}")
