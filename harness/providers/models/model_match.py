"""Finds the model that a name means among the providers' offers. The lists of providers are
untrusted: the module ignores unusual names. Pure.

A name may omit provider, version or date. It then means the newest model of the one family that
has all its words. The module never replaces a named version by another. `name_resolution`
chooses the provider, and `model_names` parses names.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from difflib import SequenceMatcher
from typing import Final

from harness.frame.errors import InputError
from harness.frame.plain_data import CamelCase
from harness.providers.calls.probe import MAX_REPLY_BYTES, listed_name
from harness.providers.kinds import (
    LOCAL_KEYWORDS,
    PROVIDER_KINDS,
    ProviderGroup,
)
from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.listed_ends import (
    LISTABLE_NAME,
    find_unknown_fields,
    parse_listed_end,
    tells_end,
)
from harness.providers.models.model_ends import NO_DATES, EndDates
from harness.providers.models.model_names import (
    ModelName,
    count_other_words,
    parse_model_name,
)
from harness.providers.target import Price, Provider, Target

MAX_MODELS: Final = 5_000
UNLISTED_KEPT_FOR: Final = timedelta(days=90)  # how long Swapproof keeps an unlisted model
# Names of the context window's size at OpenRouter and Together, vLLM, Groq, Mistral and LM
# Studio, and Google, in this order.
_WINDOW_FIELDS: Final = (
    "context_length",
    "max_model_len",
    "context_window",
    "max_context_length",
    "inputTokenLimit",
)
LARGEST_WINDOW: Final = 1_000_000_000
_LONGEST_NUMBER: Final = 40
_MOST_USD_PER_MTOK: Final = 1_000_000.0


@dataclass(frozen=True, slots=True)
class DiscoveredModel(CamelCase):
    """A model in a provider's list, with the facts that the list has."""

    provider: str
    model: str
    source: str  # the provider's address that listed it
    found_at: datetime
    context_window: int | None = None  # tokens
    price: Price | None = None
    listed_since: datetime | None = None  # when it was first listed; None means `found_at`
    gone_at: datetime | None = None  # the first list without it; None while it is listed
    ends: EndDates = NO_DATES  # as the list states them
    # Whether its entry has a field for the end, also an empty one, and no field that may be an
    # unknown form of one: then a model without an end has no announced end.
    tells_ends: bool = False


@dataclass(frozen=True, slots=True)
class DiscoveredList(CamelCase):
    """A provider's list as it was read once."""

    models: tuple[DiscoveredModel, ...]  # by name
    left_out: int  # entries without a usable name


def parse_listed_models(
    content: bytes,
    provider: Provider,
    found_at: datetime,
) -> DiscoveredList:
    """Parses a list in the form of OpenAI, Anthropic, Google or Together. Raises InputError."""
    entries = _parse_entries(content)
    if len(entries) > MAX_MODELS:
        raise InputError(f"it lists {len(entries)} models, more than {MAX_MODELS}")
    models: dict[str, DiscoveredModel] = {}
    left_out = 0
    for entry in entries:
        name = _parse_name(entry)
        if not name or not isinstance(entry, Mapping):
            left_out += 1
            continue
        source = provider.api_base
        window = _parse_window(entry)
        price = _parse_price(entry)
        model = DiscoveredModel(
            provider.name,
            name,
            source,
            found_at,
            window,
            price,
            found_at,
            ends=parse_listed_end(entry),
            tells_ends=tells_end(entry) and not find_unknown_fields([entry]),
        )
        models.setdefault(name, model)
    return DiscoveredList(tuple(model for _, model in sorted(models.items())), left_out)


def merge_lists(
    known: Sequence[DiscoveredModel], listed: Sequence[DiscoveredModel]
) -> Sequence[DiscoveredModel]:
    """Merges lists. Keeps each model's first date, and a missing model for UNLISTED_KEPT_FOR.

    Args:
        known: stored models, also unlisted ones.
        listed: the provider's new list. An empty list has no time, so each missing model counts
            as gone since its last sighting.
    """
    names = {model.model for model in listed}
    sources = {model.source for model in listed}
    now = max((model.found_at for model in listed), default=None)
    since = {model.model: model.listed_since for model in known if not model.gone_at}
    unlisted = [
        replace(model, gone_at=model.gone_at or now or model.found_at)
        for model in known
        if model.model not in names and (not sources or model.source in sources)
    ]
    still_listed = [
        replace(model, listed_since=since.get(model.model) or model.found_at)
        for model in listed
    ]
    return [
        *still_listed,
        *(
            model_without
            for model_without in unlisted
            if not now or now - (model_without.gone_at or now) < UNLISTED_KEPT_FOR
        ),
    ]


def _parse_entries(content: bytes) -> Sequence[object]:
    """Returns the entries of a list. Raises InputError for another document, and for a list so
    long that it may be incomplete.
    """
    if len(content) >= MAX_REPLY_BYTES:
        raise InputError(f"its list is larger than {MAX_REPLY_BYTES // 2**20} MiB")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("its answer is not JSON") from None
    if isinstance(document, Mapping):
        lists = (document.get(field) for field in ("data", "models"))
        lists_of_models = [entries for entries in lists if isinstance(entries, list)]
        document = max(lists_of_models, key=bool, default=None)  # the first that is not empty
    if not isinstance(document, list):
        raise InputError("its answer is not a list of models")
    return document


def _parse_name(entry: object) -> str:
    """Returns an entry's name; empty for a name that people could confuse or not type."""
    name = listed_name(entry)
    return name if isinstance(name, str) and LISTABLE_NAME.fullmatch(name) else ""


def _parse_window(entry: Mapping[str, object]) -> int | None:
    """Returns an entry's context window in tokens; None without a plausible number."""
    meta = entry.get("meta")
    slot_window = meta.get("n_ctx") if isinstance(meta, Mapping) else None  # llama.cpp
    for value in (slot_window, *map(entry.get, _WINDOW_FIELDS)):
        if type(value) is int and 0 < value <= LARGEST_WINDOW:
            return value
    return None


def _parse_price(entry: Mapping[str, object]) -> Price | None:
    """Parses OpenRouter's prices, in US dollars per token. A negative price varies from request
    to request, so it counts as unknown.
    """
    pricing = entry.get("pricing")
    if not isinstance(pricing, Mapping):
        return None
    names = ("prompt", "completion", "input_cache_read", "input_cache_write")
    input_usd, output_usd, cached_usd, written_usd = (
        _usd_per_mtok(pricing.get(name)) for name in names
    )
    if input_usd is None or output_usd is None:
        return None
    return Price(input_usd, output_usd, cached_usd, written_usd)


def _usd_per_mtok(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        return None
    try:
        usd = round(float(value) * 1e6, 9)
    except (ValueError, OverflowError):
        return None
    return usd if math.isfinite(usd) and 0 <= usd <= _MOST_USD_PER_MTOK else None


Words = frozenset[str]

HOSTED, _LOCAL = (
    frozenset(name for name, kind in PROVIDER_KINDS.items() if kind.group is group)
    for group in (ProviderGroup.HOSTED, ProviderGroup.LOCAL)
)
NO_OFFER: Final = (
    "no configured provider offers a model: `swapproof provider add` adds a provider"
)
MOST_NAMED: Final = 5
# Words that name a vendor, not a family.
VENDOR_WORDS: Final[frozenset[Words]] = frozenset(
    frozenset(parse_model_name(word).words)
    for kind in PROVIDER_KINDS.values()
    for word in kind.keywords
)
_LOCAL_WORDS: Final[frozenset[Words]] = frozenset(
    frozenset(parse_model_name(word).words) for word in LOCAL_KEYWORDS
)


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model that a configured provider may serve."""

    provider: str
    kind: str
    model: str
    entry: CatalogueEntry | None = None
    listed: bool | None = None  # whether the provider lists it; None if its list is unknown
    catalogue: Catalogue = field(default=Catalogue(), repr=False, compare=False)  # of the ends

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def ended(self, today: date) -> bool:
        """Tells whether the model is gone. The provider's list decides; without a list, the
        announced end does.
        """
        if self.listed is not None:
            return not self.listed
        return self.catalogue.has_ended(self.kind, self.model, today)


_ParsedOffer = tuple[ModelOffer, ModelName]


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """The result of a search: one model, several that fit equally well, or near misses."""

    reason: str  # for people
    found: ModelOffer | None = None
    candidates: tuple[
        ModelOffer, ...
    ] = ()  # offers of different families that fit equally well
    near: tuple[str, ...] = ()  # other versions of the family, if it lacks this version


def list_offers(
    providers: Mapping[str, Provider],
    catalogue: Catalogue,
    targets: Iterable[Target],
    listed: Iterable[DiscoveredModel] = (),
) -> tuple[ModelOffer, ...]:
    """Lists the models that the configured providers may serve, by provider and name.

    A provider's models come from its list, or without a list from the catalogue. Models in the
    configuration and in registered targets always belong to them. The function omits kinds with
    a person's account, because only a full name may choose such an account.
    """
    listed_models = {(model.provider, model.model): model for model in listed}
    named_models: dict[str, set[str]] = {}
    for owner, model in (
        *((target.provider, target.model) for target in targets),
        *listed_models,
    ):
        named_models.setdefault(owner, set()).add(model)
    has_list = {owner for owner, _ in listed_models}
    found = []
    for name, provider in sorted(providers.items()):
        kind = PROVIDER_KINDS.get(provider.kind)
        if kind is not None and kind.group is ProviderGroup.OAUTH:
            continue
        catalogue_models: set[str] = set()
        if name not in has_list:
            catalogue_models = {
                catalogue_entry.model
                for catalogue_entry in catalogue
                if catalogue_entry.kind == provider.kind
                and ":" not in catalogue_entry.model[:4]
            }
        configured_models = {
            *provider.models,
            *provider.prices,
            *named_models.get(name, ()),
        }
        for model in sorted(catalogue_models | configured_models):
            entry = catalogue.find(provider.kind, model)
            own_entry = listed_models.get((name, model))
            # The provider's list has facts about models that the catalogue does not know.
            if entry is None and own_entry is not None:
                window = own_entry.context_window
                entry = CatalogueEntry(provider.kind, model, own_entry.price, window)
            is_listed = own_entry is not None if name in has_list else None
            found.append(ModelOffer(name, provider.kind, model, entry, is_listed, catalogue))
    return tuple(found)


def providers_with_known_models(offers: Iterable[ModelOffer]) -> frozenset[str]:
    """Returns the providers with known models. Swapproof refuses other names at these
    providers.
    """
    return frozenset(
        offer.provider
        for offer in offers
        if offer.listed or (offer.entry and offer.kind in HOSTED)
    )


def match_among(
    name: str,
    offers: Sequence[ModelOffer],
    *,
    today: date,
) -> ModelMatch:
    """Finds the model that a name means. Models that have ended by `today` come last."""
    if not offers or not name.strip():
        return ModelMatch("the name is empty" if offers else NO_OFFER)
    text, matching = _split_provider(name.strip(), offers)
    lower = text.lower()
    if not matching:
        return ModelMatch(f"no configured provider is called {_split_vendor(text)!r}")
    if exact := _exact_matches(lower, matching):
        return ModelMatch("it is a model's exact name", min(exact, key=_preference))
    wanted_name = parse_model_name(text)
    words = frozenset(wanted_name.words)
    if not any(
        (words, wanted_name.version, wanted_name.date, wanted_name.preview, wanted_name.latest)
    ):
        matching = []  # a name such as `b/`, to which every model would be similar
    parsed = _prefer_local(
        words, wanted_name, [(offer, _parse_offer(offer)) for offer in matching]
    )
    is_vendor_only = words in VENDOR_WORDS
    best = _with_words(words, parsed) if is_vendor_only else _best_families(words, parsed)
    if not best:
        return ModelMatch("no model has these words in its name")
    fits = _with_version(best, wanted_name)
    if not fits:
        # Another size of the model may have the version that these families lack.
        fits = _best_families(words, _with_version(_all_sizes(words, parsed), wanted_name))
    if not fits:
        families = ", ".join(sorted({parsed_name.family for _, parsed_name in best}))
        reason = f"{families} has no such version, and Swapproof never replaces a named version"
        ranked = sorted(best, key=lambda pair: (pair[1].rank, pair[0].name), reverse=True)
        return ModelMatch(reason, near=tuple(offer.name for offer, _ in ranked[:MOST_NAMED]))
    if is_vendor_only and (wanted_name.version or wanted_name.date):
        fits = _best_families(words, fits)
    if not (wanted_name.version or wanted_name.date):
        fits = [(o, n) for o, n in fits if not o.ended(today)] or fits
    return _choose_newest(fits, wanted_name)


def is_short_for(name: str, full: str) -> bool:
    """Tells whether `full` has all parts of `name`, and `name` is not only numbers."""
    parts = name_parts(name)
    return parts <= name_parts(full) and not all(map(str.isdecimal, parts))


def name_parts(name: str) -> frozenset[str]:
    """Splits a name into its words and numbers, in lower case."""
    return frozenset(re.findall(r"[a-z]+|[0-9]+", name.lower()))


def list_nearest(name: str, names: Iterable[str]) -> list[str]:
    """Sorts the other names by shared parts, then similar letters, then the later version."""
    parts = name_parts(name)
    letters = SequenceMatcher(b=name.lower(), autojunk=False)

    def similarity(other: str) -> tuple[int, float]:
        letters.set_seq1(other.lower())
        return len(parts & name_parts(other)), letters.ratio()

    others = sorted({other for other in names if other != name}, reverse=True)
    return sorted(others, key=similarity, reverse=True)


def _choose_newest(parsed: Sequence[_ParsedOffer], wanted: ModelName) -> ModelMatch:
    """Chooses the newest model if one family fits; else returns all families as candidates."""
    families: dict[Words, list[_ParsedOffer]] = {}
    for offer, name in parsed:
        families.setdefault(frozenset(name.words), []).append((offer, name))
    newest = [_newest_of_family(family, wanted) for family in families.values()]
    if len(newest) == 1:
        (found,) = newest
        description = "that version" if wanted.version or wanted.date else "the newest"
        return ModelMatch(f"{description} of the family {_parse_offer(found).family}", found)
    newest.sort(key=lambda offer: offer.name)
    reason = f"{len(newest)} families fit equally well: name one of them"
    return ModelMatch(reason, candidates=tuple(newest))


def _newest_of_family(parsed: Sequence[_ParsedOffer], wanted: ModelName) -> ModelOffer:
    """Returns the newest model of a family. Between equal models, `_preference` decides."""
    aliases = [reading for reading in parsed if reading[1].latest] if wanted.latest else []
    candidates = aliases or parsed
    top = max((not name.preview, name.version) for _, name in candidates)
    candidates = [
        (o, name) for o, name in candidates if (not name.preview, name.version) == top
    ]
    by_provider: dict[str, list[_ParsedOffer]] = {}
    for model_offer, name in candidates:
        by_provider.setdefault(model_offer.provider, []).append((model_offer, name))
    newest_by_provider = [
        max(
            sorted(offers, key=lambda pair: _preference(pair[0])),
            key=lambda pair: pair[1].rank,
        )
        for offers in by_provider.values()
    ]
    # At another provider, a name without a date may be the same model as the newest date.
    same_dates = (0, max(name.date for _, name in candidates))
    return min(
        (model_offer for model_offer, name in newest_by_provider if name.date in same_dates),
        key=_preference,
    )


def _with_version(parsed: Sequence[_ParsedOffer], wanted: ModelName) -> Sequence[_ParsedOffer]:
    return [(offer, name) for offer, name in parsed if _has_version(name, wanted)]


def _has_version(name: ModelName, wanted: ModelName) -> bool:
    """Tells whether a model has the version, date and preview mark of the wanted name."""
    same_version = not wanted.version or name.version == wanted.version
    same_date = not wanted.date or name.date == wanted.date
    return same_version and same_date and (name.preview or not wanted.preview)


def _with_words(words: Words, parsed: Sequence[_ParsedOffer]) -> Sequence[_ParsedOffer]:
    """Keeps the offers whose family has all the words."""
    return [(offer, name) for offer, name in parsed if words <= frozenset(name.words)]


def _best_families(words: Words, parsed: Sequence[_ParsedOffer]) -> Sequence[_ParsedOffer]:
    """Keeps the offers whose family has all the words and the fewest other words."""
    counted = [
        (count_other_words(frozenset(name.words), words), offer, name)
        for offer, name in _with_words(words, parsed)
    ]
    fewest = min((count for count, _, _ in counted), default=None)
    return [(offer, name) for count, offer, name in counted if count == fewest]


def _all_sizes(words: Words, parsed: Sequence[_ParsedOffer]) -> Sequence[_ParsedOffer]:
    return [
        (offer, name)
        for offer, name in _with_words(words, parsed)
        if count_other_words(frozenset(name.words), words)[0] == 0
    ]


def _prefer_local(
    words: Words,
    wanted: ModelName,
    parsed: Sequence[_ParsedOffer],
) -> Sequence[_ParsedOffer]:
    """Keeps only the offers of local providers, if the words are a local keyword and a local
    offer fits.
    """
    if words not in _LOCAL_WORDS:
        return parsed
    local = [(offer, name) for offer, name in parsed if offer.kind in _LOCAL]
    return local if _with_version(_with_words(words, local), wanted) else parsed


def _exact_matches(lower: str, offers: Sequence[ModelOffer]) -> Sequence[ModelOffer]:
    """Returns the offers with this name, or else the offers with this name after a vendor."""
    exact = [offer for offer in offers if lower in (offer.model.lower(), offer.name.lower())]
    return exact or [
        offer for offer in offers if lower == offer.model.lower().rpartition("/")[2]
    ]


def _split_provider(
    text: str, offers: Sequence[ModelOffer]
) -> tuple[str, Sequence[ModelOffer]]:
    """Splits off a provider, kind or vendor in front, by `/`, `:` or a space."""
    for separator in "/: ":
        head, _, rest = text.partition(separator)
        own_offers = [
            offer for offer in offers if head.lower() in (offer.provider.lower(), offer.kind)
        ]
        # A family may begin with its vendor: "mistral large".
        is_family = separator == " " and any(
            head.lower() in _parse_offer(offer).words for offer in own_offers
        )
        if rest.strip() and own_offers and not is_family:
            return rest.strip(), own_offers
    if not (front := _split_vendor(text)):
        return text, offers
    # The first part stays, because it may name a vendor at a gateway.
    vendor_offers = [offer for offer in offers if offer.model.lower().startswith(f"{front}/")]
    if not vendor_offers and front == "models":  # as Google writes its ids
        return text[len("models/") :], [offer for offer in offers if offer.kind == "gemini"]
    return text, vendor_offers


def _split_vendor(text: str) -> str:
    """Returns the kind or vendor before a colon or slash, in lower case; empty without one."""
    kind, colon, _ = text.lower().partition(":")
    if colon and kind in PROVIDER_KINDS:
        return kind
    vendor, slash, _ = text.lower().partition("/")
    return vendor if slash else ""


def _parse_offer(offer: ModelOffer) -> ModelName:
    """Parses an offer's name, with the family that the configuration gives it."""
    name = parse_model_name(offer.model)
    if offer.entry is None or not offer.entry.own_family:
        return name
    words = tuple(offer.entry.own_family.lower().split("-"))
    return ModelName(words, name.version, name.date, name.preview, name.latest)


def _preference(offer: ModelOffer) -> tuple[bool, str, int, str]:
    """Orders equal offers: the model's maker, the provider's name, then the shortest id."""
    kind = PROVIDER_KINDS.get(offer.kind)
    lower = offer.model.rpartition("/")[2].lower()
    local_keywords = LOCAL_KEYWORDS if offer.kind in _LOCAL else ()
    is_maker = kind is not None and lower.startswith((*kind.keywords, *local_keywords))
    return not is_maker, offer.provider, len(offer.model), offer.model
