"""A target's id is the hash of its content, so that no edit slips past the gate."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Self
from urllib.parse import urlsplit

from harness.frame.errors import InputError
from harness.frame.plain_data import ShowsMore, digest
from harness.providers.kinds import PROVIDER_KINDS, KeyStyle, rename_answer_limit
from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from harness.providers.oauth import claim_headers

JsonObject = Mapping[str, object]
ANTHROPIC_KIND: Final = "anthropic"  # the kind of providers that speak Anthropic's Messages
AZURE_KIND: Final = "azure_openai"
# Of a request's body, what is never a provider's.
ROUTED_FIELDS: Final = frozenset({"model", "messages", "input", "stream"})
# Anthropic's prices of input that its prompt cache keeps for 5 minutes, and for an hour, as
# multiples of the price of other input ("Prompt caching" in its documentation).
WRITE_RATIO: Final = 1.25
HOUR_WRITE_RATIO: Final = 2.0
ANTHROPIC_VERSION: Final = "2023-06-01"  # of that protocol, where a client names none


@dataclass(frozen=True)
class RequestPatch:
    # Body fields that replace the client's.
    parameters: JsonObject = field(default_factory=dict)
    # Text appended to the system message (or sent as one where the request has no other).
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
    """What is called; `parameters` are defaults. Raises InputError for an empty name."""

    provider: str
    model: str
    parameters: JsonObject = field(default_factory=dict)
    request_patch: RequestPatch = field(default_factory=RequestPatch)

    def __post_init__(self) -> None:
        if not (self.provider.strip() and self.model.strip()):
            raise InputError("a target needs a provider and a model, e.g. openai/gpt-4o-mini")

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Builds the plain target `provider/model`. Raises InputError without one of them."""
        provider, _, model = name.partition("/")
        return cls(provider, model)

    @cached_property
    def id(self) -> str:
        """Returns the target's id: `t_` and 24 hexadecimal digits of the content's SHA-256."""
        return f"t_{digest(self.as_json())[:24]}"

    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, **shown}

    @property
    def name(self) -> str:
        """Names the target `provider/model`, with a short id where more sets it apart."""
        plain = not self.parameters and self.request_patch.empty
        return (
            f"{self.provider}/{self.model}"
            if plain
            else f"{self.provider}/{self.model}#{self.id[2:8]}"
        )

    def as_json(self) -> dict[str, object]:
        return {
            "provider": self.provider,
            "model": self.model,
            "parameters": dict(self.parameters),
            "request_patch": self.request_patch.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Price:
    """A model's prices in US dollars per million tokens, also from and to the cache."""

    input_usd_per_mtok: float  # US dollars per million input tokens
    output_usd_per_mtok: float  # US dollars per million output tokens
    # Of input that its cache had; null: as other input.
    cached_input_usd_per_mtok: float | None = None
    # Of input written to its cache for 5 minutes; null: 1.25 times other input. For an hour:
    # 1.6 times this.
    cache_write_usd_per_mtok: float | None = None

    def saves_on(self, other: "Price") -> float | None:
        """Returns the least share of another price that this one saves; None for a free one."""
        pairs = (
            (self.input_usd_per_mtok, other.input_usd_per_mtok),
            (self.output_usd_per_mtok, other.output_usd_per_mtok),
        )
        if not all(theirs for _, theirs in pairs):
            return None
        return 1.0 - max(ours / theirs for ours, theirs in pairs)

    def cost_usd(
        self,
        input_tokens: float,
        output_tokens: float,
        cached_tokens: float = 0,
        written_tokens: float = 0,
        hour_tokens: float = 0,
    ) -> float:
        """Returns the price of an answer. written, hour: of the input, and kept for an hour."""
        full, cached = self.input_usd_per_mtok, self.cached_input_usd_per_mtok
        read = full if cached is None else cached
        given = (input_tokens - cached_tokens) * full + cached_tokens * read
        if written_tokens:
            write = self.cache_write_usd_per_mtok
            write = full * WRITE_RATIO if write is None else write
            given += written_tokens * (write - full)
            given += hour_tokens * write * (HOUR_WRITE_RATIO / WRITE_RATIO - 1.0)
        return (given + output_tokens * self.output_usd_per_mtok) / 1e6

    def cache_worth_usd(
        self, input_tokens: int, cached_tokens: int, written_tokens: int, hour_tokens: int
    ) -> float:
        """Returns what an answer would cost less if all its input came from the cache."""
        full, cached = self.input_usd_per_mtok, self.cached_input_usd_per_mtok
        saved = 0.0 if cached is None else full - cached
        if written_tokens and (rest := input_tokens - cached_tokens):
            billed = self.cost_usd(written_tokens, 0, 0, written_tokens, hour_tokens)
            saved += (billed * 1e6 - written_tokens * full) / rest
        return input_tokens * saved / 1e6

    def as_json(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_extra_body(fields: JsonObject) -> None:
    """Checks extra fields. Raises InputError for one that each request sets, as `model`."""
    for name in sorted(ROUTED_FIELDS & fields.keys()):
        raise InputError(f"extra_body has {name!r}, which each request says for itself")


@dataclass(frozen=True, slots=True)
class ProviderMove:
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True)
class Provider:
    """Where targets are called. The key itself is never stored here."""

    name: str
    kind: str
    api_base: str
    api_key_env: str | None = None
    # In clear, as the file gives them and as they are sent.
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    # By model name; a model without one has an unknown price, which is never shown as 0.
    prices: Mapping[str, Price] = field(default_factory=dict)
    # Further keys, in the order in which they are tried when one is refused.
    more_api_key_envs: tuple[str, ...] = ()
    # What a model can do, by its name; one without an entry is taken to do everything.
    models: Mapping[str, Capabilities] = field(default_factory=dict)
    # Fields of every request's body, the weakest defaults; they change only while nothing was
    # proven with them (`control.providers`).
    extra_body: JsonObject = field(default_factory=dict)
    # The same, encrypted, as they are stored.
    sealed_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    # None for one that has always been where it is; no part of what it is.
    moved: ProviderMove | None = field(default=None, compare=False)

    @property
    def header_names(self) -> list[str]:
        return sorted({*self.extra_headers, *self.sealed_headers})

    def as_sent(self, target: Target) -> Target:
        """Returns a target with `extra_body` and the kind's limit. Its id is another."""
        own, patch = {**self.extra_body, **target.parameters}, target.request_patch
        parameters = rename_answer_limit(own, self.kind)
        patched = rename_answer_limit(patch.parameters, self.kind)
        if (parameters, patched) == (target.parameters, patch.parameters):
            return target
        return replace(
            target, parameters=parameters, request_patch=replace(patch, parameters=patched)
        )

    def same_place(self, other: "Provider") -> bool:
        """Whether both give the same answers. Of providers with headers in clear."""
        ours, theirs = (
            (
                provider.kind,
                provider.api_base.rstrip("/"),
                {name.lower(): value for name, value in provider.extra_headers.items()},
            )
            for provider in (self, other)
        )
        return ours == theirs

    def url(self, path: str) -> str:
        """Returns the URL of a path below `/v1`, which two kinds' `api_base` may leave out."""
        base = self.api_base.rstrip("/")
        if self.kind == ANTHROPIC_KIND and not base.endswith("/v1"):
            base += "/v1"
        if self.kind == AZURE_KIND and not urlsplit(base).path:
            base += "/openai/v1"
        return f"{base}{path}"

    def key_headers(self, key: str) -> dict[str, str]:
        """Returns the headers that carry a key. key: empty for none."""
        if not key:
            return {}
        kind = PROVIDER_KINDS.get(self.kind)
        style = kind.key_style if kind is not None else KeyStyle.BEARER
        told = claim_headers(key, kind.claim_headers) if kind and kind.claim_headers else {}
        return {style.value: f"Bearer {key}" if style is KeyStyle.BEARER else key, **told}

    @property
    def key_envs(self) -> tuple[str, ...]:
        own = (self.api_key_env,) if self.api_key_env else ()
        return tuple(dict.fromkeys((*own, *self.more_api_key_envs)))

    def can(self, model: str) -> Capabilities:
        return self.models.get(model, UNKNOWN_CAPABILITIES)


# By the class's name, the providers' names.
DataClasses = Mapping[str, frozenset[str]]
NO_DATA_CLASSES: Final[DataClasses] = {}


def may_see(classes: DataClasses, data_class: str, provider: str) -> bool:
    """Whether a provider may see the class; none may see a class that `classes` lacks."""
    return not data_class or provider in classes.get(data_class, frozenset())


def classes_of_provider(classes: DataClasses, provider: str) -> list[str]:
    return sorted(name for name, allowed in classes.items() if provider in allowed)


def is_at_least_as_strict(classes: DataClasses, data_class: str, *, than: str) -> bool:
    """Whether every provider that may see `data_class` may see `than`."""
    if not than or data_class == than:
        return True
    nobody: frozenset[str] = frozenset()
    return bool(data_class) and classes.get(data_class, nobody) <= classes.get(than, nobody)
