"""The terms of a decision about a file: claim, margin, alpha and looks."""

from dataclasses import dataclass

from harness.frame.configuration.setting import format_bound
from harness.frame.errors import InputError
from harness.gate.suite_plan import Claim, Looks


@dataclass(frozen=True, slots=True)
class FileTerms:
    """The terms on which the gate judges a file. Errors name the options of `gate decide`."""

    claim: Claim
    margin: float
    alpha: float
    n_max: int | None  # planned units of a file that grows; None for a finished file
    cluster: str = ""  # the column that names an item's cluster
    slices: tuple[str, ...] = ()  # columns of guarded slices
    look: int = 1  # number of this look, from 1; earlier looks had these items or fewer

    def __post_init__(self) -> None:
        between_0_and_1("--margin", self.margin)
        between_0_and_1("--alpha", self.alpha)
        for option, value in (("--n-max", self.n_max), ("--look", self.look)):
            if value is not None and value < 1:
                raise InputError(f"{option} is {value}; it must be 1 or more")
        if self.n_max is not None and self.look > 1:
            raise InputError(
                "--n-max plans all looks at a file that grows, and --look counts looks without "
                "a plan: give one of them"
            )

    @property
    def looks(self) -> Looks:
        return Looks.WHOLE if self.n_max is None else Looks.GROWING

    @property
    def columns(self) -> tuple[str, ...]:
        return (*((self.cluster,) if self.cluster else ()), *self.slices)


def between_0_and_1(option: str, value: float) -> None:
    """Raises InputError unless the value is above 0 and below 1. The error names the share that
    a percentage may mean.
    """
    if 0.0 < value < 1.0:
        return
    text = f"{option} is {value:g}; it must be above 0 and below 1"
    meant = value / 100
    if 0.01 <= meant < 1.0:
        text += f". For {format_bound(value)} in 100, write {format_bound(meant)}"
    raise InputError(text)
