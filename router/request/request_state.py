"""The state of a routed request: what it is (`RoutedRequest`), an attempt to be made and one
that ended, its progress and result, and how its assigned arm failed, if it did (`charge`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.domain.providers.credentials import ProviderKey
from harness.domain.reliability.breaker import Ticket
from harness.domain.reliability.failures import ArmFailure, FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.plan import ExclusionReason, RoutePlan
from harness.domain.routing.table import Arm
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
from router.frame.replies import Header
from router.request.attempt import UpstreamAnswer
from router.request.guardrail_probe import GuardrailProbe
from router.request.stream_relay import CommittedStream, OnEnd
from router.snapshot.compiled import CompiledRoute, CompiledTarget
from router.snapshot.route_plans import is_arm_charged

# Of a target that is left out: what would have failed had it been asked.
FAILING: Final = (ExclusionReason.OPEN, ExclusionReason.KEY, ExclusionReason.DATA_CLASS)


class RequestSpan(Protocol):
    """Records one request's attempts in a trace. passed_up: headers for the attempt that is
    under way.
    """

    @property
    def passed_up(self) -> tuple[Header, ...]: ...

    def attempt(self, upstream: CompiledTarget, number: int, settle: OnEnd) -> OnEnd:
        """An attempt begins; calling what is returned ends it, and calls `settle`."""
        ...


@dataclass(slots=True)
class RoutedRequest:
    request: ClientRequest
    route: CompiledRoute
    arm: Arm
    plan: RoutePlan
    begun: float  # begun, deadline: on the event loop's clock
    deadline: float
    passed_up: tuple[Header, ...] = ()  # headers of the client's that go to the provider
    span: RequestSpan | None = None  # None without tracing
    # The client gave less time than the route: that it is up says nothing of a provider.
    hurried: bool = False
    probe: GuardrailProbe | None = None  # for the guardrails of a live rollout; None for none
    caller: tuple[str, str] = ("", "")  # the sticky key, and the id of the API key

    @property
    def arm_target(self) -> str:
        return self.plan.guest or self.plan.incumbent

    def is_keep_warm_for(self, target: str) -> bool:
        return self.arm is Arm.KEEP_WARM and target == self.plan.guest

    @property
    def candidate_is_unable(self) -> bool:
        """Tells whether the canary cannot do what the request needs, and the incumbent can."""
        out = self.plan.guest_left_out
        return (
            self.arm is Arm.CANARY
            and out is not None
            and out.because is ExclusionReason.CAPABILITY
            and self.plan.incumbent in self.plan.targets
        )


@dataclass(slots=True)
class Attempt:
    """Describes an attempt: one to be made, or of a request, one that has ended."""

    upstream: CompiledTarget
    ticket: Ticket
    key: ProviderKey | None  # the one to use, None where it has none
    until: float  # on the event loop's clock
    number: int  # of its target, from 1
    endpoint: Endpoint
    check: bool = False  # of its health, by a request of our own
    caller: tuple[str, str] = ("", "")  # the request's
    # It was cut for being slow to begin, since another target stands behind.
    slow: bool = False
    failure: UpstreamFailed | None = None  # how it ended, if it did without an answer
    ms: float = 0.0  # what it took


@dataclass(slots=True)
class RequestProgress:
    attempts: list[Attempt] = field(default_factory=list)
    # Target ids whose breaker opened between the plan and their turn.
    shut_out: tuple[str, ...] = ()
    # What the client gets, None when all failed.
    result: UpstreamAnswer | CommittedStream | UpstreamFailed | None = None
    # first_token_s, last_token_s: of a stream, from the request to its first output, and to its
    # end.
    first_token_s: float | None = None
    last_token_s: float | None = None
    # When nobody answered, the seconds until each target may be asked again, 0 for now.
    waits: Mapping[str, float] | None = None

    @property
    def upstream(self) -> CompiledTarget | None:
        """Returns the target whose answer, or refusal, the client gets."""
        return self.attempts[-1].upstream if self.result is not None else None

    def shut(self, target: str) -> UpstreamFailed:
        """Notes a target whose breaker gives no ticket, as if it were overloaded."""
        self.shut_out = (*self.shut_out, target)
        return UpstreamFailed(FailureClass.OVERLOADED, "its circuit is open")

    def charge(self, job: RoutedRequest) -> str:
        """Names how the assigned arm failed, or why it was left out through its fault.

        Empty where it did not, or was shut out on its turn: what opened the circuit counts.
        """
        if not (job.plan.left_out or self.shut_out) and len(self.attempts) == 1:
            failure = self.attempts[0].failure
            if failure is None or not is_arm_charged(job.arm, [failure.failure]):
                return ""
            return failure.named
        failing = {
            excluded.target for excluded in job.plan.left_out if excluded.because in FAILING
        }
        if job.arm_target in failing:
            return ArmFailure.CIRCUIT_OPEN.value
        if job.plan.left_out and job.candidate_is_unable:
            return ArmFailure.UNABLE.value
        last = {attempt.upstream.id: attempt.failure for attempt in self.attempts}
        own = last.get(job.arm_target)
        classes = [failed.failure if failed else None for failed in last.values()]
        return own.named if own and is_arm_charged(job.arm, classes) else ""
