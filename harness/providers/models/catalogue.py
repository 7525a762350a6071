"""The catalogue: facts about models before they are called. Unknown prices are None.

`LitellmTable` reads it from the JSON file in litellm's package without importing litellm, which
takes many seconds. The configuration's changes take precedence. A price includes those of the
tiers `flex` and `priority` and of long requests, but not of batches. A provider's own prices
precede the catalogue's, and nothing here calls a provider.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness.frame.configuration.setting import ANSWER_TOKENS, Declaration, number, setting
from harness.providers.kinds import (
    PROVIDER_KINDS,
    ProviderGroup,
    ProviderKind,
)
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
)
from harness.providers.models.model_names import parse_model_name
from harness.providers.target import LongPrice, Price, Provider, TierPrice

CONFIGURATION: Final = "swapgate.yaml"  # a source of prices

ABILITIES: Final = tuple(
    ability.name for ability in fields(Capabilities) if isinstance(ability.default, bool)
)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """The facts about one model of a kind."""

    kind: str
    model: str  # its name at the provider
    price: Price | None = None
    context_window: int | None = None  # tokens
    has: frozenset[str] = frozenset()  # has, lacks: ABILITIES; the rest are unknown
    lacks: frozenset[str] = frozenset()
    # The first day on which it may be gone; None if no end is announced.
    end_date: date | None = None
    own_family: str = ""  # set if its name does not show its family
    price_source: str = ""  # source of the price; empty for the catalogue's source

    @property
    def family(self) -> str:
        """The family's name; models of one family are versions of one another."""
        return self.own_family or parse_model_name(self.model).family

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.model}"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities that the entry denies or limits; all others count as present."""
        if not self.lacks and self.context_window is None:
            return UNKNOWN_CAPABILITIES
        absent: dict[str, Any] = dict.fromkeys(sorted(self.lacks), False)
        return Capabilities(context_window=self.context_window, **absent)

    def ended(self, today: date) -> bool:
        """Tells whether the model may be gone. today: in UTC."""
        return self.end_date is not None and self.end_date <= today


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueFacts:
    """Corrects the catalogue for one model; omitted fields keep the catalogue's value."""

    price: Price | None = None  # token prices
    context_window: int | None = number(
        None,
        "Tokens of input and output together.",
        ANSWER_TOKENS,
        unit="tokens",
    )
    capabilities: Mapping[str, bool] = setting(
        {}, Declaration(meaning=f"Values of {', '.join(ABILITIES)}.", composite=True)
    )
    end_date: date | None = None  # the day on which the provider may remove the model
    family: str | None = None  # models of one family are versions of each other


@dataclass(frozen=True, slots=True)
class CatalogueChange(CatalogueFacts):
    """The configuration's facts about one model; None keeps the catalogue's fact."""

    kind: str
    model: str

    def over(self, entry: CatalogueEntry) -> CatalogueEntry:
        has = frozenset(name for name, able in self.capabilities.items() if able)
        lacks = frozenset(self.capabilities) - has
        return replace(
            entry,
            own_family=self.family or entry.own_family,
            price=self.price or entry.price,
            price_source=CONFIGURATION if self.price else entry.price_source,
            context_window=self.context_window or entry.context_window,
            has=(entry.has | has) - lacks,
            lacks=(entry.lacks | lacks) - has,
            end_date=self.end_date or entry.end_date,
        )


@dataclass(frozen=True)
class Catalogue:
    """All known models, by kind and name."""

    entries: Mapping[tuple[str, str], CatalogueEntry] = field(default_factory=dict)
    source: str = ""  # origin of the entries, such as `litellm 1.106.2`
    as_of: date | None = None  # when this machine got that source

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, kind: str, model: str) -> CatalogueEntry | None:
        return self.entries.get((kind, model))


def build_catalogue(
    entries: Iterable[CatalogueEntry],
    source: str = "",
    as_of: date | None = None,
) -> Catalogue:
    """Builds a catalogue. A later entry for a model replaces an earlier entry."""
    by_model = {(entry.kind, entry.model): entry for entry in entries}
    return Catalogue(by_model, source, as_of)


@dataclass(frozen=True, slots=True)
class PriceOrigin:
    """Where a price comes from, so that people can judge how current it is."""

    source: str  # empty if the price was set at the provider
    as_of: date | None  # when this machine got that source; None if unknown
    current: Price | None = None  # the catalogue's present price, if it differs


def find_price_origin(
    price: Price,
    entry: CatalogueEntry | None,
    known: Catalogue,
) -> PriceOrigin:
    """Finds a price's origin. A price that differs from the catalogue's comes from the
    configuration or an older catalogue.
    """
    listed = entry.price if entry is not None else None
    if entry is None or listed != price:
        return PriceOrigin("", None, listed)
    if entry.price_source:
        return PriceOrigin(entry.price_source, None)
    return PriceOrigin(known.source, known.as_of)


def with_catalogue_prices(
    provider: Provider,
    known: Catalogue,
    models: Iterable[str],
) -> Provider:
    """Adds the catalogue's prices for models that the provider has no price for."""
    found = {
        model: entry.price
        for model in models
        if model not in provider.prices
        and (entry := known.find(provider.kind, model)) is not None
        and entry.price is not None
    }
    return replace(provider, prices={**provider.prices, **found}) if found else provider


# In the order of the columns.
COLUMNS: Final = (
    "chat",
    "stream",
    "tools",
    "parallel_tools",
    "json_schema",
    "vision",
    "embeddings",
    "caching",
    "thinking",
)

_CALLED: Final = {"thinking": "reasoning"}  # a column's name in `Capabilities`

_ENDPOINTS: Final = {
    "chat": Endpoint.CHAT,
    "embeddings": Endpoint.EMBEDDINGS,
}


class Ability(StrEnum):
    """Whether a model has an ability. UNKNOWN: no source says so."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def model_abilities(
    kind: ProviderKind,
    own: Capabilities,
    entry: CatalogueEntry | None,
    price: Price | None,
) -> Mapping[str, Ability]:
    """Returns a model's abilities by column. NO if any source denies the ability.

    own: declared by the operator, or by the table of abilities.
    """
    return {column: _ability(column, kind, own, entry, price) for column in COLUMNS}


def _ability(
    name: str,
    kind: ProviderKind,
    own: Capabilities,
    entry: CatalogueEntry | None,
    price: Price | None,
) -> Ability:
    ability = _CALLED.get(name, name)
    endpoint = _ENDPOINTS.get(name)
    lacking = (
        endpoint is not None and endpoint not in kind.serves,
        # Only False counts, because True is the default.
        not getattr(own, ability),
        entry is not None and ability in entry.lacks,
    )
    if any(lacking):
        return Ability.NO
    priced = price is not None and price.cached_input_usd_per_mtok is not None
    has = entry is not None and ability in entry.has
    # A price for cached input shows that the model has a cache.
    return Ability.YES if has or (name == "caching" and priced) else Ability.UNKNOWN


def kind_limitations(kind: ProviderKind) -> tuple[str, ...]:
    """Lists limitations of all models of a kind, as phrases for people."""
    found = []
    if not kind.serves:
        found.append("this router does not call it yet")
    if kind.adapted:
        names = ", ".join(sorted(kind.adapted))
        found.append(f"answered by translation: {names}")
    if not kind.name.startswith(("openai", "azure")):
        found.append("its own tokenizer: token counts differ from other vendors'")
    if kind.group is ProviderGroup.OAUTH:
        found.append("uses a person's account: only if its name is given")
    return tuple(found)


FILE: Final = "model_prices_and_context_window_backup.json"

SAMPLE: Final = "sample_spec"

# Kinds by the table's provider names. Vertex's names may have a further suffix.
KINDS: Final[Mapping[str, str]] = {
    name: kind.name for kind in PROVIDER_KINDS.values() for name in kind.catalogue_names
}

# By the table's mode: the ability that such a model has, and the abilities that it lacks.
MODES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "chat": ("chat", frozenset({"embeddings"})),
    "responses": ("responses", frozenset({"embeddings", "chat"})),
    "embedding": (
        "embeddings",
        frozenset(
            {
                "chat",
                "responses",
                "messages",
                "stream",
                "tools",
                "parallel_tools",
            }
        ),
    ),
}

FLAGS: Final[Mapping[str, str]] = {
    "supports_function_calling": "tools",
    "supports_parallel_function_calling": "parallel_tools",
    "supports_response_schema": "json_schema",
    "supports_vision": "vision",
    "supports_native_streaming": "stream",
}

# Optional features: for these, only a yes counts.
SHOWN: Final[Mapping[str, str]] = {
    "supports_prompt_caching": "caching",
    "supports_reasoning": "reasoning",
}

_YES: Final = (*FLAGS.items(), *SHOWN.items())

_NO: Final = tuple(FLAGS.items())

# Rows of these providers may begin with a region. Such rows are ignored, because their prices
# differ.
_REGIONS: Final = ("azure", "bedrock")


class LitellmTable:
    """Reads litellm's table of models at the first call, and keeps it. Without litellm's
    package, the catalogue has only the entries of the user's file.

    changes: the entries of the user's file, which take precedence.
    """

    def __init__(
        self,
        changes: Iterable[CatalogueChange] = (),
        file: Path | None = None,
    ) -> None:
        self._changes = tuple(changes)
        self._file = file

    @cached_property
    def _all(self) -> Catalogue:
        file = self._file or package_file(FILE)
        if file is None:
            return with_changes(Catalogue(), self._changes)
        return with_changes(_read_table(file, file.stat().st_mtime), self._changes)

    def catalogue(self) -> Catalogue:
        return self._all


@lru_cache(maxsize=1)
def _read_table(file: Path, changed_at: float) -> Catalogue:
    """Reads the file once in a process, which may have several installations.
    changed_at: seconds since 1970.
    """
    rows = json.loads(file.read_text(encoding="utf-8"))
    since = datetime.fromtimestamp(changed_at, UTC).date()
    return build_catalogue(_entries(rows), table_source(), since)


def package_file(name: str) -> Path | None:
    """Returns a file of litellm's package, without importing it; None without the package."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / name
    return file if file.is_file() else None


def table_source() -> str:
    """Names the table with its version, for the origin of a price."""
    try:
        return f"litellm {version('litellm')}"
    except PackageNotFoundError:
        return "a table of litellm"


def with_changes(known: Catalogue, changes: Iterable[CatalogueChange]) -> Catalogue:
    """Returns the catalogue with the configuration's changes, which may add models."""
    entries = dict(known.entries)
    for change in changes:
        key = (change.kind, change.model)
        entries[key] = change.over(entries.get(key, CatalogueEntry(*key)))
    return replace(known, entries=entries)


def _entries(rows: Mapping[str, Mapping[str, object]]) -> Iterator[CatalogueEntry]:
    """Yields the entries of litellm's table that a kind can use."""
    # Names with a provider come last, because they are more specific and a later entry counts.
    for key in sorted(rows, key=lambda row: ("/" in row, row)):
        if key != SAMPLE and (entry := _entry(key, rows[key])) is not None:
            yield entry


def _entry(key: str, row: Mapping[str, object]) -> CatalogueEntry | None:
    """Builds an entry from a row; None for a row without a usable kind or mode."""
    mode = MODES.get(str(row.get("mode")))
    if mode is None:
        return None
    provider = str(row.get("litellm_provider"))
    kind = KINDS.get("vertex_ai" if provider.startswith("vertex_ai-") else provider)
    if kind is None:
        return None
    model = key.removeprefix(f"{provider.partition('-')[0]}/")
    if provider.startswith(_REGIONS) and "/" in model:
        return None
    able, unable = mode
    has = frozenset([able, *(ability for flag, ability in _YES if row.get(flag) is True)])
    denied = [ability for flag, ability in _NO if row.get(flag) is False]
    return CatalogueEntry(
        kind=kind,
        model=model,
        price=_price(kind, able, row),
        context_window=_tokens(row.get("max_input_tokens")),
        has=has,
        lacks=unable.union(denied) - has,
        end_date=_day(row.get("deprecation_date")),
    )


# Columns of input, output, cached input and written input. A tier's columns end in its name.
_RATES: Final = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
_TIERS: Final = ("", "_flex", "_priority")
_LONG: Final = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


def _price(
    kind: str,
    made_for: str,
    row: Mapping[str, object],
) -> Price | None:
    """Builds a price from a row; None if input or output has no price."""
    free = PROVIDER_KINDS[kind].group is ProviderGroup.LOCAL
    has_output = made_for != "embeddings"  # a vector has no output tokens
    rates = _rates(row, has_output=has_output)
    # For models that are not local, 0 in the table stands for an unknown price.
    if rates is None or (rates[0] == rates[1] == 0 and not free):
        return None
    thousands = [int(found[1]) for name in row if (found := _LONG.fullmatch(name))]
    if len(thousands) > 1:
        # The table has no such row; one long price would be wrong for the other range.
        return None
    above = thousands[0] if thousands else 0
    tiers: dict[str, TierPrice] = {}
    for suffix in _TIERS:
        own = rates if not suffix else _rates(row, suffix, has_output=has_output)
        wide = _rates(row, f"_above_{above}k_tokens{suffix}", has_output=has_output)
        long = (
            LongPrice(*wide, above_tokens=above * 1000) if above and wide is not None else None
        )
        # Without a rate for cached input, a tier has no known price: it is not the plain one.
        if own is not None and (own[2] is not None or rates[2] is None):
            tiers[suffix] = TierPrice(*own, long=long)
    plain = tiers[""]
    if above and plain.long is None:
        return None
    return Price(
        *rates,
        long=plain.long,
        flex=tiers.get("_flex"),
        priority=tiers.get("_priority"),
    )


def _rates(
    row: Mapping[str, object],
    suffix: str = "",
    *,
    has_output: bool,
) -> tuple[float, float, float | None, float | None] | None:
    """Returns the rates of `_RATES`; None without a rate of input or output.

    suffix: of a tier or of long requests.
    """
    sent, output, read, written = (_usd(row, f"{name}{suffix}") for name in _RATES)
    if not has_output:
        output = output or 0.0
    return None if sent is None or output is None else (sent, output, read, written)


def _usd(row: Mapping[str, object], name: str) -> float | None:
    """Returns dollars per million tokens, without the multiplication's rounding error."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return round(value * 1e6, 9)


def _tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return int(value)


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None
