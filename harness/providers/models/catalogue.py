"""The catalogue: published facts about models. Unknown prices are None.

`LitellmTable` reads it from the JSON file in litellm's package without importing litellm, which
takes many seconds. The configuration's changes take precedence. A price includes the tiers
`flex` and `priority` and long requests, but not batches. A provider's own prices precede the
catalogue's. This module calls no provider.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    CUSTOM_KIND,
    PROVIDER_KINDS,
    ProviderGroup,
    ProviderKind,
    other_name,
)
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
)
from harness.providers.models.model_ends import EndDates, ModelEnd
from harness.providers.models.model_names import parse_model_name
from harness.providers.models.related_ends import RelatedDates, RelatedEnds
from harness.providers.target import LongPrice, Price, Provider, TierPrice

CONFIGURATION: Final = "swapproof.yaml"  # a source of prices

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
    has: frozenset[str] = (
        frozenset()
    )  # names of ABILITIES, as `lacks`; other abilities are unknown
    lacks: frozenset[str] = frozenset()
    # The first day on which the model may be gone, as the catalogue states it under this very
    # name. `Catalogue.find_end` also knows the ends of related names.
    end_date: date | None = None
    own_family: str = ""  # only if the model's name does not show its family
    price_source: str = ""  # source of the price; empty for the catalogue's source
    end_source: str = ""  # source of `end_date`; empty for the catalogue's source

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

    def apply_to(self, entry: CatalogueEntry) -> CatalogueEntry:
        has = frozenset(name for name, has_ability in self.capabilities.items() if has_ability)
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
            end_source=CONFIGURATION if self.end_date else entry.end_source,
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

    @cached_property
    def _ends(self) -> Mapping[str, RelatedEnds]:
        """The stated ends, by kind."""
        dates: dict[str, dict[str, EndDates]] = {}
        for entry in self:
            dates.setdefault(entry.kind, {})[entry.model] = EndDates(entry.end_date)
        return {kind: RelatedEnds(models) for kind, models in dates.items()}

    def find_end(
        self, kind: str, model: str, today: date, answered: Collection[str] = ()
    ) -> ModelEnd | None:
        """Finds when a model ends by the catalogue, also under a related name; None if the
        catalogue does not tell.

        Args:
            today: in UTC.
            answered: the names that the model's answers report, if known.
        """
        entry = self.find(kind, model)
        if entry is not None and entry.end_date and entry.end_source == CONFIGURATION:
            # The operator's word replaces what the catalogue states.
            return ModelEnd(entry.end_date, CONFIGURATION)
        found = self._find_related(kind, model, today, answered)
        if found is None and kind in GATEWAY_KINDS:
            found = self._find_at_vendor(model, today, answered)
        if found is None or found.dates.ends_on is None:
            return None
        source = (
            f"the model catalogue ({self.source})" if self.source else "the model catalogue"
        )
        return ModelEnd(found.dates.ends_on, f"{source}{found.text}")

    def _find_related(
        self, kind: str, model: str, today: date, answered: Collection[str]
    ) -> RelatedDates | None:
        return self._ends[kind].find(model, today, answered) if kind in self._ends else None

    def _find_at_vendor(
        self, model: str, today: date, answered: Collection[str]
    ) -> RelatedDates | None:
        """Finds the dates of the vendor's model behind a gateway's name, such as
        `openai/gpt-4.1`. Its answers name the model with or without the vendor.
        """
        vendor, _, vendor_model = model.partition("/")
        kind = KINDS.get(vendor) or other_name(vendor)
        names = [name.removeprefix(f"{vendor}/") for name in answered]
        plain = vendor_model.partition(":")[0]
        # OpenRouter writes `claude-sonnet-4.5:beta` for Anthropic's `claude-sonnet-4-5`.
        for spelling in dict.fromkeys((vendor_model, plain, plain.replace(".", "-"))):
            found = self._find_related(kind, spelling, today, names) if spelling else None
            if found is not None:
                return found
        return None

    def has_ended(self, kind: str, model: str, today: date) -> bool:
        """Tells whether the catalogue says that a model may be gone."""
        end = self.find_end(kind, model, today)
        return end is not None and end.day <= today


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
    catalogue: Catalogue,
) -> PriceOrigin:
    """Finds a price's origin. A price that differs from the catalogue's comes from the
    configuration or an older catalogue.
    """
    catalogue_price = entry.price if entry is not None else None
    if entry is None or catalogue_price != price:
        return PriceOrigin("", None, catalogue_price)
    if entry.price_source:
        return PriceOrigin(entry.price_source, None)
    return PriceOrigin(catalogue.source, catalogue.as_of)


def with_catalogue_prices(
    provider: Provider,
    catalogue: Catalogue,
    models: Iterable[str],
) -> Provider:
    """Adds the catalogue's prices for the models without a price at the provider."""
    listed_prices = {
        model: entry.price
        for model in models
        if model not in provider.prices
        and (entry := catalogue.find(provider.kind, model)) is not None
        and entry.price is not None
    }
    return (
        replace(provider, prices={**provider.prices, **listed_prices})
        if listed_prices
        else provider
    )


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

_CAPABILITY_NAMES: Final = {"thinking": "reasoning"}  # a column's name in `Capabilities`

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

    Args:
        own: declared by the operator, or by the table of abilities.
    """
    return {column: _find_ability(column, kind, own, entry, price) for column in COLUMNS}


def _find_ability(
    column: str,
    kind: ProviderKind,
    own: Capabilities,
    entry: CatalogueEntry | None,
    price: Price | None,
) -> Ability:
    capability = _CAPABILITY_NAMES.get(column, column)
    endpoint = _ENDPOINTS.get(column)
    denials = (
        endpoint is not None and endpoint not in kind.serves,
        # Only False is evidence, because True is the default.
        not getattr(own, capability),
        entry is not None and capability in entry.lacks,
    )
    if any(denials):
        return Ability.NO
    has_cache_price = price is not None and price.cached_input_usd_per_mtok is not None
    is_confirmed = entry is not None and capability in entry.has
    # A price for cached input shows that the model has a cache.
    return (
        Ability.YES
        if is_confirmed or (column == "caching" and has_cache_price)
        else Ability.UNKNOWN
    )


def kind_limitations(kind: ProviderKind) -> tuple[str, ...]:
    """Lists limitations of all models of a kind, as phrases for people."""
    limitations = []
    if not kind.serves:
        limitations.append("this router does not call it yet")
    if kind.adapted:
        names = ", ".join(sorted(kind.adapted))
        limitations.append(f"answered by translation: {names}")
    if not kind.name.startswith(("openai", "azure")):
        limitations.append("its own tokenizer: token counts differ from other vendors'")
    if kind.group is ProviderGroup.OAUTH:
        limitations.append("uses a person's account: only if its name is given")
    return tuple(limitations)


FILE: Final = "model_prices_and_context_window_backup.json"

SAMPLE_ROW: Final = "sample_spec"

# Kinds by the table's provider names. Vertex's names may have a further suffix.
KINDS: Final[Mapping[str, str]] = {
    name: kind.name for kind in PROVIDER_KINDS.values() for name in kind.catalogue_names
}

# Kinds whose models may be other vendors' hosted models, under the vendor's name. A server of
# your own may serve a model of such a name too, but no vendor ends it.
GATEWAY_KINDS: Final = frozenset({"openrouter", "litellm", CUSTOM_KIND})

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

# Flags of optional features. Only true is evidence: the table omits many of them.
OPTIONAL_FLAGS: Final[Mapping[str, str]] = {
    "supports_prompt_caching": "caching",
    "supports_reasoning": "reasoning",
}

_FLAGS_OF_YES: Final = (*FLAGS.items(), *OPTIONAL_FLAGS.items())

_FLAGS_OF_NO: Final = tuple(FLAGS.items())

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
    def _catalogue(self) -> Catalogue:
        file = self._file or package_file(FILE)
        if file is None:
            return with_changes(Catalogue(), self._changes)
        return with_changes(_read_table(file, file.stat().st_mtime), self._changes)

    def catalogue(self) -> Catalogue:
        return self._catalogue


@lru_cache(maxsize=1)
def _read_table(file: Path, changed_at: float) -> Catalogue:
    """Reads the file. The cache serves all installations of a process.

    Args:
        changed_at: seconds since 1970, so that a new file is read again.
    """
    rows = json.loads(file.read_text(encoding="utf-8"))
    changed_on = datetime.fromtimestamp(changed_at, UTC).date()
    return build_catalogue(_parse_entries(rows), table_source(), changed_on)


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


def with_changes(catalogue: Catalogue, changes: Iterable[CatalogueChange]) -> Catalogue:
    """Returns the catalogue with the configuration's changes, which may add models."""
    entries = dict(catalogue.entries)
    for change in changes:
        key = (change.kind, change.model)
        entries[key] = change.apply_to(entries.get(key, CatalogueEntry(*key)))
    return replace(catalogue, entries=entries)


def _parse_entries(rows: Mapping[str, Mapping[str, object]]) -> Iterator[CatalogueEntry]:
    """Yields the entries of litellm's table that a kind can use."""
    # Names with a provider come last: they are more specific, and a later entry replaces an
    # earlier one.
    for key in sorted(rows, key=lambda row: ("/" in row, row)):
        if key != SAMPLE_ROW and (entry := _parse_entry(key, rows[key])) is not None:
            yield entry


def _parse_entry(key: str, row: Mapping[str, object]) -> CatalogueEntry | None:
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
    own_ability, missing_abilities = mode
    has = frozenset(
        [own_ability, *(ability for flag, ability in _FLAGS_OF_YES if row.get(flag) is True)]
    )
    denied_abilities = [ability for flag, ability in _FLAGS_OF_NO if row.get(flag) is False]
    return CatalogueEntry(
        kind=kind,
        model=model,
        price=_parse_price(kind, own_ability, row),
        context_window=_parse_tokens(row.get("max_input_tokens")),
        has=has,
        lacks=missing_abilities.union(denied_abilities) - has,
        end_date=_parse_date(row.get("deprecation_date")),
    )


# Columns of input, output, cached input and written input. A tier's columns end in its name.
_RATE_COLUMNS: Final = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
_TIERS: Final = ("", "_flex", "_priority")
_LONG_COLUMN: Final = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


def _parse_price(
    kind: str,
    ability: str,
    row: Mapping[str, object],
) -> Price | None:
    """Builds a price from a row; None if input or output has no price."""
    is_local = PROVIDER_KINDS[kind].group is ProviderGroup.LOCAL
    has_output = ability != "embeddings"  # a vector has no output tokens
    rates = _parse_rates(row, has_output=has_output)
    # For models that are not local, 0 in the table stands for an unknown price.
    if rates is None or (rates[0] == rates[1] == 0 and not is_local):
        return None
    thousands = [int(match[1]) for name in row if (match := _LONG_COLUMN.fullmatch(name))]
    if len(thousands) > 1:
        # A price has one long range. For a row with several ranges, it would be wrong in the
        # others.
        return None
    threshold_thousands = thousands[0] if thousands else 0
    tiers: dict[str, TierPrice] = {}
    for suffix in _TIERS:
        tier_rates = rates if not suffix else _parse_rates(row, suffix, has_output=has_output)
        long_rates = _parse_rates(
            row, f"_above_{threshold_thousands}k_tokens{suffix}", has_output=has_output
        )
        long = (
            LongPrice(*long_rates, above_tokens=threshold_thousands * 1000)
            if threshold_thousands and long_rates is not None
            else None
        )
        # A tier without a rate for cached input has no known price: the plain rate does not
        # apply to it.
        if tier_rates is not None and (tier_rates[2] is not None or rates[2] is None):
            tiers[suffix] = TierPrice(*tier_rates, long=long)
    plain = tiers[""]
    if threshold_thousands and plain.long is None:
        return None
    return Price(
        *rates,
        long=plain.long,
        flex=tiers.get("_flex"),
        priority=tiers.get("_priority"),
    )


def _parse_rates(
    row: Mapping[str, object],
    suffix: str = "",
    *,
    has_output: bool,
) -> tuple[float, float, float | None, float | None] | None:
    """Returns the rates of `_RATE_COLUMNS`; None without a rate of input or output.

    Args:
        suffix: of the columns of a tier or of long requests.
    """
    input_rate, output_rate, cached_rate, written_rate = (
        _usd_per_mtok(row, f"{name}{suffix}") for name in _RATE_COLUMNS
    )
    if not has_output:
        output_rate = output_rate or 0.0
    return (
        None
        if input_rate is None or output_rate is None
        else (input_rate, output_rate, cached_rate, written_rate)
    )


def _usd_per_mtok(row: Mapping[str, object], name: str) -> float | None:
    """Returns a column's dollars per million tokens, without rounding errors; None without a
    price.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return round(value * 1e6, 9)


def _parse_tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return int(value)


def _parse_date(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None
