"""Gives a request its arm and its plan: the targets to ask, in order.

The rules of arms and plans are in `harness.routing.table` and `harness.routing.plan`. This
module adds the worker's state: health of targets, switches in force, running conversations.
It neither asks a target nor counts evidence. `dispatch` follows the plan.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.people.audience import AudienceRule, CallerClaims
from harness.frame.ports import Clock
from harness.gate.online.outcome import (
    OutcomeKind,
    OutcomeReason,
    outcome_key,
)
from harness.providers.force import KillSwitch, active_switches
from harness.providers.models.capabilities import (
    Capabilities,
    Endpoint,
    Needs,
    missing_capabilities,
    must_serialize_tools,
)
from harness.routing.plan import (
    PlanContext,
    RoutePlan,
    SendHold,
    draw_keep_warm,
    plan_request,
)
from harness.routing.reliability.breaker import WhenAllOpen
from harness.routing.table import Arm, Canary, choose_arm, hash_bucket, place_caller
from router.conversation.intake import is_made_by
from router.conversation.prefill_forms import ANSWER
from router.frame.body import ClientRequest
from router.health.target_health import TargetHealth
from router.recording.shared_files import SharedMarks
from router.request.needs import detect_last_turn, detect_needs
from router.snapshot.compiled import CompiledRoute
from router.upstream.endpoint_translation import UNTRANSLATABLE_FIELDS

_RESPONSES: Final = Endpoint.RESPONSES


class HandedOver(NamedTuple):
    """A request's arm.

    scored: False for a conversation that began before the step, see `Handovers.place`.
    """

    arm: Arm
    scored: bool = True


class Handovers:
    """Assigns arms after a canary's step, so that running conversations keep their model.

    now_s: seconds since 1970 UTC. begun: marks of conversations, from all workers on the
    machine.
    """

    def __init__(self, now_s: Callable[[], float], begun: SharedMarks) -> None:
        self._now_s = now_s
        self._begun = begun

    def place(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        key: str,
        drawn: Arm,
        template: int = 0,
    ) -> HandedOver:
        """Assigns an arm for the time after a step; later the drawn arm counts.

        Args:
            key: the sticky key.
            drawn: the arm that the key draws.
            template: how many of the user's first messages belong to a shared template.

        During a handover, a running conversation counts only if it began at this step, in both
        arms alike. If only one arm left conversations out, the arms' shares would differ, and
        a model with a low rate of failures in running conversations would look better.

        A running conversation goes to the candidate only if it can have begun there: the key
        was in the canary's settled share, this machine marked the beginning, or the candidate
        signed a part. All others stay with the incumbent.
        """
        canary = route.route.canary
        handover = canary.handover if canary is not None else None
        if canary is None or handover is None or self._now_s() >= handover.until_s:
            return HandedOver(drawn)
        at_this_step = f"{canary.rollout}:{canary.weight_bps}:{key}"
        at_candidate = f"{canary.rollout}:{_CANARY}:{key}"
        if not is_under_way(request, template):
            self._begun.add(at_this_step)
            if drawn is _CANARY:
                self._begun.add(at_candidate)
            return HandedOver(drawn)
        if self._begun.has(at_this_step):
            return HandedOver(drawn)
        is_settled = hash_bucket(key, salt=canary.salt) < handover.settled_bps
        if drawn is not _CANARY or is_settled:
            return HandedOver(drawn, scored=False)
        began_at_candidate = self._begun.has(at_candidate) or is_made_by(
            request.text, route.upstreams[canary.target].maker
        )
        return HandedOver(_CANARY if began_at_candidate else _INCUMBENT, scored=False)


def is_under_way(request: ClientRequest, template: int = 0) -> bool:
    """Returns whether an answer follows the user's first message.

    The last turn may be an answer that the model is to continue. A response that refers to
    stored turns is always under way.

    Args:
        template: as for `Handovers.place`.
    """
    if request.endpoint is _RESPONSES:
        if request.value("previous_response_id") or request.value("conversation"):
            return True
        turns = request.value("input")
    else:
        turns = request.value("messages")
    if not isinstance(turns, list):
        return False
    user_turns = [
        number
        for number, turn in enumerate(turns)
        if isinstance(turn, dict) and turn.get("role") == "user"
    ]
    first = user_turns[template] if len(user_turns) > template else 0
    return any(
        turn.get("type", "message") != "message" or turn.get("role") == "assistant"
        for turn in turns[first:-1]
        if isinstance(turn, dict)
    )


# Up to Python 3.11, to find a member in its class takes ten times as long.
_INCUMBENT: Final = Arm.INCUMBENT
_CANARY: Final = Arm.CANARY
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
# Why a request was not sent, by the hold of its target.
HELD_REASONS: Final[Mapping[SendHold, OutcomeReason]] = {
    SendHold.PAUSE: OutcomeReason.PAUSE,
    SendHold.QUOTA: OutcomeReason.LIMIT,
}
PLAIN_NEEDS: Final = {endpoint: Needs(endpoint) for endpoint in Endpoint}


class Planner:
    """Plans requests, for one event loop.

    when_all_open: whether a target is asked although all circuits are open.
    stopped: returns whether this router aborted a canary itself. Its share then goes to the
    incumbent before the database knows of the abort.
    """

    def __init__(
        self,
        health: TargetHealth,
        clock: Clock,
        when_all_open: WhenAllOpen,
        begun: SharedMarks,
        stopped: Callable[[Canary | None], bool] = lambda _: False,
    ) -> None:
        self._has_aborted = stopped
        self._handovers = Handovers(lambda: clock.now().timestamp(), begun)
        self._health = health
        self.not_closed = health.not_closed  # targets whose circuit is open or half open
        self.paused = health.slowdowns.slowed  # targets whose provider requested a pause
        self._clock = clock
        self._when_all_open = when_all_open

    def assign(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        key: str,
        template: int = 0,
    ) -> tuple[Arm, RoutePlan, bool]:
        """Returns the arm, the plan, and whether the request may count as evidence.

        Args:
            key: as for `Handovers.place`.
            template: as for `Handovers.place`.

        A small share of the keys keeps fallbacks warm; embeddings never do.
        """
        if route.warmed and request.endpoint is not _EMBEDDINGS:
            plan = self._plan_keep_warm(route, request, key)
            if plan is not None:
                return Arm.KEEP_WARM, plan, True
        arm = _INCUMBENT if route.experiment is None else choose_arm(route.route, key)
        canary = route.route.canary
        scored = True
        if canary is not None and canary.handover is not None:
            arm, scored = self._handovers.place(
                route,
                request,
                key,
                arm,
                template,
            )
        if arm is _CANARY and self._has_aborted(canary):
            arm = _INCUMBENT
        return arm, self.plan(route, arm, request), scored

    def assign_by_audience(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        claims: CallerClaims,
        key: str,
    ) -> tuple[Arm, RoutePlan] | None:
        """Returns arm and plan of a caller that the audience names; None for all others.

        Args:
            claims: of the request.
            key: the sticky key.

        The rule decides before the keep-warm share, so that a caller in `never` gets no
        fallback without need. At the beginning of a step, a running conversation of a caller
        that the step puts first stays with the incumbent.
        """
        arm, rule, _ = place_caller(route.route, claims, key)
        canary = route.route.canary
        if rule is None:
            return None
        if arm is _CANARY and self._has_aborted(canary):
            arm = _INCUMBENT
        elif arm is _CANARY:
            settled = route.audience.settled if route.audience is not None else None
            before = settled.find_set(claims) if settled is not None else None
            if before is None or before[0] is not AudienceRule.FIRST:
                arm, _ = self._handovers.place(route, request, key, arm)
        return arm, self.plan(route, arm, request)

    def _plan_keep_warm(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        key: str,
    ) -> RoutePlan | None:
        """Plans the keep-warm target that the key draws today; None for all other keys."""
        now = self._clock.now()
        warm = draw_keep_warm(
            key,
            route=route.route.name,
            day=now.date(),
            targets=route.warmed,
            healthy=lambda id_: self._health.all_well((id_,)),
            setting=route.keep_warm,
        )
        return self.prefer(route, request, warm) if warm is not None else None

    def prefer(
        self,
        route: CompiledRoute,
        request: ClientRequest,
        target: str,
    ) -> RoutePlan | None:
        """Plans a target before the incumbent; None if it cannot answer now.

        Args:
            target: the id of a fallback of the route.

        A kill switch in effect takes precedence: None.
        """
        if target not in route.route.fallbacks:
            return None
        needs, can = _find_needs(route, request)
        switches = active_switches(route.switches, self._clock.now())
        context = self._build_context(route, can, route.upstreams, switches)
        plan = plan_request(route.route, Arm.KEEP_WARM, needs, context, target)
        return plan if target in plan.targets and not _is_switched(plan) else None

    def plan(
        self,
        route: CompiledRoute,
        arm: Arm,
        request: ClientRequest,
    ) -> RoutePlan:
        """Returns the plan of an arm for this request.

        While all targets are well and the route has no special needs, this is the plan that
        the snapshot contains, so most requests compute nothing. If only the estimated
        number of tokens excludes all targets, the plan ignores it.
        """
        well = route.plans[request.endpoint][arm]
        prefill = request.endpoint in route.prefills and ANSWER in request.text
        if route.is_fixed and not prefill:
            is_any_unwell = self.not_closed or self.paused
            if not is_any_unwell or self._health.all_well(well.targets):
                return well
        # Read the wall clock and the input only if the route has switches or special needs.
        switches = active_switches(route.switches, self._clock.now()) if route.switches else ()
        needs, can = _find_needs(route, request)
        ends_with_answer = needs.prefill or needs.new_answer
        is_plain = not route.particular and can is route.capabilities and not ends_with_answer
        suits = is_plain or _are_needs_met(can, well, needs)
        if suits and not switches and not needs.prefill and self._health.all_well(well.targets):
            return well
        context = self._build_context(route, can, well.targets, switches)
        plan = plan_request(route.route, arm, needs, context)
        if plan.unable and needs.tokens:
            # The number of tokens is an estimate: it must not exclude all targets.
            certain_needs = replace(needs, approx_input_tokens=0, max_output_tokens=0)
            return plan_request(route.route, arm, certain_needs, context)
        return plan

    def is_switched(self, route: CompiledRoute, request: ClientRequest) -> bool:
        """Tells whether a switch applies, for both arms alike, so that it causes no bias."""
        return _is_switched(self.plan(route, _CANARY, request))

    def is_unsupported(self, route: CompiledRoute, request: ClientRequest) -> bool:
        """Tells whether the candidate lacks an ability that the request needs and the other
        model has. Such a request counts in neither arm, so that it causes no bias.
        """
        trial = route.experiment
        if trial is None:
            return False
        needs, can = _find_needs(route, request)
        arms = (trial.target, route.route.incumbent)
        candidate_target, other_arm_target = reversed(arms) if trial.control else arms
        lacks = missing_capabilities(needs, can[candidate_target])
        return bool(lacks) and not missing_capabilities(needs, can[other_arm_target])

    def find_held_outcome(
        self,
        route: CompiledRoute,
        arm: Arm,
        plan: RoutePlan,
    ) -> str:
        """Returns why a request of a rollout counts in neither arm; empty if it counts.

        A pause or a used-up quota of either arm's target is no failure of that target. The
        result is a key of `ObservationBlock.uncounted`. An open circuit for any other reason
        is a failure of its target, so the request counts.
        """
        trial = route.experiment
        incumbent = route.route.incumbent
        if trial is None or self._health.all_well((trial.target, incumbent)):
            return ""
        available = self._health.readiness((trial.target, incumbent))
        own_target = incumbent if arm is _INCUMBENT else trial.target
        if (hold := available[own_target].held) is not None and own_target not in plan.targets:
            return outcome_key(OutcomeKind.NOT_SENT, HELD_REASONS[hold])
        if any(target.held is not None for target in available.values()):
            return outcome_key(OutcomeKind.NOT_MEASURED, OutcomeReason.OTHER_HELD)
        return ""

    def _build_context(
        self,
        route: CompiledRoute,
        can: Mapping[str, Capabilities],
        targets: Iterable[str],
        switches: Sequence[KillSwitch],
    ) -> PlanContext:
        return PlanContext(
            capabilities=can,
            health=self._health.readiness(targets),
            targets=route.targets,
            switches=switches,
            keyless=route.keyless,
            barred=route.barred,
            when_all_open=self._when_all_open,
        )


def _is_switched(plan: RoutePlan) -> bool:
    return plan.forced is not None and plan.forced.in_effect


def _find_needs(
    route: CompiledRoute, request: ClientRequest
) -> tuple[Needs, Mapping[str, Capabilities]]:
    """Returns the request's needs, and the capabilities of the route's targets for it.

    They differ for a request with fields that no translation carries: only targets that
    speak its protocol can then answer.
    """
    needs = PLAIN_NEEDS[request.endpoint]
    if route.particular:
        needs = detect_needs(request, route.incumbent_prefill)
    elif request.endpoint in route.prefills:
        needs = detect_last_turn(request, route.incumbent_prefill)
    native = route.native.get(request.endpoint)
    untranslatable = UNTRANSLATABLE_FIELDS[request.endpoint](request.value) if native else ""
    if native and untranslatable:
        return replace(needs, native=untranslatable), native
    return needs, route.capabilities


def _are_needs_met(
    can: Mapping[str, Capabilities],
    plan: RoutePlan,
    needs: Needs,
) -> bool:
    target_capabilities = tuple(can[target] for target in plan.targets)
    return not any(
        missing_capabilities(needs, capabilities) for capabilities in target_capabilities
    ) and not must_serialize_tools(needs, target_capabilities)
