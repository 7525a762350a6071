"""`DurationType` is click's option type for durations such as `90s` or `2h`;
gives a timedelta.
"""

import math
import re
from datetime import timedelta

import click


class FiniteRange(click.FloatRange):
    """Reads a number within the bounds."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DurationType(click.ParamType[timedelta]):
    """Reads a duration such as `90s`, `30m`, `2h` or `1d`."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: write 90s, 30m, 2h or 1d", param, ctx)
        return timedelta(**{UNITS[found[2]]: int(found[1])})
