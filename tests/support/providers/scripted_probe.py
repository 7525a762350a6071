"""A provider probe that gives scripted answers, and a catalogue of given entries."""

from collections.abc import Callable, Mapping
from typing import Any

from harness.providers.calls.probe import ProbeReply, ProbeRequest
from harness.providers.models.catalogue import (
    Catalogue,
    CatalogueEntry,
    build_catalogue,
)
from harness.providers.target import Provider


class FixedCatalogue:
    def __init__(self, *entries: CatalogueEntry) -> None:
        self._all = build_catalogue(entries)

    def catalogue(self) -> Catalogue:
        return self._all


class ScriptedProviderProbe:
    def __init__(self, answer: Callable[[Provider, str, str], ProbeReply]) -> None:
        self._answer = answer
        self.asked: list[ProbeRequest] = []

    def ask(
        self,
        provider: Provider,
        key: str,
        path: str,
        body: Mapping[str, Any] | None,  # noqa: ARG002 - as the real one
        timeout_s: float,  # noqa: ARG002 - as above
    ) -> ProbeReply:
        self.asked.append((provider.name, path))
        return self._answer(provider, key, path)

    def reach(
        self,
        provider: Provider,
        key: str,
        timeout_s: float,
    ) -> ProbeReply:
        return self.ask(provider, key, "/models", None, timeout_s)
