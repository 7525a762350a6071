"""Models that providers list. Lists are untrusted: unusual names are left out. Pure."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import InputError
from harness.frame.plain_data import CamelCase
from harness.providers.calls.probe import MAX_REPLY_BYTES
from harness.providers.target import Price, Provider

MAX_MODELS: Final = 5_000
GONE_KEPT: Final = timedelta(days=90)  # how long models that are no longer listed are kept
# ASCII only: a person approves a name by sight, and other letters can look alike.
_NAME: Final = re.compile(r"[\x21-\x7e]{1,200}")
# Names of the context window's size: OpenRouter and Together, vLLM, Groq, Mistral and LM
# Studio, Google.
_WINDOWS: Final = (
    "context_length",
    "max_model_len",
    "context_window",
    "max_context_length",
    "inputTokenLimit",
)
_LARGEST_WINDOW: Final = 1_000_000_000
_LONGEST_NUMBER: Final = 40
_MOST_USD_PER_MTOK: Final = 1_000_000.0


@dataclass(frozen=True, slots=True)
class DiscoveredModel(CamelCase):
    provider: str
    model: str
    source: str  # the provider's address that listed it
    found_at: datetime
    context_window: int | None = None  # tokens
    price: Price | None = None
    listed_since: datetime | None = None  # when it was first listed; None means `found_at`
    gone_at: datetime | None = None  # when a list first lacked it; None while it is listed


@dataclass(frozen=True, slots=True)
class DiscoveredList(CamelCase):
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
    """Merges lists: keeps each model's first date, and models that are gone for GONE_KEPT."""
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
    if len(content) >= MAX_REPLY_BYTES:
        raise InputError(f"its list is larger than {MAX_REPLY_BYTES // 2**20} MiB")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("its answer is not JSON") from None
    if isinstance(document, Mapping):
        lists = (document.get(field) for field in ("data", "models"))
        document = next((entries for entries in lists if isinstance(entries, list)), None)
    if not isinstance(document, list):
        raise InputError("its answer is not a list of models")
    return document


def _name(entry: object) -> str:
    if not isinstance(entry, Mapping):
        return ""
    name = entry.get("id", entry.get("name"))
    name = name.removeprefix("models/") if isinstance(name, str) else ""
    return name if _NAME.fullmatch(name) else ""


def _window(entry: Mapping[str, object]) -> int | None:
    meta = entry.get("meta")
    of_a_slot = meta.get("n_ctx") if isinstance(meta, Mapping) else None  # llama.cpp
    for value in (of_a_slot, *map(entry.get, _WINDOWS)):
        if type(value) is int and 0 < value <= _LARGEST_WINDOW:
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
