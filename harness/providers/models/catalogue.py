"""The catalogue: facts about models before they are called. Unknown prices are None. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from enum import StrEnum
from typing import Final

from harness.providers.kinds import ProviderGroup, ProviderKind
from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities, Endpoint
from harness.providers.models.model_names import parse_model_name
from harness.providers.target import Price, Provider

CONFIGURATION: Final = "swapgate.yaml"  # a source of prices
ABILITIES: Final = tuple(
    ability.name for ability in fields(Capabilities) if isinstance(ability.default, bool)
)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
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
        if not self.lacks and self.context_window is None:
            return UNKNOWN_CAPABILITIES
        absent = dict.fromkeys(sorted(self.lacks), False)
        return Capabilities(context_window=self.context_window, **absent)

    def ended(self, today: date) -> bool:
        return self.end_date is not None and self.end_date <= today


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    kind: str
    model: str
    family: str | None = None
    price: Price | None = None
    context_window: int | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    end_date: date | None = None

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
    entries: Mapping[tuple[str, str], CatalogueEntry] = field(default_factory=dict)
    source: str = ""  # source of its entries, such as `litellm 1.106.2`
    as_of: date | None = None  # since when this machine has that source

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, kind: str, model: str) -> CatalogueEntry | None:
        return self.entries.get((kind, model))


def build_catalogue(
    entries: Iterable[CatalogueEntry], source: str = "", as_of: date | None = None
) -> Catalogue:
    """Builds a catalogue. The later of two entries for a model counts."""
    by_model = {(entry.kind, entry.model): entry for entry in entries}
    return Catalogue(by_model, source, as_of)


@dataclass(frozen=True, slots=True)
class PriceOrigin:
    source: str  # empty if the price was set at the provider
    as_of: date | None  # since when this machine has that source; None if unknown
    current: Price | None = None  # the catalogue's present price, if it differs


def find_price_origin(
    price: Price, entry: CatalogueEntry | None, known: Catalogue
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
    provider: Provider, known: Catalogue, models: Iterable[str]
) -> Provider:
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
_ENDPOINTS: Final = {"chat": Endpoint.CHAT, "embeddings": Endpoint.EMBEDDINGS}


class Ability(StrEnum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def model_abilities(
    kind: ProviderKind, own: Capabilities, entry: CatalogueEntry | None, price: Price | None
) -> Mapping[str, Ability]:
    """Returns a model's abilities by column. One source that denies an ability suffices."""
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
        # In the registry, only False counts, because True is the default.
        not getattr(own, ability),
        ability in kind.lacks,
        entry is not None and ability in entry.lacks,
    )
    if any(lacking):
        return Ability.NO
    priced = price is not None and price.cached_input_usd_per_mtok is not None
    has = entry is not None and ability in entry.has
    # A price for cached input shows that the model has a cache.
    return Ability.YES if has or (name == "caching" and priced) else Ability.UNKNOWN


def kind_limitations(kind: ProviderKind) -> tuple[str, ...]:
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
