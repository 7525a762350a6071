"""`swapproof route settings`, and options that it shares with other commands."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from harness.app.configuration.routing import parse_target_seed
from harness.frame.configuration.setting_values import change_settings, check_settings
from harness.frame.errors import InputError
from harness.gate.suite_plan import SuiteRole
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    ROUTE,
    Reads,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.setting_options import given_options, options_of
from harness.proposals.candidates import candidate_rounds
from harness.providers.target import RequestPatch, Target
from harness.routing.candidate_schedule import (
    CandidateSchedule,
    OnBetter,
    Preference,
)
from harness.routing.control import routes
from harness.routing.route_settings import (
    RequestKind,
    RequestTrait,
    RouteSettings,
    RouteSuite,
    check_predicate,
)


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    parameters: tuple[str, ...] = opt(
        "Default body field, which a client's value overrides; may be repeated.",
        "--param",
        metavar="KEY=VALUE",
    )
    patches: tuple[str, ...] = opt(
        "Body field that overrides the client's value; may be repeated.",
        "--patch-param",
        metavar="KEY=VALUE",
    )
    prompt_addendum: str = opt(
        "Text appended to the system message.", metavar="TEXT", default=""
    )
    response_format: str | None = opt(
        "Replacement of the client's response_format.", metavar="JSON"
    )


def requested_target(name: str, options: TargetOptions) -> Target:
    """Builds a target from name and options. Raises InputError, BadParameter."""
    seed = parse_target_seed(name)
    patch = RequestPatch(
        parameters=body_fields("--patch-param", options.patches),
        prompt_addendum=options.prompt_addendum,
        response_format=_read_object("--response-format", options.response_format),
    )
    parameters = body_fields("--param", options.parameters)
    return Target(seed.provider, seed.model, parameters, patch)


def body_fields(option: str, pairs: tuple[str, ...]) -> dict[str, object]:
    """Parses KEY=VALUE pairs as body fields. VALUE is JSON, or else text."""
    fields: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
        try:
            fields[key] = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            fields[key] = text
    return fields


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _read_object(option: str, text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'must be a JSON object, such as {"type": "json_object"}',
            param_hint=option,
        )
    return value


ORDER: Final = (SuiteRole.PRIMARY, SuiteRole.REQUIRED, SuiteRole.GUARD)


def _read_weighted_suite(text: str) -> RouteSuite:
    suite, equals, weight = text.rpartition("=")
    if not equals:
        return RouteSuite(text)
    try:
        route_suite = RouteSuite(suite, weight=float(weight))
    except ValueError:
        raise InputError(f"{text!r} is not SUITE=WEIGHT with a number as weight") from None
    check_settings(route_suite)
    return route_suite


_WEIGHTED_SUITE: Final = Reads("suite", _read_weighted_suite)
_PRIMARY_HELP: Final = (
    "Primary suite, which decides the claim. Several count as a weighted mean."
)


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    primaries: tuple[RouteSuite, ...] = opt(
        _PRIMARY_HELP,
        "--suite",
        type=_WEIGHTED_SUITE,
        metavar="SUITE[=WEIGHT]",
    )
    required: tuple[str, ...] = opt(
        "Suite that must pass within the allowed loss; may be repeated.",
        "--required-suite",
        metavar="SUITE",
    )
    guards: tuple[str, ...] = opt(
        "Suite that rejects a candidate that is shown to be worse; may be repeated.",
        "--guard-suite",
        metavar="SUITE",
    )

    def apply_to(self, before: tuple[RouteSuite, ...] = ()) -> tuple[RouteSuite, ...]:
        suites = before
        required = tuple(RouteSuite(name, SuiteRole.REQUIRED) for name in self.required)
        guards = tuple(RouteSuite(name, SuiteRole.GUARD) for name in self.guards)
        for role, new_suites in zip(ORDER, (self.primaries, required, guards), strict=True):
            if new_suites:
                names = {suite.suite for suite in new_suites}
                kept_suites = (e for e in suites if e.role is not role and e.suite not in names)
                suites = (*kept_suites, *new_suites)
        return tuple(sorted(suites, key=lambda suite: ORDER.index(suite.role)))


@dataclass(frozen=True, kw_only=True)
class NewRouteSuites(SuiteOptions):
    primaries: tuple[RouteSuite, ...] = opt(
        _PRIMARY_HELP,
        "--suite",
        type=_WEIGHTED_SUITE,
        metavar="SUITE[=WEIGHT]",
        required=True,
    )


def _read_override(text: str) -> tuple[str, str]:
    # A header's value may contain an equals sign, a route's name may not.
    predicate, equals, route = text.rpartition("=")
    if not equals:
        raise InputError(f"{text!r} is not KIND=ROUTE")
    return check_predicate(predicate), route


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    plain: object = taken_from(options_of(RouteSettings, new="New routes"))
    overrides: tuple[tuple[str, str], ...] = opt(
        f"Route that answers requests of the kind ({', '.join(RequestKind)}), with the trait "
        f"({', '.join(RequestTrait)}), or with a header ('x-team: billing=ROUTE'); KIND= for "
        "none. May be repeated.",
        "--override",
        type=Reads("override", _read_override),
        metavar="KIND=ROUTE",
    )
    candidates: tuple[str, ...] = opt(
        "Model or pattern that the route's suites measure: 'openai/gpt-6*', "
        "'openrouter/*:price<0.5'; '' for none. May be repeated.",
        "--candidates",
        metavar="PROVIDER/MODEL",
    )
    every: str | None = opt("Schedule of the candidates, in UTC: '0 3 * * 1'.", metavar="CRON")
    budget_usd: float | None = opt(
        "Maximum cost of a round in US dollars.",
        "--round-budget",
        metavar="USD",
    )
    on_better: OnBetter | None = opt(
        "Next step after a candidate passes. New schedules: propose."
    )
    prefer: Preference | None = opt(
        "Claim: superior, cheaper_and_not_worse, or non_inferior. New schedules: better."
    )

    @property
    def is_empty(self) -> bool:
        """Whether the user gave no option."""
        values = (getattr(self, name) for name in ("overrides", *_SCHEDULE_OPTIONS))
        return not given_options(self.plain) and all(v in (None, ()) for v in values)

    def apply_to(self, before: RouteSettings, suites: tuple[RouteSuite, ...]) -> RouteSettings:
        schedule = {name: getattr(self, name) for name in _SCHEDULE_OPTIONS}
        overrides = {**before.overrides, **dict(self.overrides)}
        return replace(
            change_settings(before, given_options(self.plain)),
            candidates=self._change_schedule(before.candidates, schedule),
            overrides={kind: route for kind, route in overrides.items() if route},
            suites=suites,
        )

    @staticmethod
    def _change_schedule(
        before: CandidateSchedule | None, options: dict[str, Any]
    ) -> CandidateSchedule | None:
        models = tuple(options.pop("candidates"))
        if models == ("",):
            return None
        changes = {name: value for name, value in options.items() if value is not None}
        if models:
            changes["models"] = models
        if not changes or before is not None:
            return replace(before, **changes) if before and changes else before
        missing = [flag for name, flag in _REQUIRED_FLAGS.items() if name not in changes]
        if missing:
            raise click.UsageError(
                f"a route's candidates need {', '.join(missing)} too: {_SCHEDULE_EXAMPLE}"
            )
        return CandidateSchedule(**changes)


_SCHEDULE_OPTIONS: Final = (
    "candidates",
    "every",
    "budget_usd",
    "on_better",
    "prefer",
)
_REQUIRED_FLAGS: Final = {
    "models": "--candidates",
    "every": "--every",
    "budget_usd": "--round-budget",
}
_SCHEDULE_EXAMPLE: Final = "--candidates 'openai/gpt-6*' --every '0 3 * * 1' --round-budget 5"


@command(example="swapproof route settings support --stakes high")
def settings(
    session: Session,
    name: str = ROUTE,
    *,
    options: SettingsOptions = taken_from(SettingsOptions),
    suites: SuiteOptions = taken_from(SuiteOptions),
    reason: str = opt("Reason; required for another policy.", default=""),
) -> None:
    """Change a route's settings. Settings without an option stay unchanged."""

    if options.is_empty and not any(vars(suites).values()):
        raise click.UsageError("give an option: no setting would change")

    def apply_options(before: RouteSettings) -> RouteSettings:
        return options.apply_to(before, suites.apply_to(before.suites))

    route = session.decide(routes.change_settings, name, apply_options, reason=reason)
    route_with_faults = candidate_rounds.add_schedule_faults(session.context, route)
    text = f"route {name} is at version {route.version}"
    output.answer(route_with_faults, text, advice="\n".join(route_with_faults.faults))
