"""POST to a model's endpoint: from the body to the route, the arm and the plan."""

from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from harness.domain.reliability.key_limits import KeyLimits
from harness.domain.routing.overrides import RequestKind, deciding_kind
from harness.domain.routing.plan import Plan
from harness.domain.routing.table import Arm, KeyGrant
from harness.domain.settings import RouterSettings
from harness.ports import Clock
from router.access.admission import Admission, RateReservation
from router.access.keys import is_route_allowed
from router.observers.request_accounting import RequestAccounting, RequestEntry
from router.observers.request_observers import UNSCORED, RequestObservers
from router.observers.tracing_port import RequestSpan, SpanInput
from router.protocols.endpoints import DIALECTS, ENDPOINTS
from router.request import client_directives, sticky
from router.request.body import ClientRequest, FieldError, read_request
from router.request.degradation import is_serializing_tools
from router.request.dispatch import Dispatcher
from router.request.planner import Planner
from router.request.request_kind import detect_kinds
from router.request.request_state import RequestProgress, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.server.asgi import ON_LEAVING, ClientDisconnected, Receive, Scope, Send, header
from router.server.internal_errors import InternalErrors, RouterPart
from router.server.replies import Reply, error_reply
from router.snapshot.compiled import CompiledRoute, CompiledSnapshot, Header, header_text

TASK: Final = b"x-swapgate-task"
TRACE: Final = {b"traceparent": b"", b"tracestate": b""}


class ModelEndpoint:
    def __init__(  # noqa: PLR0913, PLR0917 - the parts, one by one
        self,
        planner: Planner,
        dispatcher: Dispatcher,
        admission: Admission,
        books: RequestAccounting,
        observers: RequestObservers,
        settings: RouterSettings,
        clock: Clock,
        errors: InternalErrors,
    ) -> None:
        self._planner = planner
        self._dispatcher = dispatcher
        self._admission = admission
        self._books = books
        self._observers = observers
        self._settings = settings
        self._clock = clock
        self._errors = errors

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body: bytes,
        grant: KeyGrant,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | None:
        """A refusal, or None when everything is sent."""
        started = self._clock.monotonic()
        found = self._routed(scope, body, grant, serving)
        wished_s = client_directives.requested_timeout_s(scope)
        if isinstance(wished_s, Reply):
            return wished_s
        toll: RateReservation | None = None
        if grant.limits is not None:
            asked_for = None if isinstance(found, Reply) else found[0]
            admitted = self._admitted(grant.id, grant.limits, asked_for, len(body))
            if isinstance(admitted, Reply):
                return admitted
            toll = admitted
        if isinstance(found, Reply):
            return found
        request, route = found
        own = request_id[1].decode()
        most_s = min(route.route.settings.total_timeout_s, self._settings.total_timeout_s)
        limit_s = min(wished_s, most_s)
        haste_s = limit_s if limit_s < most_s else None
        planned = self._planned(scope, route, request, grant.id, own, haste_s)
        key, apart, arm, plan, proves = planned
        observers, scoring = self._observers, UNSCORED
        if proves:
            scoring = observers.scored(scope, route, request, arm, key, own)
        observers.remember(own, route, arm, grant.id, scoring.ticket)
        begun = self._dispatcher.timers.loop.time()
        span = self._span(scope, route, request, arm, serving.revision, own)
        job = RoutedRequest(
            request,
            route,
            arm,
            plan,
            begun,
            begun + limit_s,
            _passed_up(scope, DIALECTS[request.endpoint].passed_up),
            span,
            hurried=limit_s < most_s,
            watch=scoring.watch,
        )
        headers = (
            request_id,
            *route.headers[arm],
            *self._of_plan(job),
            *(toll.headers if toll else ()),
        )
        copied = observers.copies(scope, job, scoring, own, key, apart)
        exchange = RoutedResponse(
            job,
            RequestProgress(),
            headers,
            self._errors,
            limited=toll is not None,
            heartbeat_s=client_directives.heartbeat_s(scope, request, self._settings),
            on_leaving=scope.get(ON_LEAVING),
            copies=copied.all,
        )
        entry = RequestEntry(
            scoring.ticket, serving.revision, started, key, own, grant.id, scoring.counted
        )
        try:
            await exchange.serve(self._dispatcher, receive, send)
        except ClientDisconnected:
            exchange.caller_gone = True
            self._books.count("callers_gone")
        finally:
            observers.ended(exchange, entry, scoring, copied, toll)
            observers.close(span, exchange)
        return None

    def _planned(
        self,
        scope: Scope,
        route: CompiledRoute,
        request: ClientRequest,
        key_id: str,
        own: str,
        haste_s: float | None,
    ) -> tuple[str, str, Arm, Plan, bool]:
        """The sticky key; the same, or the request's own where callers cannot be told apart;
        the arm, whom to ask, and whether the request is evidence of its arm.

        own: the request's id. haste_s: all the time that the client gives it, None for no less
        than the route does.
        """
        try:
            given = header(scope, sticky.HEADER)
            key, told_apart = sticky.sticky_key(request, given, key_id)
            if not told_apart:
                self._books.count("sticky_by_api_key")
            # Whose callers cannot be told apart must not all go to one place for a day.
            apart = key if told_apart else own
            arm, plan = self._planner.assign(route, request, key, apart)
            proves = is_evidence(arm, plan) and not self._in_haste(route, haste_s)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            plan = self._plain(route, request)
            return own, own, Arm.INCUMBENT, plan, False
        return key, apart, arm, plan, proves

    def _plain(self, route: CompiledRoute, request: ClientRequest) -> Plan:
        """Of the incumbent: as of this moment, or else as the snapshot has it."""
        try:
            return self._planner.plan(route, Arm.INCUMBENT, request)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            return route.plans[request.endpoint][Arm.INCUMBENT]

    def _in_haste(self, route: CompiledRoute, haste_s: float | None) -> bool:
        if haste_s is None or route.trial is None:
            return False
        hasty = self._books.haste.is_in(route.route, haste_s)
        if hasty:
            self._books.count("unscored_in_haste")
        return hasty

    def _span(
        self,
        scope: Scope,
        route: CompiledRoute,
        request: ClientRequest,
        arm: Arm,
        revision: int,
        own: str,
    ) -> RequestSpan | None:
        """None without tracing."""
        if not self._observers.traces:
            return None
        trace = _passed_up(scope, TRACE)
        return self._observers.span(SpanInput(request, route, arm, revision, own, trace))

    def _admitted(
        self, key: str, limits: KeyLimits, request: ClientRequest | None, size: int
    ) -> RateReservation | Reply | None:
        """None where what holds the limits failed: then they hold nobody up."""
        try:
            return self._admission.admit(key, limits, request, size)
        except Exception as error:
            self._errors.note(RouterPart.LIMITS, error)
            return None

    def _of_plan(self, job: RoutedRequest) -> tuple[Header, ...]:
        """Says in the metrics that tools are called one at a time; there and in the answer that
        a switch ruled.
        """
        plan = job.plan
        try:
            if is_serializing_tools(plan, job.request):
                self._books.count("tools_serialized")
            if plan.forced is None:
                return ()
            effect = "in_effect" if plan.forced.in_effect else "not_in_effect"
            self._books.count(f"switch_{effect}")
            words = f"{plan.forced.switch.id}; {plan.forced.switch.force}; {effect}"
            return ((b"x-swapgate-switch", header_text(words)),)
        except Exception as error:
            self._errors.note(RouterPart.HEADERS, error, job.route, job.arm)
            return ()

    def _routed(
        self, scope: Scope, body: bytes, grant: KeyGrant, serving: CompiledSnapshot
    ) -> Reply | tuple[ClientRequest, CompiledRoute]:
        """The route that answers: the one that is asked, or its override for such a request."""
        found = _asked(scope, body, grant, serving)
        if isinstance(found, Reply):
            return found
        request, route, declared = found
        overrides = route.route.settings.overrides
        if not overrides:
            return request, route
        try:
            seen = detect_kinds(request) if declared is None else ()
            kind = deciding_kind(overrides, declared, seen)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            kind = None
        return request, route if kind is None else route.overrides[kind]


def is_evidence(arm: Arm, plan: Plan) -> bool:
    """Whether the arms get what they stand for: not under a switch, and not for practice."""
    return plan.forced is None and arm is not Arm.KEEP_WARM


def _asked(
    scope: Scope, body: bytes, grant: KeyGrant, serving: CompiledSnapshot
) -> Reply | tuple[ClientRequest, CompiledRoute, RequestKind | None]:
    """The request, the route that it names, and the kind that its caller declares."""
    try:
        request = read_request(body, ENDPOINTS[scope["path"]])
    except InputError as error:
        param = error.param if isinstance(error, FieldError) else None
        return error_reply(400, f"the request body: {error}", "invalid_json", param=param)
    declared = client_directives.declared_kind(scope)
    if isinstance(declared, Reply):
        return declared
    # Looked for only where a route has a task: the others' requests pay nothing.
    task = header(scope, TASK) if serving.tasks else None
    route = serving.tasks.get(task) if task is not None else None
    if route is None:
        route = serving.routes.get(request.model)
    if route is None:
        message = f"there is no route {request.model!r}; GET /v1/models lists yours"
        return error_reply(404, message, "model_not_found", param="model")
    # Of the route that is asked: its overrides are how it answers.
    if not is_route_allowed(grant, route.route.name):
        message = f"this key may not use route {route.route.name!r}; ask an admin for one"
        return error_reply(403, message, "route_not_allowed", param="model")
    return request, route, declared


def _passed_up(scope: Scope, wanted: Mapping[bytes, bytes]) -> tuple[Header, ...]:
    """The client's own headers that go to the provider, or what stands in for them.

    A value that no header should have is as good as none: it must not spoil the request, whose
    failure would be the provider's.
    """
    if not wanted:
        return ()
    given = ((name, header(scope, name), instead) for name, instead in wanted.items())
    chosen = ((name, v if v and _plain(v) else instead) for name, v, instead in given)
    return tuple((name, value) for name, value in chosen if value)


def _plain(value: bytes) -> bool:
    return value.isascii() and value.decode().isprintable()
