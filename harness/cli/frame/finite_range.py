"""`FiniteRange` is click's option type for a number within bounds; unlike click's own, it
refuses `nan`, which is neither below nor above any bound, and `inf`.
"""

import math

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
