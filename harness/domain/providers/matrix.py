"""The provider matrix lists what each provider's models can do: yes, no or unknown, by column.
Pure.

An answer comes from the kind, the registry and the catalogue; `kind_limitations` puts into
words what holds for every model of a kind.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.providers.kinds import ProviderGroup, ProviderKind
from harness.domain.routing.capabilities import Capabilities, Endpoint
from harness.domain.routing.target import Price

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
    """Returns a model's abilities by column. The weakest word counts: what the kind does not
    serve, what the registry says that the model lacks, then what the catalogue says. own: the
    registry's word.
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
        # Of the registry only a no: the default claims everything, and so says nothing.
        not getattr(own, ability),
        ability in kind.lacks,
        entry is not None and ability in entry.lacks,
    )
    if any(lacking):
        return Ability.NO
    priced = price is not None and price.cached_input_usd_per_mtok is not None
    has = entry is not None and ability in entry.has
    # Who has a price for what is read from a cache has a cache.
    return Ability.YES if has or (name == "caching" and priced) else Ability.UNKNOWN


def kind_limitations(kind: ProviderKind) -> tuple[str, ...]:
    """Describes the limitations of every model of the kind."""
    found = []
    if not kind.serves:
        found.append("this router does not call it yet")
    if kind.adapted:
        names = ", ".join(sorted(kind.adapted))
        found.append(f"answered by translation: {names}")
    if not kind.name.startswith(("openai", "azure")):
        found.append("a tokenizer of its own: token counts differ from other vendors'")
    if kind.group is ProviderGroup.OAUTH:
        found.append("by a person's account: only when it is named")
    return tuple(found)
