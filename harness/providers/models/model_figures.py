"""A model's figures before a switch to it: prices, size, scores and newest verdict. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.frame.formatting import DASH, UNKNOWN, format_percent, format_usd
from harness.providers.target import Price, Provider


@dataclass(frozen=True, slots=True)
class MeasuredScore:
    """The newest run of one suite on a model. score, low, high: 0 to 1."""

    suite: str
    score: float
    low: float | None = None  # low, high: 95 % interval over items; None below two items
    high: float | None = None
    items: int = 0

    @property
    def text(self) -> str:
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f"{format_percent(self.low)} to {format_percent(self.high)}, "
        return f"{self.suite} {format_percent(self.score)} ({interval}{self.items} items)"


@dataclass(frozen=True, slots=True)
class ModelFigures:
    name: str  # `provider/model`
    price: Price | None = None  # None if unknown
    context_window: int | None = None  # tokens
    scores: tuple[MeasuredScore, ...] = ()
    verdict: str = ""  # the newest verdict on it as a candidate, for people
    unlisted: str = ""  # a sentence if its provider does not list it

    @property
    def price_text(self) -> str:
        if self.price is None:
            return UNKNOWN
        given, answered = self.price.input_usd_per_mtok, self.price.output_usd_per_mtok
        return f"{format_usd(given)} in, {format_usd(answered)} out per million tokens"

    @property
    def quality_text(self) -> str:
        parts = [score.text for score in self.scores]
        if self.verdict:
            parts.append(f"last verdict {self.verdict}")
        listing = [self.unlisted] if self.unlisted else []
        return "; ".join([*(parts or ["not measured"]), *listing])

    @property
    def window_text(self) -> str:
        return DASH if self.context_window is None else f"{self.context_window:,} tokens"


def find_price(providers: Mapping[str, Provider], target: str) -> Price | None:
    """Returns the price of a target by its name; None if it is unknown."""
    name, _, model = target.partition("/")
    provider = providers.get(name)
    if provider is None:
        return None
    # The name of a target with parameters ends with `#` and a short id.
    return provider.prices.get(model) or provider.prices.get(model.rpartition("#")[0])
