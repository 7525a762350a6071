"""Targets, their providers and prices, and figures for the choice of a model. The id of a
target is the hash of its content, so that every change of a target needs a verdict.

The dataclasses are pure. A provider's address and headers are not part of a target. Swapproof
records their change as a move, which makes earlier proofs stale (ADR 29). `kinds` has the kinds
of providers, and `harness.providers.registry.targets` stores targets and providers.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Self
from urllib.parse import urlsplit

from harness.frame.configuration.setting import (
    ANSWER_TOKENS,
    Declaration,
    Range,
    number,
    required,
    setting,
)
from harness.frame.errors import InputError
from harness.frame.formatting import DASH, UNKNOWN, format_percent, format_usd
from harness.frame.plain_data import ShowsMore, digest
from harness.providers.kinds import (
    PROVIDER_KINDS,
    KeyStyle,
    rename_answer_limit,
)
from harness.providers.models.abilities import find_abilities, merge_abilities
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
)
from harness.providers.oauth import headers_from_claims

JsonObject = Mapping[str, object]
ANTHROPIC_KIND: Final = "anthropic"  # the kind of providers that speak Anthropic's Messages
AZURE_KIND: Final = "azure_openai"
# Fields of a request's body that a provider's `extra_body` may not contain.
ROUTED_FIELDS: Final = frozenset({"model", "messages", "input", "stream"})
# Anthropic's prices for input that its prompt cache keeps for 5 minutes and for an hour, as
# multiples of the input price. Source: "Prompt caching" in its documentation.
WRITE_RATIO: Final = 1.25
HOUR_WRITE_RATIO: Final = 2.0
ANTHROPIC_VERSION: Final = "2023-06-01"  # default version of the protocol


@dataclass(frozen=True)
class RequestPatch:
    # Body fields that replace the client's.
    parameters: JsonObject = field(default_factory=dict)
    # Text that the router appends to the system message; without a system message, the text
    # becomes one.
    prompt_addendum: str = ""
    response_format: JsonObject | None = None  # replaces the client's

    @property
    def empty(self) -> bool:
        return not (self.parameters or self.prompt_addendum or self.response_format)

    def as_json(self) -> dict[str, object]:
        return {
            "parameters": dict(self.parameters),
            "prompt_addendum": self.prompt_addendum,
            "response_format": dict(self.response_format) if self.response_format else None,
        }


@dataclass(frozen=True)
class Target(ShowsMore):
    """A model at a provider. Requests may override its `parameters`. Raises InputError for an
    empty name.

    Immutable: another parameter or patch is another target, with its own id, and needs its own
    verdict.
    """

    provider: str
    model: str
    parameters: JsonObject = field(default_factory=dict)
    request_patch: RequestPatch = field(default_factory=RequestPatch)

    def __post_init__(self) -> None:
        if not (self.provider.strip() and self.model.strip()):
            raise InputError("a target needs a provider and a model, e.g. openai/gpt-6-luna")

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Builds the target `provider/model` without parameters. Raises InputError if one is
        missing.
        """
        provider, _, model = name.partition("/")
        return cls(provider, model)

    @cached_property
    def id(self) -> str:
        """Returns the target's id: `t_` and 24 hexadecimal digits of the content's SHA-256."""
        return f"t_{digest(self.as_json())[:24]}"

    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            **shown,
        }

    @property
    def name(self) -> str:
        """Returns `provider/model`, with a short id if it has parameters or a patch."""
        is_plain = not self.parameters and self.request_patch.empty
        return (
            f"{self.provider}/{self.model}"
            if is_plain
            else f"{self.provider}/{self.model}#{self.id[2:8]}"
        )

    def as_json(self) -> dict[str, object]:
        return {
            "provider": self.provider,
            "model": self.model,
            "parameters": dict(self.parameters),
            "request_patch": self.request_patch.as_json(),
        }


@dataclass(frozen=True)
class SentTarget:
    """A target in the form that Swapproof sends to its provider (`Provider.as_sent`).

    It has no id and no name: routes, evidence and switches refer to the target, because its id
    is the hash of the proven content.
    """

    provider: str
    model: str
    parameters: JsonObject
    request_patch: RequestPatch


# Both forms of a target from which Swapproof can write a request.
RequestTarget = Target | SentTarget


_PRICE: Final = Range(0, 1_000_000)
# Names of the service tier at which an answer has the plain price, as OpenAI, Groq, Anthropic,
# Google and gateways write them. An answer without a name has the plain price, too.
STANDARD_TIERS: Final = frozenset(
    {
        "",
        "auto",
        "default",
        "standard",
        "standard_only",
        "on_demand",
        "ON_DEMAND",
    }
)
# Other names of a tier that has a price of its own. Sources: `trafficType` of Google's answers,
# and `fast`, OpenAI's other name of its priority tier.
TIER_NAMES: Final[Mapping[str, str]] = {
    "ON_DEMAND_FLEX": "flex",
    "FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "fast": "priority",
}


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """Prices in US dollars per million tokens."""

    input_usd_per_mtok: float = field(metadata=required("For input.", range=_PRICE))
    output_usd_per_mtok: float = field(metadata=required("For output.", range=_PRICE))
    cached_input_usd_per_mtok: float | None = number(
        None,
        "For cached input; null for the plain input price.",
        _PRICE,
    )
    cache_write_usd_per_mtok: float | None = number(
        None,
        "For input that the provider caches for 5 minutes; null for 1.25 times the input "
        "price. An hour costs 1.6 times as much.",
        _PRICE,
    )

    @property
    def higher_usd_per_mtok(self) -> float:
        """The higher of the prices for input and for output."""
        return max(self.input_usd_per_mtok, self.output_usd_per_mtok)

    def cost_usd(
        self,
        input_tokens: float,
        output_tokens: float,
        cached_tokens: float = 0,
        written_tokens: float = 0,
        hour_tokens: float = 0,
    ) -> float:
        """Returns the cost of an answer in US dollars. Counts are tokens, and means may be
        fractions.

        Args:
            cached_tokens: input read from the cache, a part of input_tokens.
            written_tokens: input written to the cache.
            hour_tokens: the part of written_tokens that the provider keeps for an hour.
        """
        input_usd = self.input_usd_per_mtok
        cached_usd = self.cached_input_usd_per_mtok
        read_usd = input_usd if cached_usd is None else cached_usd
        input_cost_usd = (input_tokens - cached_tokens) * input_usd + cached_tokens * read_usd
        if written_tokens:
            write_usd = self.cache_write_usd_per_mtok
            write_usd = input_usd * WRITE_RATIO if write_usd is None else write_usd
            input_cost_usd += written_tokens * (write_usd - input_usd)
            input_cost_usd += hour_tokens * write_usd * (HOUR_WRITE_RATIO / WRITE_RATIO - 1.0)
        return (input_cost_usd + output_tokens * self.output_usd_per_mtok) / 1e6

    def cache_worth_usd(
        self,
        input_tokens: int,
        cached_tokens: int,
        written_tokens: int,
        hour_tokens: int,
    ) -> float:
        """Returns the saving if the whole input of an answer came from the cache, compared with
        no cached input.

        In US dollars. With it, the canary compares both arms at the same share of cached
        tokens, so that a cold cache does not make a model look expensive.
        Source: docs/explanation/statistics.md §2.14.
        """
        input_usd = self.input_usd_per_mtok
        cached_usd = self.cached_input_usd_per_mtok
        saved_usd = 0.0 if cached_usd is None else input_usd - cached_usd
        if written_tokens and (uncached_tokens := input_tokens - cached_tokens):
            written_usd = self.cost_usd(written_tokens, 0, 0, written_tokens, hour_tokens)
            saved_usd += (written_usd * 1e6 - written_tokens * input_usd) / uncached_tokens
        return input_tokens * saved_usd / 1e6

    def as_json(self) -> dict[str, object]:
        return _without_nulls(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPrice(TokenPrice):
    """The prices of a long request, for all of its tokens."""

    above_tokens: int = field(
        metadata=required(
            "For requests with more input tokens than this, cached ones included.",
            range=ANSWER_TOKENS,
        )
    )


@dataclass(frozen=True, slots=True)
class TierPrice(TokenPrice):
    """The prices at one service tier."""

    long: LongPrice | None = None  # for long requests; null without one


@dataclass(frozen=True, slots=True)
class Price(TierPrice):
    """A model's prices. The inherited fields are for the standard tier."""

    flex: TierPrice | None = None  # for answers at the tier `flex`; null if unknown
    priority: TierPrice | None = None  # for answers at the tier `priority`; null if unknown

    def for_answer(self, input_tokens: float, tier: str = "") -> TokenPrice | None:
        """Returns the prices of one answer; None if they are unknown.

        Args:
            tier: its name in the answer.

        If only the standard tier has a long price, a long request at another tier has no known
        price.
        """
        tier_price: TierPrice | None = self
        if tier not in STANDARD_TIERS:
            tier_price = {"flex": self.flex, "priority": self.priority}.get(
                TIER_NAMES.get(tier, tier)
            )
        if tier_price is None:
            return None
        long = tier_price.long or self.long
        if long is None or input_tokens <= long.above_tokens:
            return tier_price
        return tier_price.long

    def answer_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
        written_tokens: int = 0,
        hour_tokens: int = 0,
        tier: str = "",
    ) -> float | None:
        """Returns the cost of an answer in US dollars; None if its tier has no known price.

        Counts as in `cost_usd`, tier as in `for_answer`.
        """
        prices = self.for_answer(input_tokens, tier)
        if prices is None:
            return None
        return prices.cost_usd(
            input_tokens,
            output_tokens,
            cached_tokens,
            written_tokens,
            hour_tokens,
        )

    def saves_on(self, other: TokenPrice) -> float | None:
        """Returns the smaller saving of input and output, as a share of another price; None if
        a part of that price is 0.
        """
        usd_pairs = (
            (self.input_usd_per_mtok, other.input_usd_per_mtok),
            (self.output_usd_per_mtok, other.output_usd_per_mtok),
        )
        if not all(other_usd for _, other_usd in usd_pairs):
            return None
        return 1.0 - max(own_usd / other_usd for own_usd, other_usd in usd_pairs)


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


def check_extra_body(fields: JsonObject) -> None:
    """Checks for fields that each request sets, such as `model`. Raises InputError."""
    for name in sorted(ROUTED_FIELDS & fields.keys()):
        raise InputError(f"extra_body has {name!r}, which each request sets itself: remove it")


@dataclass(frozen=True, slots=True)
class ProviderMove:
    """A provider's change of kind, address or headers. Results from before `at` prove nothing
    after it.
    """

    at: datetime
    by: str
    reason: str


@dataclass(frozen=True)
class ProviderSettings:
    """The settings of a provider that have one value. The command line, the API, the dashboard
    and the configuration file follow from their declarations.

    name: people choose it; several providers may have one kind.
    """

    name: str
    kind: str
    api_base: str = field(
        metadata=required(
            "API address.",
            caption="api base",
            length=Range(0, 2_000),
            unset="the kind's address",
            metavar="URL",
        )
    )
    api_key_env: str | None = setting(
        None,
        Declaration(
            meaning="Environment variable that holds the key; NAME_FILE holds the path of a "
            "key file.",
            caption="key from",
            unset="the stored keys alone",
            removal="",
            flags="--key-env",
            metavar="NAME",
        ),
    )
    _: KW_ONLY  # further settings have names in calls


@dataclass(frozen=True)
class Provider(ProviderSettings):
    """Where targets are called. The key itself is never stored here."""

    # Decrypted values, as the file and requests have them.
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    # By model. A missing price is unknown, and never shown as 0.
    prices: Mapping[str, Price] = field(default_factory=dict)
    # Further keys' variables, in the order in which the router tries them.
    more_api_key_envs: tuple[str, ...] = ()
    # By model. Swapproof assumes that a model without an entry has all capabilities.
    models: Mapping[str, Capabilities] = field(default_factory=dict)
    # Default fields of every request's body, which requests and targets override. They cannot
    # change once results depend on them (`registry.targets`).
    extra_body: JsonObject = field(default_factory=dict)
    # The extra headers as stored, with encrypted values.
    sealed_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    # The last move; None if the provider never moved. Comparisons ignore it.
    moved: ProviderMove | None = field(default=None, compare=False)

    @property
    def header_names(self) -> list[str]:
        """Lists the names of the extra headers, clear and encrypted, without their values."""
        return sorted({*self.extra_headers, *self.sealed_headers})

    def as_sent(self, target: Target) -> SentTarget:
        """Returns the form of a target for requests: with `extra_body`, and with the kind's
        name for the limit of an answer.
        """
        fields = {**self.extra_body, **target.parameters}
        patch = target.request_patch
        patch_parameters = rename_answer_limit(patch.parameters, self.kind)
        return SentTarget(
            target.provider,
            target.model,
            parameters=rename_answer_limit(fields, self.kind),
            request_patch=replace(patch, parameters=patch_parameters),
        )

    def same_place(self, other: "Provider") -> bool:
        """Tells whether two providers have the same kind, address and headers. Both must have
        decrypted headers.
        """
        own, others = (
            (
                provider.kind,
                provider.api_base.rstrip("/"),
                {name.lower(): value for name, value in provider.extra_headers.items()},
            )
            for provider in (self, other)
        )
        return own == others

    def url(self, path: str) -> str:
        """Returns a path's URL. Adds the API's version if the kind's `api_base` may omit it."""
        base = self.api_base.rstrip("/")
        if self.kind == ANTHROPIC_KIND and not base.endswith("/v1"):
            base += "/v1"
        if self.kind == AZURE_KIND and not urlsplit(base).path:
            base += "/openai/v1"
        return f"{base}{path}"

    def key_headers(self, key: str) -> dict[str, str]:
        """Returns the headers that carry a key.

        Args:
            key: may be empty.
        """
        if not key:
            return {}
        kind = PROVIDER_KINDS.get(self.kind)
        style = kind.key_style if kind is not None else KeyStyle.BEARER
        claims = (
            headers_from_claims(key, kind.claim_headers) if kind and kind.claim_headers else {}
        )
        return {
            style.value: f"Bearer {key}" if style is KeyStyle.BEARER else key,
            **claims,
        }

    @property
    def key_envs(self) -> tuple[str, ...]:
        """Lists the environment variables of the keys, in the order in which routers
        try them.
        """
        first = (self.api_key_env,) if self.api_key_env else ()
        return tuple(dict.fromkeys((*first, *self.more_api_key_envs)))

    def can(self, model: str) -> Capabilities:
        """Returns the declared capabilities of a model; all for a model without an entry."""
        return self.models.get(model, UNKNOWN_CAPABILITIES)

    def abilities(self, model: str) -> Capabilities:
        """Returns the known abilities of a model: the declared values, else the table's."""
        published = find_abilities(self.kind, model, self.api_base)
        return merge_abilities(self.can(model), published)


# By data class: the names of the providers that may see it.
DataClasses = Mapping[str, frozenset[str]]
NO_DATA_CLASSES: Final[DataClasses] = {}


def may_see(
    data_classes: DataClasses,
    data_class: str,
    provider: str,
) -> bool:
    """Tells whether a provider may see a data class. No provider may see an unknown class."""
    return not data_class or provider in data_classes.get(data_class, frozenset())


def classes_of_provider(data_classes: DataClasses, provider: str) -> list[str]:
    """Lists the data classes that a provider may see, by name."""
    return sorted(name for name, allowed in data_classes.items() if provider in allowed)


def is_at_least_as_strict(
    data_classes: DataClasses,
    data_class: str,
    *,
    than: str,
) -> bool:
    """Tells whether every provider that may see `data_class` may also see `than`."""
    if not than or data_class == than:
        return True
    no_provider: frozenset[str] = frozenset()
    return bool(data_class) and data_classes.get(data_class, no_provider) <= data_classes.get(
        than, no_provider
    )


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
    """Figures by which a person or an agent chooses a model."""

    name: str  # `provider/model`
    price: Price | None = None  # None if unknown
    context_window: int | None = None  # tokens
    scores: tuple[MeasuredScore, ...] = ()
    verdict: str = ""  # the newest verdict on it as a candidate, for people
    unlisted: str = ""  # a sentence if its provider does not list it

    @property
    def price_text(self) -> str:
        return format_price(self.price)

    @property
    def quality_text(self) -> str:
        """Describes scores and verdict for people, or states that the model was not
        measured.
        """
        parts = [score.text for score in self.scores]
        if self.verdict:
            parts.append(f"last verdict {self.verdict}")
        listing = [self.unlisted] if self.unlisted else []
        return "; ".join([*(parts or ["not measured"]), *listing])

    @property
    def window_text(self) -> str:
        return DASH if self.context_window is None else f"{self.context_window:,} tokens"


def format_price(price: Price | None) -> str:
    """Writes a price for people, in US dollars per million tokens."""
    if price is None:
        return UNKNOWN
    input_usd = format_usd(price.input_usd_per_mtok)
    output_usd = format_usd(price.output_usd_per_mtok)
    return f"{input_usd} in and {output_usd} out per million tokens"


def find_price(providers: Mapping[str, Provider], target: str) -> Price | None:
    """Returns the price of a target by its name; None if it is unknown."""
    name, _, model = target.partition("/")
    provider = providers.get(name)
    if provider is None:
        return None
    # The name of a target with parameters ends with `#` and a short id.
    return provider.prices.get(model) or provider.prices.get(model.rpartition("#")[0])
