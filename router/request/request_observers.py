"""The base class of observers, and the caller of all observers.

Hooks are synchronous: a slow hook would delay all requests of the worker. If a hook raises,
the router counts and alerts it, and calls the next one. The observers are in
`router.observers`. They read the request and the response, and change neither the plan nor
the answer.
"""

from collections.abc import Sequence
from typing import ClassVar, TypeVar
from weakref import ReferenceType, ref

from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.request_state import Hooks, ObserverHooks, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledRoute


class RequestObserver:
    """Watches requests. A subclass overrides only the hooks that it needs.

    The base's hooks are never called, so a request pays only for hooks that do something.
    """

    part: ClassVar[RouterPart]  # the label of its faults
    of_limited: ClassVar[bool] = False  # watches only requests of limited keys

    def watches(self, route: CompiledRoute) -> bool:  # noqa: ARG002 - of those that override it
        """Returns whether it watches the requests of a route."""
        return True

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Runs when the request has its arm and its plan, before the first attempt."""

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Runs when the answer is sent, or when no target answered."""

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Runs after each request for which `before_attempt` ran."""


# The hooks of one route, for keys without limits and with limits: each pair has the hooks for
# all requests, and the hooks for requests that are evidence.
RouteHooks = tuple[
    tuple[ObserverHooks, ObserverHooks],
    tuple[ObserverHooks, ObserverHooks],
]
V = TypeVar("V")
# By the route's `id()`. The reference removes its entry with the route.
KeptByRoute = dict[int, tuple[ReferenceType[CompiledRoute], V]]


def keep_with_route(kept: KeptByRoute[V], route: CompiledRoute, value: V) -> None:
    """Keeps a value as long as its route is in memory.

    A change of keys, switches or providers makes new routes with the same revision number, so
    the number does not tell which routes are gone.
    """
    place = id(route)
    kept[place] = ref(route, lambda _: kept.pop(place, None)), value


class RequestObservers:
    """Calls the observers.

    of_evidence: observers of requests that are evidence for a live rollout. They run first
    before the attempt, because the other observers use their ticket, and last after it, because
    they use the record.
    """

    def __init__(
        self,
        always: Sequence[RequestObserver],
        of_evidence: Sequence[RequestObserver],
        errors: InternalErrors,
    ) -> None:
        self._always = always
        self._of_evidence = of_evidence
        self._errors = errors
        self._by_route: KeptByRoute[RouteHooks] = {}

    def begin(self, observed: RoutedRequest) -> None:
        """Calls `before_attempt` of the observers that watch the route.

        Keeps the hooks in the request, so that the same observers see its end, even if a
        new revision serves by then.
        """
        route = observed.route
        kept = self._by_route.get(id(route))
        unlimited, limited = kept[1] if kept is not None else self._compile(route)
        hooks_by_evidence = unlimited if observed.reservation is None else limited
        hooks = observed.hooks = hooks_by_evidence[observed.experiment is not None]
        for part, hook in hooks.begin:
            try:
                hook(observed)
            except Exception as error:
                self._errors.note(part, error, observed.route, observed.arm)

    def finish(self, response: RoutedResponse) -> None:
        """Calls `after_answer` of all observers of the request, then `at_end`."""
        observed = response.job
        for part, hook in observed.hooks.finish if observed.hooks else ():
            try:
                hook(observed, response)
            except Exception as error:
                self._errors.note(part, error, observed.route, observed.arm)

    def _compile(self, route: CompiledRoute) -> RouteHooks:
        """Collects a route's hooks once for each revision."""
        always = [observer for observer in self._always if self._watches(observer, route)]
        evidence = [
            observer for observer in self._of_evidence if self._watches(observer, route)
        ]
        limited = _build_hooks(always, evidence)
        unlimited = _build_hooks(
            [observer for observer in always if not observer.of_limited],
            evidence,
        )
        route_hooks = unlimited, limited
        keep_with_route(self._by_route, route, route_hooks)
        return route_hooks

    def _watches(self, observer: RequestObserver, route: CompiledRoute) -> bool:
        """Asks an observer. After a fault, the observer watches the route."""
        try:
            return observer.watches(route)
        except Exception as error:
            self._errors.note(observer.part, error, route)
            return True


def _build_hooks(
    always: Sequence[RequestObserver], evidence: Sequence[RequestObserver]
) -> tuple[ObserverHooks, ObserverHooks]:
    """Returns the hooks for all requests, and the hooks for requests that are evidence."""
    plain = _collect_hooks(always, always)
    return plain, _collect_hooks([*evidence, *always], [*always, *evidence])


def _collect_hooks(
    before: Sequence[RequestObserver], after: Sequence[RequestObserver]
) -> ObserverHooks:
    return ObserverHooks(
        _list_overrides(before, "before_attempt"),
        _list_overrides(after, "after_answer") + _list_overrides(after, "at_end"),
    )


def _list_overrides(observers: Sequence[RequestObserver], hook: str) -> Hooks:
    default = getattr(RequestObserver, hook)
    return tuple(
        (observer.part, getattr(observer, hook))
        for observer in observers
        if getattr(type(observer), hook) is not default
    )
