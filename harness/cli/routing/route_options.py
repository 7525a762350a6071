"""`swapgate route settings` changes a route's settings. Its click options (policy, stakes,
timeouts, capture, overrides …) are shared with `route create`.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import click

from harness.cli.evals.suite_options import parse_suites, suite_options
from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.routing import routes
from harness.domain.errors import InputError
from harness.domain.routing.keep_warm import parse_keep_warm_share, parse_share_bps
from harness.domain.routing.overrides import NO_OVERRIDES, Overrides, RequestKind
from harness.domain.routing.table import (
    ROUTE_TIMEOUTS,
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    RouteSettings,
    Stakes,
    StreamCommit,
)

F = TypeVar("F", bound=Callable[..., Any])

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


def _choice(flag: str, words: type[StrEnum], text: str) -> Callable[[F], F]:
    """Makes the option that takes one of these words."""
    return click.option(
        flag,
        type=click.Choice([word.value for word in words]),
        callback=lambda _ctx, _param, value: value and words(value),
        help=text,
    )


_OPTIONS = (
    click.option("--policy", help=f"Name of a policy. A new route's: {_NEW.policy}."),
    _choice(
        "--stakes", Stakes, "high: only fallbacks marked capable may answer. New routes: low."
    ),
    _choice(
        "--on-content-policy",
        OnContentPolicy,
        "What to do after a provider's content filter refuses. New routes: fail.",
    ),
    click.option(
        "--keep-warm",
        "keep_warm_bps",
        type=ShareType(),
        metavar="SHARE",
        help="Share of requests that keeps each later provider warm: 1%. New routes: 0%.",
    ),
    click.option(
        "--side-effects/--no-side-effects",
        default=None,
        help="Its tools have side effects: no request is sent to a model for practice.",
    ),
    click.option(
        "--data-class",
        metavar="NAME",
        help="Data class of its traffic, which limits its providers; '' for none.",
    ),
    click.option(
        "--task", metavar="NAME", help="Serve requests with the header x-swapgate-task: NAME."
    ),
    click.option(
        "--capture",
        "capture_bps",
        type=ShareType(trickle=False),
        metavar="SHARE",
        help="Share of requests to capture, redacted, for a suite: 1%. New routes: 0%.",
    ),
    click.option(
        "--capture-per-day",
        type=int,
        metavar="N",
        help=f"Kept at most, by UTC day. A new route's: {_NEW.capture_per_day}.",
    ),
    click.option(
        "--capture-keep-days",
        type=float,
        metavar="DAYS",
        help=f"Deleted after that. A new route's: {_NEW.capture_keep_days:g}.",
    ),
    click.option(
        "--timeout",
        "total_timeout_s",
        type=float,
        metavar="SECONDS",
        help=f"A request's whole budget. A new route's: {_NEW.total_timeout_s:g}.",
    ),
    click.option(
        "--first-token-timeout",
        "first_token_timeout_s",
        type=float,
        metavar="SECONDS",
        help="Limit for a stream's first output. 0 (default): the model's, or the router's.",
    ),
    click.option(
        "--first-byte-timeout",
        "first_byte_timeout_s",
        type=float,
        metavar="SECONDS",
        help="Limit for a plain answer to begin. 0 (default): the model's, the router's, or "
        "measured.",
    ),
    _choice(
        "--commit",
        StreamCommit,
        "whole: hold a stream back until it is complete. New routes: first_token.",
    ),
    _choice(
        "--on-bad-event",
        OnBadEvent,
        "skip: leave out stream events that cannot be parsed. New routes: fail.",
    ),
    _choice(
        "--on-empty-answer",
        OnEmptyAnswer,
        "accept: an answer that says nothing is no failure. New routes: fail.",
    ),
    click.option(
        "--override",
        "overrides",
        multiple=True,
        type=OverrideType(),
        metavar="KIND=ROUTE",
        help="Which route answers requests of the kind "
        f"({', '.join(RequestKind)}); KIND= for none. May be repeated.",
    ),
    click.option("--description", help="What the route is for."),
)


def settings_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_overrides(options: dict[str, Any], before: Overrides = NO_OVERRIDES) -> Overrides:
    """Takes the overrides out of `options`; a given one replaces that of its kind alone."""
    after = {**before, **dict(options.pop("overrides"))}
    return {kind: route for kind, route in after.items() if route}


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, by the names of the settings."""
    found = {name: value for name, value in options.items() if value is not None}
    return found | {name: found[name] or None for name in ROUTE_TIMEOUTS if name in found}


@click.command()
@click.argument("name")
@settings_options
@suite_options(required=False)
@click.option("--reason", default="", help="Why; another policy needs a reason.")
@pass_session
def settings(session: Session, *, name: str, reason: str, **options: Any) -> None:
    """Change a route's settings; options that are not given stay unchanged."""

    def changed(before: RouteSettings) -> RouteSettings:
        wanted = dict(options)
        suites = parse_suites(wanted, before.suites)
        overrides = parse_overrides(wanted, before.overrides)
        return replace(before, **given_settings(wanted), suites=suites, overrides=overrides)

    made = session.decide(routes.change_settings, name, changed, reason=reason)
    output.answer(session, made, f"route {name} is at version {made.version}")
