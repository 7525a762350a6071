"""The base class of what watches requests, and what calls all of them.

Hooks are synchronous; one that raises is counted and alerted, and the others go on.
"""

from collections.abc import Sequence
from typing import ClassVar

from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.request_state import Hooks, ObserverHooks, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledRoute


class RequestObserver:
    """Watches requests: it overrides the hooks that it needs, and the others cost nothing."""

    part: ClassVar[RouterPart]  # under which its faults are counted
    of_limited: ClassVar[bool] = False  # watches the requests of limited keys alone

    def watches(self, route: CompiledRoute) -> bool:  # noqa: ARG002 - of those that override it
        """Whether it has to do with requests of a route; where not, it is not called."""
        return True

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Runs when the request has its arm and its plan, and nobody was asked yet."""

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Runs when the answer is sent, or there is none."""

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Always comes once `before_attempt` came."""


# Of a route, for keys without limits and for limited ones: the hooks of all its requests, and
# of those that are evidence.
RouteHooks = tuple[
    CompiledRoute, tuple[ObserverHooks, ObserverHooks], tuple[ObserverHooks, ObserverHooks]
]


class RequestObservers:
    """Calls the observers. of_evidence: for requests that are evidence of a live rollout. They
    come first before the attempt, as the others use their ticket, and last afterwards, as they
    use the record.
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
        # By the route's identity: routes are many. Each revision compiles them anew, and those
        # of the one before must not be held.
        self._by_route: dict[int, RouteHooks] = {}
        self._revision = 0

    def begin(self, observed: RoutedRequest) -> None:
        route = observed.route
        if observed.revision != self._revision:
            self._by_route.clear()
            self._revision = observed.revision
        known = self._by_route.get(id(route))
        if known is not None and known[0] is route:  # as `_hooks` has it
            kinds = known[1] if observed.reservation is None else known[2]
            hooks = kinds[observed.experiment is not None]
        else:
            hooks = self._hooks(observed)
        observed.hooks = hooks
        for part, before_attempt in hooks[0]:
            try:
                before_attempt(observed)
            except Exception as error:
                self._errors.note(part, error, observed.route, observed.arm)

    def finish(self, response: RoutedResponse) -> None:
        observed = response.job
        hooks = observed.hooks or self._hooks(observed)
        for stage in hooks[1:]:  # after the answer, at the end
            for part, hook in stage:
                try:
                    hook(observed, response)
                except Exception as error:
                    self._errors.note(part, error, observed.route, observed.arm)

    def _hooks(self, observed: RoutedRequest) -> ObserverHooks:
        route = observed.route
        known = self._by_route.get(id(route))
        if known is None or known[0] is not route:
            known = self._compile(route)
        _, free, limited = known
        plain, scored = free if observed.reservation is None else limited
        return plain if observed.experiment is None else scored

    def _compile(self, route: CompiledRoute) -> RouteHooks:
        always = [observer for observer in self._always if self._watches(observer, route)]
        evidence = [
            observer for observer in self._of_evidence if self._watches(observer, route)
        ]
        limited = _both(always, evidence)
        free = _both([observer for observer in always if not observer.of_limited], evidence)
        self._by_route[id(route)] = made = route, free, limited
        return made

    def _watches(self, observer: RequestObserver, route: CompiledRoute) -> bool:
        try:
            return observer.watches(route)
        except Exception as error:
            self._errors.note(observer.part, error, route)
            return True


def _both(
    always: Sequence[RequestObserver], evidence: Sequence[RequestObserver]
) -> tuple[ObserverHooks, ObserverHooks]:
    plain = _hooks(always, always)
    return plain, _hooks([*evidence, *always], [*always, *evidence])


def _hooks(
    before: Sequence[RequestObserver], after: Sequence[RequestObserver]
) -> ObserverHooks:
    return ObserverHooks(
        _overrides(before, "before_attempt"),
        _overrides(after, "after_answer"),
        _overrides(after, "at_end"),
    )


def _overrides(observers: Sequence[RequestObserver], hook: str) -> Hooks:
    default = getattr(RequestObserver, hook)
    return tuple(
        (observer.part, getattr(observer, hook))
        for observer in observers
        if getattr(type(observer), hook) is not default
    )
