"""Click options that say which suites decide about a route, in which role and with which
weight; `parse_suites` makes `RouteSuite`s of them. For `route create` and `route settings`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.routing.table import RouteSuite

F = TypeVar("F", bound=Callable[..., Any])
OPTIONS: Final[Mapping[str, SuiteRole]] = {
    "primaries": SuiteRole.PRIMARY,
    "required": SuiteRole.REQUIRED,
    "guards": SuiteRole.GUARD,
}


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


def suite_options(*, required: bool) -> Callable[[F], F]:
    """--suite, --required-suite, --guard-suite; `required` is of the first."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--guard-suite",
                "guards",
                multiple=True,
                metavar="SUITE",
                help="Suite that rejects a candidate shown to be worse; may be repeated.",
            ),
            click.option(
                "--required-suite",
                "required",
                multiple=True,
                metavar="SUITE",
                help="Suite that must pass within the allowed loss; may be repeated.",
            ),
            click.option(
                "--suite",
                "primaries",
                required=required,
                multiple=True,
                type=WeightedSuiteType(),
                metavar="SUITE[=WEIGHT]",
                help="Primary suite: decides the claim. Several count as a weighted mean.",
            ),
        ):
            command = option(command)
        return command

    return add


def parse_suites(
    options: dict[str, Any], before: tuple[RouteSuite, ...] = ()
) -> tuple[RouteSuite, ...]:
    """Takes these options out of `options`. A role that is given replaces all that had it."""
    suites = before
    for name, role in OPTIONS.items():
        given = options.pop(name)
        chosen = [RouteSuite(e, role) if isinstance(e, str) else e for e in given]
        if chosen:
            names = {suite.suite for suite in chosen}
            others = (e for e in suites if e.role is not role and e.suite not in names)
            suites = (*others, *chosen)
    order = list(OPTIONS.values())
    return tuple(sorted(suites, key=lambda suite: order.index(suite.role)))
