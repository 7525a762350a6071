"""Finds sticky keys that name applications: more than 5 % of a route's requests have one.

A canary draws the conversations of such a key. Memory is bounded: at most KEPT keys a route
(Misra and Gries 1982, "Finding repeated elements").
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from router.snapshot.compiled import CompiledSnapshot

# Of a route's requests: with a larger share, a key is an application.
APPLICATION_SHARE: Final = 0.05
# Fewer requests of one key say nothing: an agent's loop has as many.
FEWEST_REQUESTS: Final = 100
KEPT: Final = 200
# After so many requests all counts are halved, so that the share is that of the last ones.
HALVED_AT: Final = 20_000
# Requests of a route that wait to be counted; of more, the latest are counted.
WAITING: Final = 8_192
_KEYS: Final[Callable[[], deque[str]]] = partial(deque, maxlen=WAITING)

NO_KEYS: Final[Mapping[str, float]] = {}


class RouteKeys:
    """Counts one route's keys. shares: of its requests, by the key of each application."""

    def __init__(self) -> None:
        self.shares: Mapping[str, float] = NO_KEYS
        self._requests = 0.0
        self._counts: Counter[str] = Counter()

    def add(self, keys: Iterable[str], openings: Iterable[str] = ()) -> None:
        new = Counter(keys)
        self._requests += new.total()
        new.update(openings)
        self._counts.update({key: n for key, n in new.items() if key and ":" in key})
        if self._requests >= HALVED_AT:
            self._requests /= 2
            self._counts = Counter({key: n // 2 for key, n in self._counts.items() if n > 1})
        if len(self._counts) > KEPT:
            # The commonest key outside the bound is taken off all that are kept.
            ordered = self._counts.most_common(KEPT + 1)
            least = ordered[-1][1]
            self._counts = Counter({key: n - least for key, n in ordered if n > least})
        self.shares = {
            key: number / self._requests
            for key, number in self._counts.items()
            if number >= max(FEWEST_REQUESTS, APPLICATION_SHARE * self._requests)
        }


class CallerShares:
    """Finds applications. on_change: hears of a route's, with shares, as they come or go."""

    def __init__(self, on_change: Callable[[str, Mapping[str, float]], None]) -> None:
        self._on_change = on_change
        self._routes: dict[str, RouteKeys] = {}
        # By route, the keys of requests as they came. Texts alone: tuples burden the collector.
        self.waiting: defaultdict[str, deque[str]] = defaultdict(_KEYS)
        # Of an application's requests, the openings that named their conversations, too.
        self.openings: defaultdict[str, deque[str]] = defaultdict(_KEYS)
        # By route, the keys whose conversations are drawn.
        self.applications: dict[str, frozenset[str]] = {}

    def evaluate(self, serving: CompiledSnapshot) -> None:
        by_route, openings = dict(self.waiting), dict(self.openings)
        self.waiting.clear()
        self.openings.clear()
        for route in self._routes.keys() - serving.routes.keys():
            del self._routes[route]
            self._apply(route, NO_KEYS)
        for route, keys in by_route.items():
            if route in serving.routes:
                known = self._routes.setdefault(route, RouteKeys())
                known.add(keys, openings.get(route, ()))
                self._apply(route, known.shares)

    def _apply(self, route: str, shares: Mapping[str, float]) -> None:
        keys = frozenset(shares)
        if keys == self.applications.get(route, frozenset()):
            return
        self.applications[route] = keys
        if not keys:
            del self.applications[route]
        self._on_change(route, shares)
