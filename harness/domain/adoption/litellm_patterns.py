"""A model name of LiteLLM may be a pattern, such as `openai/*`. A route has one name, so a
pattern becomes its provider, and a route for each model that the file itself names by it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.domain.adoption.conversion import SourceConfig

WILDCARD: Final = "*"
_SECTIONS: Final = ("router_settings", "litellm_settings")
_CHAINS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")


@dataclass(frozen=True, slots=True)
class ModelPattern:
    """A `model_name` with `*`, and the deployments that answer what it matches."""

    name: str
    indexes: tuple[int, ...]  # of its entries in `model_list`

    @property
    def _regex(self) -> str:
        return re.escape(self.name).replace(r"\*", "(.*)")

    @property
    def specificity(self) -> tuple[int, int]:
        """Ranks patterns that match one name: LiteLLM takes the one with the greatest value."""
        return len(self._regex), sum(self._regex.count(sign) for sign in "*+?\\^$|()")

    def matches(self, name: str) -> bool:
        return re.match(self._regex, name) is not None

    def model_for(self, name: str, model: str) -> str:
        """Returns the model that a deployment of `model` asks its provider for when a client
        sends `name`: the parts that `*` stands for are put into it.
        """
        match = re.match(self._regex, name)
        if match is None or WILDCARD not in model:
            return model
        if len(match.groups()) > model.count(WILDCARD):
            return name
        for part in match.groups():
            model = model.replace(WILDCARD, part, 1)
        return model


def find_patterns(models: Sequence[object]) -> list[ModelPattern]:
    """Lists the patterns of `model_list`, the more specific first, as LiteLLM tries them."""
    indexes: dict[str, list[int]] = {}
    for index, entry in enumerate(models):
        name = entry.get("model_name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and WILDCARD in name:
            indexes.setdefault(name, []).append(index)
    patterns = [ModelPattern(name, tuple(places)) for name, places in indexes.items()]
    return sorted(patterns, key=lambda pattern: pattern.specificity, reverse=True)


def find_named_models(source: SourceConfig) -> list[str]:
    """Lists the models that the file's aliases and fallbacks name, each once."""
    names = [name for section in _SECTIONS for name in _names(source.values.get(section))]
    return [name for name in dict.fromkeys(names) if name and WILDCARD not in name]


def _names(section: object) -> Iterator[str]:
    if not isinstance(section, Mapping):
        return
    aliases = section.get("model_group_alias")
    for alias in aliases.values() if isinstance(aliases, Mapping) else ():
        yield from _texts([alias.get("model") if isinstance(alias, Mapping) else alias])
    for key in _CHAINS:
        chains = section.get(key)
        for chain in chains if isinstance(chains, list) else ():
            for name, others in chain.items() if isinstance(chain, Mapping) else ():
                yield from _texts([name])
                yield from _texts(others)
    yield from _texts(section.get("default_fallbacks"))


def _texts(values: object) -> list[str]:
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []
