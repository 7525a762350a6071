"""Click options that say which suites decide about a route, in which role and with which
weight; `parse_suites` makes `RouteSuite`s of them. For `route create` and `route settings`.
"""

import math
from dataclasses import dataclass
from typing import Final

import click

from harness.cli.frame.command import opt
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.routing.table import RouteSuite

ORDER: Final = (SuiteRole.PRIMARY, SuiteRole.REQUIRED, SuiteRole.GUARD)


class WeightedSuiteType(click.ParamType[RouteSuite]):
    """Reads a suite with its weight: `tickets` or `tickets=2`."""

    name = "suite"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> RouteSuite:
        if isinstance(value, RouteSuite):
            return value
        suite, equals, weight = str(value).rpartition("=")
        if not equals:
            return RouteSuite(str(value))
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf or not suite:
            self.fail(f"{value!r} is not SUITE=WEIGHT with a weight above 0", param, ctx)
        return RouteSuite(suite, weight=number)


_WEIGHTED: Final = WeightedSuiteType()
_PRIMARY: Final = "Primary suite: decides the claim. Several count as a weighted mean."


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """Says which suites decide about a route."""

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
        """The suites after this choice. A role that is given replaces all that had it."""
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
    """Says which suites decide about a new route: at least one."""

    primaries: tuple[RouteSuite, ...] = opt(
        _PRIMARY, "--suite", type=_WEIGHTED, metavar="SUITE[=WEIGHT]", required=True
    )
