"""`swapgate route settings`, and options that other commands share with it."""

import json
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import click

from harness.config.routing import target_seed
from harness.frame.errors import InputError
from harness.gate.suite_plan import SuiteRole
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import Reads, command, opt, taken_from
from harness.interfaces.cli.frame.session import Session
from harness.proposals.candidates import candidate_rounds
from harness.providers.target import RequestPatch, Target
from harness.routes import routes
from harness.routing.candidate_schedule import CandidateSchedule, OnBetter, Preference
from harness.routing.keep_warm import parse_keep_warm_share, parse_share_bps
from harness.routing.overrides import RequestKind
from harness.routing.table import (
    ROUTE_TIMEOUTS,
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    parameters: tuple[str, ...] = opt(
        "A default body field, which a client's own value wins over; may be repeated.",
        "--param",
        metavar="KEY=VALUE",
    )
    patched: tuple[str, ...] = opt(
        "A body field set whatever the client sent; may be repeated.",
        "--patch-param",
        metavar="KEY=VALUE",
    )
    prompt_addendum: str = opt("Appended to the system message.", metavar="TEXT", default="")
    response_format: str | None = opt("Replaces the client's response_format.", metavar="JSON")


def requested_target(name: str, options: TargetOptions) -> Target:
    """Reads a target from name and options. Raises InputError for a name, BadParameter."""
    plainly = target_seed(name)
    patch = RequestPatch(
        parameters=body_fields("--patch-param", options.patched),
        prompt_addendum=options.prompt_addendum,
        response_format=_object("--response-format", options.response_format),
    )
    own = body_fields("--param", options.parameters)
    return Target(plainly.provider, plainly.model, own, patch)


def body_fields(option: str, given: tuple[str, ...]) -> dict[str, object]:
    """KEY=VALUE as a body field: VALUE is read as JSON where it is JSON, else as text."""
    fields: dict[str, object] = {}
    for value in given:
        key, equals, text = value.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", param_hint=option)
        try:
            fields[key] = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            fields[key] = text
    return fields


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _object(option: str, text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'a JSON object is needed, like {"type": "json_object"}', param_hint=option
        )
    return value


ORDER: Final = (SuiteRole.PRIMARY, SuiteRole.REQUIRED, SuiteRole.GUARD)


def _read_weighted_suite(text: str) -> RouteSuite:
    suite, equals, weight = text.rpartition("=")
    if not equals:
        return RouteSuite(text)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf or not suite:
        raise InputError(f"{text!r} is not SUITE=WEIGHT with a weight above 0")
    return RouteSuite(suite, weight=number)


_WEIGHTED: Final = Reads("suite", _read_weighted_suite)
_PRIMARY: Final = "Primary suite: decides the claim. Several count as a weighted mean."


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    primaries: tuple[RouteSuite, ...] = opt(
        _PRIMARY, "--suite", type=_WEIGHTED, metavar="SUITE[=WEIGHT]"
    )
    required: tuple[str, ...] = opt(
        "Suite that must pass within the allowed loss; may be repeated.",
        "--required-suite",
        metavar="SUITE",
    )
    guards: tuple[str, ...] = opt(
        "Suite that rejects a candidate shown to be worse; may be repeated.",
        "--guard-suite",
        metavar="SUITE",
    )

    def over(self, before: tuple[RouteSuite, ...] = ()) -> tuple[RouteSuite, ...]:
        suites = before
        required = tuple(RouteSuite(name, SuiteRole.REQUIRED) for name in self.required)
        guards = tuple(RouteSuite(name, SuiteRole.GUARD) for name in self.guards)
        for role, chosen in zip(ORDER, (self.primaries, required, guards), strict=True):
            if chosen:
                names = {suite.suite for suite in chosen}
                others = (e for e in suites if e.role is not role and e.suite not in names)
                suites = (*others, *chosen)
        return tuple(sorted(suites, key=lambda suite: ORDER.index(suite.role)))


@dataclass(frozen=True, kw_only=True)
class NewRouteSuites(SuiteOptions):
    primaries: tuple[RouteSuite, ...] = opt(
        _PRIMARY, "--suite", type=_WEIGHTED, metavar="SUITE[=WEIGHT]", required=True
    )


_NEW = RouteSettings()


def _read_override(text: str) -> tuple[RequestKind, str]:
    kind, equals, route = text.partition("=")
    if not equals or kind not in list(RequestKind):
        kinds = ", ".join(RequestKind)
        raise InputError(f"{text!r} is not KIND=ROUTE with a kind of {kinds}")
    return RequestKind(kind), route


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    policy: str | None = opt(f"Name of a policy. A new route's: {_NEW.policy}.")
    stakes: Stakes | None = opt(
        "high: only fallbacks marked capable may answer. New routes: low."
    )
    on_content_policy: OnContentPolicy | None = opt(
        "The next step after a provider's content filter refuses. New routes: fail."
    )
    keep_warm_bps: int | None = opt(
        "Share of requests that keeps each later provider warm: 1%. New routes: 0%.",
        "--keep-warm",
        type=Reads("share", parse_keep_warm_share),
        metavar="SHARE",
    )
    side_effects: bool | None = opt(
        "Its tools have side effects: no shadow, no keep-warm.",
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
        type=Reads("share", partial(parse_share_bps, what="capture")),
        metavar="SHARE",
    )
    capture_per_day: int | None = opt(
        f"Kept at most, by UTC day. A new route's: {_NEW.capture_per_day}.", metavar="N"
    )
    capture_keep_days: float | None = opt(
        f"Deleted after that. A new route's: {_NEW.capture_keep_days:g}.", metavar="DAYS"
    )
    copy_max_bytes: int | None = opt(
        "Largest request or answer to capture, mirror or judge. A new route's: "
        f"{_NEW.copy_max_bytes}.",
        metavar="BYTES",
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
        type=Reads("override", _read_override),
        metavar="KIND=ROUTE",
    )
    description: str | None = opt("Purpose of the route.")
    candidates: tuple[str, ...] = opt(
        "Model or pattern that its suites measure: 'openai/gpt-5*', "
        "'openrouter/*:price<0.5'; '' for none. May be repeated.",
        "--candidates",
        metavar="PROVIDER/MODEL",
    )
    every: str | None = opt("When they are measured, in UTC: '0 3 * * 1'.", metavar="CRON")
    budget_usd: float | None = opt(
        "Most US dollars for a round.", "--round-budget", metavar="USD"
    )
    on_better: OnBetter | None = opt(
        "The step after a candidate passed. A new schedule's: propose."
    )
    prefer: Preference | None = opt("Claim of a candidate. A new schedule's: better.")

    def over(self, before: RouteSettings, suites: tuple[RouteSuite, ...]) -> RouteSettings:
        given = {name: value for name, value in vars(self).items() if value is not None}
        given |= {name: given[name] or None for name in ROUTE_TIMEOUTS if name in given}
        given["candidates"] = self._schedule(
            before.candidates, {name: given.pop(name, None) for name in _OF_SCHEDULE}
        )
        overrides = {**before.overrides, **dict(self.overrides)}
        given["overrides"] = {kind: route for kind, route in overrides.items() if route}
        return replace(before, **given, suites=suites)

    @staticmethod
    def _schedule(
        before: CandidateSchedule | None, given: dict[str, Any]
    ) -> CandidateSchedule | None:
        models = tuple(given.pop("candidates"))
        if models == ("",):
            return None
        changed = {name: value for name, value in given.items() if value is not None}
        if models:
            changed["models"] = models
        if not changed or before is not None:
            return replace(before, **changed) if before and changed else before
        missing = [option for name, option in _NEEDED.items() if name not in changed]
        if missing:
            raise click.UsageError(
                f"a route's candidates need {', '.join(missing)} too: {_EXAMPLE}"
            )
        return CandidateSchedule(**changed)


_OF_SCHEDULE: Final = ("candidates", "every", "budget_usd", "on_better", "prefer")
_NEEDED: Final = {
    "models": "--candidates",
    "every": "--every",
    "budget_usd": "--round-budget",
}
_EXAMPLE: Final = "--candidates 'openai/gpt-5*' --every '0 3 * * 1' --round-budget 5"


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
    judged = candidate_rounds.judge_route(session.context, made)
    text = f"route {name} is at version {made.version}"
    output.answer(judged, text, advice="\n".join(judged.faults))
