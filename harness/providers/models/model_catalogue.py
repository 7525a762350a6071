"""Reads the model catalogue from the JSON file in litellm's package, without importing litellm,
which takes many seconds. The configuration's changes take precedence. A price is for a plain
request, not for a long request, a batch or priority service.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.catalogue import (
    Catalogue,
    CatalogueChange,
    CatalogueEntry,
    build_catalogue,
)
from harness.providers.target import Price

FILE: Final = "model_prices_and_context_window_backup.json"
SAMPLE: Final = "sample_spec"

# The table's provider names to our kinds. Vertex's families have further suffixes.
KINDS: Final[Mapping[str, str]] = {
    name: kind.name for kind in PROVIDER_KINDS.values() for name in kind.catalogue_names
}
# The catalogue's mode to the ability that such a model has, and the abilities that it lacks.
MODES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "chat": ("chat", frozenset({"embeddings"})),
    "responses": ("responses", frozenset({"embeddings", "chat"})),
    "embedding": (
        "embeddings",
        frozenset({"chat", "responses", "messages", "stream", "tools", "parallel_tools"}),
    ),
}
FLAGS: Final[Mapping[str, str]] = {
    "supports_function_calling": "tools",
    "supports_parallel_function_calling": "parallel_tools",
    "supports_response_schema": "json_schema",
    "supports_vision": "vision",
    "supports_native_streaming": "stream",
}
# Hints, which an answer can do without: only a yes counts.
SHOWN: Final[Mapping[str, str]] = {
    "supports_prompt_caching": "caching",
    "supports_reasoning": "reasoning",
}
_YES: Final = (*FLAGS.items(), *SHOWN.items())
_NO: Final = tuple(FLAGS.items())
# Providers whose rows may have a region in front of the model: regional prices differ.
_REGIONS: Final = ("azure", "bedrock")


class LitellmTable:
    """Reads litellm's table of models at the first call, and keeps it. Without litellm's
    package, the catalogue has only the entries of the user's file.

    changes: the entries of the user's file, which take precedence.
    """

    def __init__(
        self, changes: Iterable[CatalogueChange] = (), file: Path | None = None
    ) -> None:
        self._changes = tuple(changes)
        self._file = file

    @cached_property
    def _all(self) -> Catalogue:
        file = self._file or table_file()
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


def table_file() -> Path | None:
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(FILE)
    return file if file.is_file() else None


def table_source() -> str:
    try:
        return f"litellm {version('litellm')}"
    except PackageNotFoundError:
        return "a table of litellm"


def with_changes(known: Catalogue, changes: Iterable[CatalogueChange]) -> Catalogue:
    entries = dict(known.entries)
    for change in changes:
        key = (change.kind, change.model)
        entries[key] = change.over(entries.get(key, CatalogueEntry(*key)))
    return replace(known, entries=entries)


def _entries(rows: Mapping[str, Mapping[str, object]]) -> Iterator[CatalogueEntry]:
    # A name with its provider is more specific than one without, so it comes last and counts.
    for key in sorted(rows, key=lambda row: ("/" in row, row)):
        if key != SAMPLE and (entry := _entry(key, rows[key])) is not None:
            yield entry


def _entry(key: str, row: Mapping[str, object]) -> CatalogueEntry | None:
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


def _price(kind: str, made_for: str, row: Mapping[str, object]) -> Price | None:
    sent, output = _usd(row, "input_cost_per_token"), _usd(row, "output_cost_per_token")
    if made_for == "embeddings":
        output = output or 0.0  # a vector has no output tokens
    if sent is None or output is None:
        return None
    # Local models are free. For other models, the table writes 0 for an unknown price.
    if sent == output == 0 and PROVIDER_KINDS[kind].group is not ProviderGroup.LOCAL:
        return None
    read, written = (
        _usd(row, name)
        for name in ("cache_read_input_token_cost", "cache_creation_input_token_cost")
    )
    return Price(sent, output, read, written)


def _usd(row: Mapping[str, object], name: str) -> float | None:
    """Returns dollars per million tokens, rounded because the product is inexact."""
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
