"""POST to a model's endpoint: from the body to the route, the arm and the plan."""

from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from harness.domain.overrides import RequestKind, deciding_kind
from harness.domain.plan import Plan
from harness.domain.routing import Arm, KeyGrant
from harness.domain.settings import RouterSettings
from harness.ports import Clock
from router import sticky, wishes
from router.admission import Admission, Toll
from router.asgi import ON_LEAVING, CallerGone, Receive, Scope, Send, header
from router.body import ClientRequest, FieldError, read_request
from router.books import Books, Entry
from router.capture import Sampler
from router.course import Course, Job
from router.degraded import serializes
from router.dialects.table import DIALECTS, ENDPOINTS
from router.dispatch import Dispatcher
from router.exchange import Exchange
from router.feedback import Feedback
from router.guard import Counted
from router.judge import Drawn, Judges
from router.keys import may_use
from router.kinds import kinds_seen
from router.planner import Planner
from router.recording import Ticket
from router.replies import Reply, error_reply
from router.serving import Header, ServedRoute, Serving, header_text
from router.shadow import Shadows, copies
from router.spans import Asked, RequestSpan, Tracing
from router.watch import Watch

TASK: Final = b"x-swapgate-task"
UNSCORED: Final = (None, None, None)
TRACE: Final = {b"traceparent": b"", b"tracestate": b""}


class ModelCalls:
    def __init__(  # noqa: PLR0913, PLR0917 - the parts, one by one
        self,
        planner: Planner,
        dispatcher: Dispatcher,
        admission: Admission,
        books: Books,
        feedback: Feedback,
        settings: RouterSettings,
        clock: Clock,
        sampler: Sampler,
        shadows: Shadows,
        judges: Judges,
        tracing: Tracing | None = None,
    ) -> None:
        self._planner = planner
        self._dispatcher = dispatcher
        self._admission = admission
        self._books = books
        self._feedback = feedback
        self._settings = settings
        self._clock = clock
        self._sampler = sampler
        self._shadows = shadows
        self._judges = judges
        self._tracing = tracing

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body: bytes,
        grant: KeyGrant,
        serving: Serving,
        request_id: Header,
    ) -> Reply | None:
        """A refusal, or None when everything is sent."""
        started = self._clock.monotonic()
        found = _routed(scope, body, grant, serving)
        wished_s = wishes.limit_s(scope)
        if isinstance(wished_s, Reply):
            return wished_s
        toll: Toll | None = None
        if grant.limits is not None:
            asked = None if isinstance(found, Reply) else found[0]
            admitted = self._admission.admit(grant.id, grant.limits, asked, len(body))
            if isinstance(admitted, Reply):
                return admitted
            toll = admitted
        if isinstance(found, Reply):
            return found
        request, route = found
        key, told_apart = sticky.sticky_key(request, header(scope, sticky.HEADER), grant.id)
        if not told_apart:
            self._books.count("sticky_by_api_key")
        own = request_id[1].decode()
        # Whose callers cannot be told apart must not all go to one place for a day.
        apart = key if told_apart else own
        arm, plan = self._planner.assign(route, request, key, apart)
        most_s = min(route.route.settings.total_timeout_s, self._settings.total_timeout_s)
        limit_s = min(wished_s, most_s)
        proves = is_evidence(arm, plan) and not self._in_haste(route, limit_s, most_s)
        may_be = proves and route.judge is not None
        drawn = self._judges.drawn(scope, route, request, arm, key, own) if may_be else None
        scored = self._scored(route, request, arm, key, drawn) if proves else UNSCORED
        ticket, watch, counted = scored
        self._feedback.remember(own, route.route.name, arm, grant.id, route.trial, ticket)
        begun = self._dispatcher.timers.loop.time()
        span = self._span(scope, route, request, arm, serving.revision, own)
        job = Job(
            request,
            route,
            arm,
            plan,
            begun,
            begun + limit_s,
            _passed_up(scope, DIALECTS[request.endpoint].passed_up),
            span,
            hurried=limit_s < most_s,
            watch=watch,
        )
        headers = (
            request_id,
            *route.headers[arm],
            *self._planned(plan, request),
            *(toll.headers if toll else ()),
        )
        copied = self._sampler.copied(scope, route, request, own)
        mirror = self._shadows.drawn(scope, job, key, apart)
        exchange = Exchange(
            job,
            Course(),
            headers,
            limited=toll is not None,
            heartbeat_s=wishes.heartbeat_s(scope, request, self._settings),
            on_leaving=scope.get(ON_LEAVING),
            copies=copies(copied, mirror, drawn.copied if drawn else None),
        )
        try:
            await exchange.serve(self._dispatcher, receive, send)
        except CallerGone:
            exchange.caller_gone = True
            self._books.count("callers_gone")
        finally:
            if toll is not None:
                self._admission.settle(toll, exchange)
            entry = Entry(ticket, serving.revision, started, key, own, grant.id, counted)
            self._books.enter(exchange, entry)
            self._sampler.take(exchange, copied, entry)
            self._shadows.mirror(mirror, exchange)
            self._judges.judge(drawn, ticket, exchange)
            if span is not None:
                span.end(exchange.served())
        return None

    def _in_haste(self, route: ServedRoute, limit_s: float, most_s: float) -> bool:
        if limit_s >= most_s or route.trial is None:
            return False
        hasty = self._books.haste.is_in(route.route, limit_s)
        if hasty:
            self._books.count("unscored_in_haste")
        return hasty

    def _span(
        self,
        scope: Scope,
        route: ServedRoute,
        request: ClientRequest,
        arm: Arm,
        revision: int,
        own: str,
    ) -> RequestSpan | None:
        """None without tracing."""
        if self._tracing is None:
            return None
        trace = _passed_up(scope, TRACE)
        return self._tracing.begin(Asked(request, route, arm, revision, own, trace))

    def _scored(
        self,
        route: ServedRoute,
        request: ClientRequest,
        arm: Arm,
        key: str,
        drawn: Drawn | None,
    ) -> tuple[Ticket | None, Watch | None, Counted | None]:
        """The request's place in the statistics, what its guardrails watch, and its place in
        this worker's own guard.
        """
        canary = route.trial
        if canary is None:
            return UNSCORED
        watch = Watch.of(request, route, canary.unit_rule)
        if drawn is not None and watch is not None:
            watch = drawn.told(watch)
        ticket = self._books.admit(canary, arm, key, watch)
        counted = self._books.guard(route.route.canary, arm, key)
        return ticket, watch if ticket is not None else None, counted

    def _planned(self, plan: Plan, request: ClientRequest) -> tuple[Header, ...]:
        """Says in the metrics that tools are called one at a time; there and in the answer that
        a switch ruled.
        """
        if serializes(plan, request):
            self._books.count("tools_serialized")
        if plan.forced is None:
            return ()
        effect = "in_effect" if plan.forced.in_effect else "not_in_effect"
        self._books.count(f"switch_{effect}")
        words = f"{plan.forced.switch.id}; {plan.forced.switch.force}; {effect}"
        return ((b"x-swapgate-switch", header_text(words)),)


def is_evidence(arm: Arm, plan: Plan) -> bool:
    """Whether the arms get what they stand for: not under a switch, and not for practice."""
    return plan.forced is None and arm is not Arm.KEEP_WARM


def _routed(
    scope: Scope, body: bytes, grant: KeyGrant, serving: Serving
) -> Reply | tuple[ClientRequest, ServedRoute]:
    """The route that answers: the one that is asked, or its override for such a request."""
    try:
        request = read_request(body, ENDPOINTS[scope["path"]])
    except InputError as error:
        param = error.param if isinstance(error, FieldError) else None
        return error_reply(400, f"the request body: {error}", "invalid_json", param=param)
    declared = wishes.declared_kind(scope)
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
    if not may_use(grant, route.route.name):
        message = f"this key may not use route {route.route.name!r}; ask an admin for one"
        return error_reply(403, message, "route_not_allowed", param="model")
    return request, _answering(request, route, declared)


def _answering(
    request: ClientRequest, route: ServedRoute, declared: RequestKind | None
) -> ServedRoute:
    overrides = route.route.settings.overrides
    if not overrides:
        return route
    seen = kinds_seen(request) if declared is None else ()
    kind = deciding_kind(overrides, declared, seen)
    return route if kind is None else route.overrides[kind]


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
