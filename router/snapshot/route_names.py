"""Finds the route of a name that no route has: an alias, or as an import spells it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from harness.frame.suggestions import did_you_mean
from harness.gate.online.observation import OTHER_NAMES
from harness.routing.route_changes import spell_route_name
from router.frame.bounded_map import BoundedMap
from router.snapshot.compiled import CompiledRoute, CompiledSnapshot

KNOWN: Final = 1_000
LONGEST: Final = 100  # characters of a name that a metric and a hint have
MOST_COMPARED: Final = 200  # routes among which the nearest name is sought
MOST_COUNTED: Final = 100


class RouteNames:
    """Finds routes by aliases; the first pattern that fits counts. count: names without one."""

    def __init__(self, aliases: Mapping[str, str], count: Callable[[str], None]) -> None:
        self._exact = {name: route for name, route in aliases.items() if "*" not in name}
        self._patterns = [(name, route) for name, route in aliases.items() if "*" in name]
        self._count = count
        self._counted: set[str] = set()
        self._known: BoundedMap[str, CompiledRoute] = BoundedMap(KNOWN)
        self._hints: BoundedMap[str, str] = BoundedMap(KNOWN)
        self._serving: CompiledSnapshot | None = None

    def find(self, model: str, serving: CompiledSnapshot) -> CompiledRoute | None:
        if self._serving is not serving:
            self._serving = serving
            self._known, self._hints = BoundedMap(KNOWN), BoundedMap(KNOWN)
        if (known := self._known.get(model)) is not None:
            return known
        route = serving.routes.get(self.route_of(model))
        if route is None:
            return None
        name = json.dumps(model)
        found = replace(
            route,
            json_name=name,
            overrides={
                kind: replace(other, json_name=name) for kind, other in route.overrides.items()
            },
        )
        self._known.put(model, found)
        return found

    def listed(self) -> Mapping[str, str]:
        return self._exact

    def route_of(self, model: str) -> str:
        if (route := self._exact.get(model)) is not None:
            return route
        fitting = (route for name, route in self._patterns if fnmatchcase(model, name))
        return next(fitting, spell_route_name(model))

    def note_missing(self, model: str, allowed: list[str]) -> str:
        """Counts it; returns the message's end with the nearest of the `allowed` names."""
        name = model[:LONGEST]
        if name in self._counted or len(self._counted) < MOST_COUNTED:
            self._counted.add(name)
            self._count(name)
        else:
            self._count(OTHER_NAMES)
        hint = self._hints.get(name)
        if hint is None:
            hint = did_you_mean(name, [*allowed[:MOST_COMPARED], *self._exact])
            self._hints.put(name, hint)
        return hint
