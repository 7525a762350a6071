"""Finds the model that a name means among the providers' offers. The lists of providers are
untrusted: unusual names are left out. Pure.

A name may leave out provider, version or date; the newest model of the one family that has all
its words is meant. A named version is never replaced by another. Which provider takes a name is
decided by `name_resolution`; names are parsed by `model_names`.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from difflib import SequenceMatcher
from typing import Final

from harness.frame.errors import InputError
from harness.frame.plain_data import CamelCase
from harness.providers.calls.probe import MAX_REPLY_BYTES, listed_name
from harness.providers.kinds import LOCAL_KEYWORDS, PROVIDER_KINDS, ProviderGroup
from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.model_names import ModelName, count_other_words, parse_model_name
from harness.providers.target import Price, Provider, Target

MAX_MODELS: Final = 5_000
GONE_KEPT: Final = timedelta(days=90)  # how long Swapgate keeps an unlisted model
# ASCII only, because other letters can look alike, and people approve names by sight.
_NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
# Names of the context window's size at OpenRouter and Together, vLLM, Groq, Mistral and LM
# Studio, and Google, in this order.
_WINDOWS: Final = (
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


@dataclass(frozen=True, slots=True)
class DiscoveredList(CamelCase):
    """A provider's list as it was read once."""

    models: tuple[DiscoveredModel, ...]  # by name
    left_out: int  # entries without a usable name


def parse_listed_models(
    content: bytes, provider: Provider, found_at: datetime
) -> DiscoveredList:
    """Parses a list in the form of OpenAI, Anthropic, Google or Together. Raises InputError."""
    entries = _entries(content)
    if len(entries) > MAX_MODELS:
        raise InputError(f"it lists {len(entries)} models, more than {MAX_MODELS}")
    models: dict[str, DiscoveredModel] = {}
    left_out = 0
    for entry in entries:
        name = _name(entry)
        if not name or not isinstance(entry, Mapping):
            left_out += 1
            continue
        place, window, price = provider.api_base, _window(entry), _price(entry)
        model = DiscoveredModel(provider.name, name, place, found_at, window, price, found_at)
        models.setdefault(name, model)
    return DiscoveredList(tuple(model for _, model in sorted(models.items())), left_out)


def merge_lists(
    known: Sequence[DiscoveredModel], listed: Sequence[DiscoveredModel]
) -> Sequence[DiscoveredModel]:
    """Merges lists. Keeps each model's first date, and a missing model for GONE_KEPT.

    known: stored models, also unlisted ones. listed: the provider's new list; of an empty list
    the time is unknown, and each missing model is gone since it was last found.
    """
    names = {model.model for model in listed}
    sources = {model.source for model in listed}
    now = max((model.found_at for model in listed), default=None)
    since = {model.model: model.listed_since for model in known if not model.gone_at}
    gone = [
        replace(model, gone_at=model.gone_at or now or model.found_at)
        for model in known
        if model.model not in names and (not sources or model.source in sources)
    ]
    first = [
        replace(model, listed_since=since.get(model.model) or model.found_at)
        for model in listed
    ]
    return [*first, *(old for old in gone if not now or now - (old.gone_at or now) < GONE_KEPT)]


def _entries(content: bytes) -> Sequence[object]:
    """Returns the entries of a list. Raises InputError for another document, or a list that may
    be cut.
    """
    if len(content) >= MAX_REPLY_BYTES:
        raise InputError(f"its list is larger than {MAX_REPLY_BYTES // 2**20} MiB")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("its answer is not JSON") from None
    if isinstance(document, Mapping):
        lists = (document.get(field) for field in ("data", "models"))
        found = [entries for entries in lists if isinstance(entries, list)]
        document = max(found, key=bool, default=None)  # the first that is not empty
    if not isinstance(document, list):
        raise InputError("its answer is not a list of models")
    return document


def _name(entry: object) -> str:
    """Returns an entry's name; empty for a name that people could mistake or not type."""
    name = listed_name(entry)
    return name if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _window(entry: Mapping[str, object]) -> int | None:
    """Returns an entry's context window in tokens; None without a plausible number."""
    meta = entry.get("meta")
    of_a_slot = meta.get("n_ctx") if isinstance(meta, Mapping) else None  # llama.cpp
    for value in (of_a_slot, *map(entry.get, _WINDOWS)):
        if type(value) is int and 0 < value <= LARGEST_WINDOW:
            return value
    return None


def _price(entry: Mapping[str, object]) -> Price | None:
    """Parses OpenRouter's prices, in US dollars per token. A negative price means that it
    varies, so it is unknown.
    """
    pricing = entry.get("pricing")
    if not isinstance(pricing, Mapping):
        return None
    names = ("prompt", "completion", "input_cache_read", "input_cache_write")
    given, taken, read, written = (_usd_per_mtok(pricing.get(name)) for name in names)
    if given is None or taken is None:
        return None
    return Price(given, taken, read, written)


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
NOTHING_OFFERED: Final = (
    "no configured provider offers a model: `swapgate provider add` adds a provider"
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

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def ended(self, today: date) -> bool:
        """Tells whether it is gone: its provider's list lacks it, or without a list, its
        announced end has passed.
        """
        if self.listed is not None:
            return not self.listed
        return self.entry is not None and self.entry.ended(today)


_Read = tuple[ModelOffer, ModelName]


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
    known: Catalogue,
    targets: Iterable[Target],
    listed: Iterable[DiscoveredModel] = (),
) -> tuple[ModelOffer, ...]:
    """Lists the models that the configured providers may serve, by provider and name.

    A provider's models are those that it lists, or without its list those of the catalogue,
    and always those that the configuration or a registered target names. Kinds with a person's
    account are left out: only their full name means them.
    """
    own_word = {(model.provider, model.model): model for model in listed}
    used: dict[str, set[str]] = {}
    for owner, model in (*((target.provider, target.model) for target in targets), *own_word):
        used.setdefault(owner, set()).add(model)
    has_list = {owner for owner, _ in own_word}
    found = []
    for name, provider in sorted(providers.items()):
        kind = PROVIDER_KINDS.get(provider.kind)
        if kind is not None and kind.group is ProviderGroup.OAUTH:
            continue
        of_kind: set[str] = set()
        if name not in has_list:
            of_kind = {
                e.model for e in known if e.kind == provider.kind and ":" not in e.model[:4]
            }
        own = {*provider.models, *provider.prices, *used.get(name, ())}
        for model in sorted(of_kind | own):
            entry = known.find(provider.kind, model)
            own_entry = own_word.get((name, model))
            # For a model that the catalogue does not know, uses the provider's own entry.
            if entry is None and own_entry is not None:
                window = own_entry.context_window
                entry = CatalogueEntry(provider.kind, model, own_entry.price, window)
            is_listed = own_entry is not None if name in has_list else None
            found.append(ModelOffer(name, provider.kind, model, entry, is_listed))
    return tuple(found)


def know_models(offers: Iterable[ModelOffer]) -> frozenset[str]:
    """Returns the providers whose models are known. Other names at them are refused."""
    return frozenset(
        offer.provider
        for offer in offers
        if offer.listed or (offer.entry and offer.kind in HOSTED)
    )


def match_among(given: str, among: Sequence[ModelOffer], *, today: date) -> ModelMatch:
    """Finds the model that a name means. Models that have ended by `today` come last."""
    if not among or not given.strip():
        return ModelMatch("the name is empty" if among else NOTHING_OFFERED)
    text, here = _at_provider(given.strip(), among)
    low = text.lower()
    if not here:
        return ModelMatch(f"no configured provider is called {_front(text)!r}")
    if exact := _exact(low, here):
        return ModelMatch("it is a model's exact name", min(exact, key=_preference))
    wanted = parse_model_name(text)
    words = frozenset(wanted.words)
    if not any((words, wanted.version, wanted.date, wanted.preview, wanted.latest)):
        here = []  # a name such as `b/`, to which every model would be similar
    read = _of_local_kinds(words, wanted, [(offer, _named(offer)) for offer in here])
    bare = words in VENDOR_WORDS
    best = _having(words, read) if bare else _best_families(words, read)
    if not best:
        return ModelMatch("no model has these words in its name")
    fitting = _meant(best, wanted)
    if not fitting:
        # Another size may have the version that these families lack.
        fitting = _best_families(words, _meant(_sizes(words, read), wanted))
    if not fitting:
        families = ", ".join(sorted({name.family for _, name in best}))
        said = f"{families} has no such version, and Swapgate never replaces a named version"
        ranked = sorted(best, key=lambda one: (one[1].rank, one[0].name), reverse=True)
        return ModelMatch(said, near=tuple(offer.name for offer, _ in ranked[:MOST_NAMED]))
    if bare and (wanted.version or wanted.date):
        fitting = _best_families(words, fitting)
    if not (wanted.version or wanted.date):
        fitting = [(o, n) for o, n in fitting if not o.ended(today)] or fitting
    return _decided(fitting, wanted)


def is_short_for(name: str, full: str) -> bool:
    """Tells whether `full` has all parts of `name`, and `name` is not only numbers."""
    parts = name_parts(name)
    return parts <= name_parts(full) and not all(map(str.isdecimal, parts))


def name_parts(name: str) -> frozenset[str]:
    """Splits a name into its words and numbers, in lower case."""
    return frozenset(re.findall(r"[a-z]+|[0-9]+", name.lower()))


def list_nearest(name: str, among: Iterable[str]) -> list[str]:
    """Sorts the other names by shared parts, then similar letters, then the later version."""
    parts, letters = name_parts(name), SequenceMatcher(b=name.lower(), autojunk=False)

    def likeness(other: str) -> tuple[int, float]:
        letters.set_seq1(other.lower())
        return len(parts & name_parts(other)), letters.ratio()

    others = sorted({other for other in among if other != name}, reverse=True)
    return sorted(others, key=likeness, reverse=True)


def _decided(fitting: Sequence[_Read], wanted: ModelName) -> ModelMatch:
    """Chooses the newest model if one family fits; otherwise all families are candidates."""
    families: dict[Words, list[_Read]] = {}
    for offer, name in fitting:
        families.setdefault(frozenset(name.words), []).append((offer, name))
    newest = [_newest(family, wanted) for family in families.values()]
    if len(newest) == 1:
        (found,) = newest
        how = "that version" if wanted.version or wanted.date else "the newest"
        return ModelMatch(f"{how} of the family {_named(found).family}", found)
    newest.sort(key=lambda offer: offer.name)
    said = f"{len(newest)} families fit equally well: name one of them"
    return ModelMatch(said, candidates=tuple(newest))


def _newest(several: Sequence[_Read], wanted: ModelName) -> ModelOffer:
    """Returns the newest model of a family; of equal ones the preferred (`_preference`)."""
    moving = [reading for reading in several if reading[1].latest] if wanted.latest else []
    pool = moving or several
    top = max((not name.preview, name.version) for _, name in pool)
    pool = [(o, name) for o, name in pool if (not name.preview, name.version) == top]
    by_provider: dict[str, list[_Read]] = {}
    for offer, name in pool:
        by_provider.setdefault(offer.provider, []).append((offer, name))
    bests = [
        max(sorted(own, key=lambda one: _preference(one[0])), key=lambda one: one[1].rank)
        for own in by_provider.values()
    ]
    # At another provider, a name without a date may mean the same model as the newest date.
    same = (0, max(name.date for _, name in pool))
    return min((offer for offer, name in bests if name.date in same), key=_preference)


def _meant(read: Sequence[_Read], wanted: ModelName) -> Sequence[_Read]:
    return [(offer, name) for offer, name in read if _is_meant(name, wanted)]


def _is_meant(name: ModelName, wanted: ModelName) -> bool:
    """Tells whether a model has the version, date and preview mark that a name asks for."""
    version = not wanted.version or name.version == wanted.version
    day = not wanted.date or name.date == wanted.date
    return version and day and (name.preview or not wanted.preview)


def _having(words: Words, read: Sequence[_Read]) -> Sequence[_Read]:
    """Keeps the offers whose family has all the words."""
    return [(offer, name) for offer, name in read if words <= frozenset(name.words)]


def _best_families(words: Words, read: Sequence[_Read]) -> Sequence[_Read]:
    """Keeps the offers whose family has all the words and the fewest other words."""
    having = [
        (count_other_words(frozenset(name.words), words), offer, name)
        for offer, name in _having(words, read)
    ]
    least = min((count for count, _, _ in having), default=None)
    return [(offer, name) for count, offer, name in having if count == least]


def _sizes(words: Words, read: Sequence[_Read]) -> Sequence[_Read]:
    return [
        (offer, name)
        for offer, name in _having(words, read)
        if count_other_words(frozenset(name.words), words)[0] == 0
    ]


def _of_local_kinds(words: Words, wanted: ModelName, read: Sequence[_Read]) -> Sequence[_Read]:
    """Returns only the offers of local providers, if the words are a local keyword and one of
    these offers fits.
    """
    if words not in _LOCAL_WORDS:
        return read
    local = [(offer, name) for offer, name in read if offer.kind in _LOCAL]
    return local if _meant(_having(words, local), wanted) else read


def _exact(low: str, here: Sequence[ModelOffer]) -> Sequence[ModelOffer]:
    """Returns the offers with this name, or else those whose name after its vendor it is."""
    full = [offer for offer in here if low in (offer.model.lower(), offer.name.lower())]
    return full or [offer for offer in here if low == offer.model.lower().rpartition("/")[2]]


def _at_provider(text: str, among: Sequence[ModelOffer]) -> tuple[str, Sequence[ModelOffer]]:
    """Splits off a provider, kind or vendor in front, by `/`, `:` or a space."""
    for separator in "/: ":
        head, _, rest = text.partition(separator)
        own = [offer for offer in among if head.lower() in (offer.provider.lower(), offer.kind)]
        # A family may begin with its vendor: "mistral large".
        family = separator == " " and any(head.lower() in _named(offer).words for offer in own)
        if rest.strip() and own and not family:
            return rest.strip(), own
    if not (front := _front(text)):
        return text, among
    # The first part stays, because it may name a vendor at a gateway.
    here = [offer for offer in among if offer.model.lower().startswith(f"{front}/")]
    if not here and front == "models":  # as Google writes its ids
        return text[len("models/") :], [offer for offer in among if offer.kind == "gemini"]
    return text, here


def _front(text: str) -> str:
    """Returns the kind or vendor before a colon or slash, in lower case; empty without one."""
    kind, colon, _ = text.lower().partition(":")
    if colon and kind in PROVIDER_KINDS:
        return kind
    vendor, slash, _ = text.lower().partition("/")
    return vendor if slash else ""


def _named(offer: ModelOffer) -> ModelName:
    """Parses an offer's name, with the family that the configuration gives it."""
    name = parse_model_name(offer.model)
    if offer.entry is None or not offer.entry.own_family:
        return name
    words = tuple(offer.entry.own_family.lower().split("-"))
    return ModelName(words, name.version, name.date, name.preview, name.latest)


def _preference(offer: ModelOffer) -> tuple[bool, str, int, str]:
    """Orders equal offers: the model's maker, the provider's name, then the shortest id."""
    kind = PROVIDER_KINDS.get(offer.kind)
    low = offer.model.rpartition("/")[2].lower()
    words = LOCAL_KEYWORDS if offer.kind in _LOCAL else ()
    maker = kind is not None and low.startswith((*kind.keywords, *words))
    return not maker, offer.provider, len(offer.model), offer.model
