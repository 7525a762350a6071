"""Prepares the answer to a POST for a model. If planning fails, the incumbent answers.

`router.server.app` calls it with the parsed key and the serving revision. It finds the
route, applies the key's limits, assigns arm and plan, and builds a `RoutedResponse`. It
asks no provider, and reads or writes no connection: `routed_response` does, through
`dispatch`.
"""

from typing import Final

from harness.frame.errors import InputError
from harness.frame.people.access import OptOut
from harness.frame.people.limits import KeyLimits
from harness.frame.ports import Clock
from harness.gate.online.uncounted import UncountedReason
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import RoutePlan
from harness.routing.route_settings import RequestKind
from harness.routing.settings import RouterSettings
from harness.routing.table import FIRST_ROUTE_STEP, Arm, Canary, KeyGrant
from router.access.admission import Admission, RateReservation
from router.access.front_door import CALLER, find_literal, is_route_allowed
from router.conversation.prefill_forms import ANSWER
from router.frame.asgi import Scope, header
from router.frame.body import ClientRequest, FieldError, read_request
from router.frame.limits import BoundedMap
from router.frame.replies import (
    JSON,
    Header,
    Reply,
    encode_header_text,
    error_reply,
)
from router.protocols.endpoints import (
    CONTENT,
    ENDPOINTS,
    misfit_reply,
)
from router.recording.internal_errors import InternalErrors, RouterPart
from router.recording.port import Recording, Ticket
from router.recording.sums import CallerShares
from router.request import client_directives
from router.request.caller_patience import answer_by
from router.request.client_directives import HeadPlan, find_override
from router.request.dispatch import Dispatcher
from router.request.needs import (
    COUNT_PATHS,
    COUNT_TIMEOUT_S,
    estimate_tokens,
    is_serializing_tools,
)
from router.request.planner import Planner
from router.request.request_observers import RequestObservers
from router.request.request_state import RequestProgress, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import (
    CompiledRoute,
    CompiledSnapshot,
    RouteNames,
)

# Sticky key, arm, plan, the rollout that counts the request as evidence, and why no rollout
# counts it (a key of `ObservationBlock.uncounted`; empty if one does, or the route has none).
Assignment = tuple[str, Arm, RoutePlan, Canary | None, str]


# Up to Python 3.11, looking up `Arm.KEEP_WARM` takes ten times as long as this constant.
_KEEP_WARM: Final = Arm.KEEP_WARM
_RESPONSES: Final = Endpoint.RESPONSES
# The most callers in memory whose request the candidate could not take.
LACKING_CALLERS: Final = 65_536
# The provider would charge for an answer that this request does not return. The router would
# not know its usage, its time or its success.
NO_BACKGROUND: Final = (
    "`background`: Swapproof does not fetch answers later, so no target is asked. Send the "
    "request without `background`, with `stream: true` for a long answer, or ask the provider "
    "directly"
)


class ModelEndpoint:
    """Turns a body and its caller into a refusal or a response that is ready to serve.

    recording: its `counters` count rare cases, such as `unnamed_callers`, for the worker's
    metrics.
    shares: which callers are whole applications, so that their conversations draw arms.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts, one by one
        self,
        planner: Planner,
        dispatcher: Dispatcher,
        admission: Admission,
        observers: RequestObservers,
        recording: Recording,
        settings: RouterSettings,
        clock: Clock,
        errors: InternalErrors,
        names: RouteNames,
        shares: CallerShares,
    ) -> None:
        self._names = names
        self._shares = shares
        self._waiting = shares.waiting
        self._planner = planner
        self.dispatcher = dispatcher
        self._admission = admission
        self._observers = observers
        self._recording = recording
        self._counters = recording.counters
        self._settings = settings
        self._clock = clock
        self._errors = errors
        # Callers of a day whose request the candidate could not take, as hashes.
        self._lacking_callers: BoundedMap[int, bool] = BoundedMap(LACKING_CALLERS)

    async def count_tokens(
        self,
        scope: Scope,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply:
        """Answers how many tokens a request has: the provider's count, else an estimate.

        The first target of the request's plan counts, because targets count differently.
        The key's rate limits for calls beside requests apply before, in
        `router.server.app`.
        """
        lookup = self._find_route(scope, body, head, serving)
        if isinstance(lookup, Reply):
            return lookup
        request, route = lookup
        id_ = request_id[1].decode()
        _, arm, plan, _, _ = self.assign(
            scope,
            head.directives.sticky,
            route,
            request,
            head.grant,
            id_,
        )
        now = self.dispatcher.timers.loop.time()
        until = now + COUNT_TIMEOUT_S
        job = RoutedRequest(request, route, arm, plan, now, until, head.passed_up)
        count = await self.dispatcher.count_tokens(job)
        return Reply(200, (JSON,), count) if count else estimate_tokens(request)

    def _end_response(self, response: RoutedResponse) -> None:
        """Tells the observers that a response ended, whether or not an answer was sent."""
        if response.caller_gone:
            self._counters["callers_gone"] += 1
        self._observers.finish(response)

    def prepare(
        self,
        scope: Scope,
        *,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | RoutedResponse:
        """Returns a refusal, or the response, which the caller must `serve`.

        The observers have seen the request's beginning when this returns a response.
        `serve` tells them its end, so a response that is never served would stay open in
        their records.

        A request without a route still takes from the key's rate, so that a faulty client
        cannot send without limit.
        """
        started = self._clock.monotonic()
        grant = head.grant
        directives = head.directives
        lookup = self._find_route(scope, body, head, serving)
        timeout_s = directives.timeout_s
        if isinstance(timeout_s, Reply):
            return timeout_s
        reservation: RateReservation | None = None
        if grant.limits is not None:
            valid_request = None if isinstance(lookup, Reply) else lookup[0]
            admitted = self._reserve_rate(grant.id, grant.limits, valid_request, len(body))
            if isinstance(admitted, Reply):
                return admitted
            reservation = admitted
        if isinstance(lookup, Reply):
            return lookup
        request, route = lookup
        longest_s = min(
            route.route.settings.total_timeout_s,
            self._settings.total_timeout_s,
        )
        is_hurried = timeout_s < longest_s
        limit_s = timeout_s if is_hurried else longest_s
        id_ = request_id[1].decode()
        sticky_key, arm, plan, trial, uncounted = self.assign(
            scope,
            directives.sticky,
            route,
            request,
            grant,
            id_,
        )
        begun = self.dispatcher.timers.loop.time()
        job = RoutedRequest(
            request,
            route,
            arm,
            plan,
            begun,
            begun + limit_s,
            head.passed_up,
            is_hurried,
            serving.snapshot.table.revision,
            id_,
            grant.id,
            sticky_key,
            started,
            scope,
            trial,
            reservation,
            grant.opt_outs,
        )
        if uncounted and route.experiment is not None:
            self.note_uncounted(route.experiment, arm, uncounted, sticky_key, job)
        if directives.patience_s < limit_s:
            job.answer_by = answer_by(begun, directives.patience_s)
        headers = (request_id, *route.headers[arm])
        if plan.serialize_tools or plan.forced is not None:
            headers = (*headers, *self._note_plan_effects(job))
        if reservation is not None:
            headers = (*headers, *reservation.headers)
        has_heartbeat = request.stream and directives.takes_heartbeat
        heartbeat_s = self._settings.heartbeat_s if has_heartbeat else 0.0
        response = RoutedResponse(
            job,
            RequestProgress(),
            headers,
            self.dispatcher,
            self._errors,
            self._end_response,
            heartbeat_s,
        )
        # Do this last: an observer that saw the beginning must also see the end.
        try:
            self._observers.begin(job)
        except BaseException:
            self._observers.finish(response)
            raise
        return response

    def assign(
        self,
        scope: Scope,
        sticky: bytes | None,
        route: CompiledRoute,
        request: ClientRequest,
        grant: KeyGrant,
        request_id: str,
    ) -> Assignment:
        """Assigns key, arm, plan and rollout. A fault of the router assigns the incumbent.

        Args:
            sticky: the caller's name in a header; None without one.
            request_id: the sticky key of a request without any other key.

        The rollout is None if the request is no evidence. Reasons are an opt-out, a
        conversation that began before the canary, a switch, and a keep-warm share. A pause or
        a used-up quota of either arm's target is a reason, too. An agent may choose a fallback
        of the route, which is then asked first. This method counts nothing
        (`note_uncounted`).
        """
        try:
            key = client_directives.sticky_key(request, sticky, grant.id)
            name = route.route.name
            applications = self._shares.applications
            self._waiting[name].append(key)
            template = 0
            if applications and key in applications.get(name, ()):
                key, template = self._distinguish_conversation(
                    name,
                    key,
                    request,
                )
            if not key:
                key = request_id
                self._counters["unnamed_callers"] += 1
            if CALLER in scope and (target := scope[CALLER].target):
                # The agent chose the target itself, so the request is not evidence.
                agent_plan = self._planner.prefer(route, request, target)
                if agent_plan is not None:
                    return (
                        key,
                        _KEEP_WARM,
                        agent_plan,
                        None,
                        UncountedReason.AGENT,
                    )
            if grant.opt_outs and OptOut.CANARY in grant.opt_outs:
                plan = self._planner.plan(route, Arm.INCUMBENT, request)
                return (
                    key,
                    Arm.INCUMBENT,
                    plan,
                    None,
                    UncountedReason.OPT_OUT,
                )
            if route.audience is not None:
                claims = client_directives.read_claims(scope, sticky, request, grant.name)
                by_rule = self._planner.assign_by_audience(route, request, claims, key)
                if by_rule is not None:
                    return key, *by_rule, None, UncountedReason.AUDIENCE
            arm, plan, scored = self._planner.assign(
                route,
                request,
                key,
                template,
            )
            trial = route.experiment
            uncounted = (
                ""
                if trial is None
                else self._find_uncounted_reason(route, request, arm, plan, scored=scored)
            )
            if uncounted:
                trial = None
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            plan = self._plan_incumbent(route, request)
            return request_id, Arm.INCUMBENT, plan, None, ""
        return key, arm, plan, trial, uncounted

    def _find_uncounted_reason(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        arm: Arm,
        plan: RoutePlan,
        *,
        scored: bool,
    ) -> str:
        """Returns why a request counts in neither arm; empty if it counts.

        A request is evidence only if its arm's own target is to answer it. It does not count:
        - if a switch or the keep-warm share chose the target;
        - if the candidate lacks an ability that the request needs;
        - while a pause or a used-up quota keeps requests from either arm's target.
        """
        planner = self._planner
        if not scored:
            self._counters["unscored_in_handover"] += 1
            return UncountedReason.HANDOVER
        if plan.forced is not None and planner.is_switched(route, request):
            return UncountedReason.SWITCH
        if arm is _KEEP_WARM:
            return UncountedReason.KEEP_WARM
        # For other requests, the check below finds nothing, so spare its time.
        is_varied = (
            route.particular
            or route.native
            or (request.endpoint in route.prefills and ANSWER in request.text)
        )
        if is_varied and planner.is_unsupported(route, request):
            return UncountedReason.UNSUPPORTED
        if planner.not_closed or planner.paused:
            return planner.find_held_outcome(route, arm, plan)
        return ""

    def note_uncounted(
        self,
        trial: Canary,
        arm: Arm,
        reason: str,
        sticky_key: str,
        job: RoutedRequest | None = None,
    ) -> None:
        """Counts a request that becomes no exposure. Raises nothing.

        Args:
            job: None for a flag, whose answer the router does not see.

        If the candidate cannot take it, counts each caller once a day, as exposures do. So one
        caller in a loop cannot hold a canary.
        """
        try:
            if reason == UncountedReason.UNSUPPORTED:
                place = (trial.rollout, trial.candidate_bps, self._clock.now().date())
                caller = hash((*place, sticky_key))
                if self._lacking_callers.get(caller):
                    return
                self._lacking_callers.put(caller, True)  # noqa: FBT003 - a set's member
            elif reason == UncountedReason.AUDIENCE and job is not None:
                job.ticket = self._admit_first_caller(job)
            self._recording.note_uncounted(trial, arm, reason)
        except Exception as error:
            self._errors.note(RouterPart.SCORING, error)

    def _admit_first_caller(self, job: RoutedRequest) -> Ticket | None:
        """Admits a caller that the audience puts into the canary first, to a ledger of such
        callers. The comparison of both arms does not read it. Returns None for all others.
        """
        audience = job.route.audience
        ledger = audience.first_callers if audience is not None else None
        if ledger is None or job.arm is not Arm.CANARY:
            return None
        return self._recording.admit(ledger, job.arm, job.sticky_key, client=job.key_id)

    def _distinguish_conversation(
        self,
        route: str,
        key: str,
        request: ClientRequest,
    ) -> tuple[str, int]:
        """Returns a key from the conversation's first messages that no application shares, and
        how many of the user's messages before are a shared template. Without such messages,
        returns an empty key, unless the provider stores the turns.
        """
        template = -1
        for template, name in enumerate(client_directives.conversation_keys(request)):
            if name != key:
                self._shares.openings[route].append(name)
            if name not in self._shares.applications[route]:
                return name, template
        is_kept = template < 0 and request.endpoint is _RESPONSES
        return key if is_kept else "", max(template, 0)

    def _plan_incumbent(self, route: CompiledRoute, request: ClientRequest) -> RoutePlan:
        """Plans for the incumbent; if that fails, too, returns the plan for targets that
        are all well.
        """
        try:
            return self._planner.plan(route, Arm.INCUMBENT, request)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            return route.plans[request.endpoint][Arm.INCUMBENT]

    def _reserve_rate(
        self,
        key: str,
        limits: KeyLimits,
        request: ClientRequest | None,
        size: int,
    ) -> RateReservation | Reply | None:
        """Reserves the key's rate and budget; returns the refusal if a limit is reached.

        Returns None if checking the limits failed: then the router serves the request.

        Args:
            request: None for a request that has no route or no valid body.
        """
        try:
            return self._admission.admit(key, limits, request, size)
        except Exception as error:
            self._errors.note(RouterPart.LIMITS, error)
            return None

    def _note_plan_effects(self, job: RoutedRequest) -> tuple[Header, ...]:
        """Counts the plan's effects, and returns the header that names a kill switch in
        force.

        Empty without a switch, or if the switch does nothing on this route.
        """
        plan = job.plan
        try:
            if is_serializing_tools(plan, job.request):
                self._counters["tools_serialized"] += 1
            if plan.forced is None or plan.forced.idle:
                return ()
            effect = "in_effect" if plan.forced.in_effect else "not_in_effect"
            self._counters[f"switch_{effect}"] += 1
            words = f"{plan.forced.switch.id}; {plan.forced.switch.force}; {effect}"
            return ((b"x-swapproof-switch", encode_header_text(words)),)
        except Exception as error:
            self._errors.note(RouterPart.HEADERS, error, job.route, job.arm)
            return ()

    def _find_route(  # noqa: PLR0911 - what refuses a request ends it
        self,
        scope: Scope,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
    ) -> Reply | tuple[ClientRequest, CompiledRoute]:
        """Finds the route of a body; returns the refusal if the body is invalid or has no
        route.

        Looks up the task's route, then the model's name, then the aliases. An agent may
        name a target that a grant opens to it. The route of an override replaces the named
        route last; the key's permission concerns the named route.
        """
        try:
            path = scope["path"]
            # Paths that count tokens belong to the endpoint that they count for.
            endpoint = ENDPOINTS.get(path) or COUNT_PATHS[path]
            request = read_request(body, endpoint)
        except InputError as error:
            param = error.param if isinstance(error, FieldError) else None
            return error_reply(
                400,
                f"the request body: {error}",
                "invalid_json",
                param=param,
            )
        directives = head.directives
        grant = head.grant
        members = request.members.found
        if endpoint is _RESPONSES and "background" in members and members["background"]:
            return error_reply(400, NO_BACKGROUND, "unsupported_parameter", param="background")
        misfit = None
        if (
            CONTENT[request.endpoint] not in members
            or "tools" in members
            or "thread" in members
            or "prompt" in members
        ):
            try:
                misfit = misfit_reply(request)
            except Exception as error:
                self._errors.note(RouterPart.PLAN, error)
        declared = misfit or directives.kind
        if isinstance(declared, Reply):
            return declared
        model = request.model
        route = serving.tasks.get(directives.task) if directives.task is not None else None
        route = route or serving.routes.get(model) or self._names.find(model, serving)
        if route is None:
            # Only agents' requests, which are few, read the clock.
            literal = None
            if CALLER in scope:
                literal = find_literal(scope, model, serving, self._clock.now())
            if literal is None:
                return self._refuse_model(model, serving, grant)
            # A person's grant gives access to the target, whichever routes the key may use.
            return request, literal
        # Check only the requested route, because its overrides belong to it.
        if grant.routes and not is_route_allowed(grant, route.route.name):
            message = f"this key may not use route {route.route.name!r}; ask an admin"
            return error_reply(403, message, "route_not_allowed", param="model")
        return (
            request,
            self._choose_override(scope, request, route, declared)
            if route.overrides
            else route,
        )

    def _refuse_model(
        self,
        name: str,
        serving: CompiledSnapshot,
        grant: KeyGrant,
    ) -> Reply:
        """Refuses an unknown name, with the nearest name of a route that the key may use."""
        if serving.routes:
            allowed = [route for route in serving.routes if is_route_allowed(grant, route)]
            hint = self._names.note_missing(name, allowed)
            lists = f"{hint} GET" if hint else "; GET"
            message = f"there is no route {name!r}{lists} /v1/models lists yours"
        else:
            message = (
                f"there is no route {name!r}, nor any other: the database has none, and "
                f"routers import none. On the control plane's machine, {FIRST_ROUTE_STEP}"
            )
        return error_reply(404, message, "model_not_found", param="model")

    def _choose_override(
        self,
        scope: Scope,
        request: ClientRequest,
        route: CompiledRoute,
        declared: RequestKind | None,
    ) -> CompiledRoute:
        """Returns the route that answers for such requests; the route itself without one.

        Args:
            declared: the kind in the client's header. Without it, the content is examined.
        """

        def find_header(name: str) -> str | None:
            value = header(scope, name.encode())
            return None if value is None else value.decode("latin-1")

        overrides = route.route.settings.overrides
        try:
            predicate = find_override(
                overrides, route.predicates, request, declared, find_header
            )
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, route)
            predicate = None
        return route if predicate is None else route.overrides[predicate]
