"""Time limits say how long an attempt may wait for a stream's first output or a plain answer's
first byte: as configured, or from the times that this worker has measured for such answers.
"""

import math
from typing import Final

from harness.domain.reliability.latency import (
    AnswerTimes,
    add_answers,
    answer_class,
    first_byte_limit_s,
    unmeasured_limit_s,
)
from harness.domain.routing.capabilities import Endpoint, OptionalFeature
from harness.domain.settings import RouterSettings
from router.recording.bounded_map import BoundedMap
from router.request.degradation import given_fields
from router.request.needs import output_limit
from router.request.request_state import AttemptSpec, RoutedRequest
from router.snapshot.compiled import CompiledRoute, CompiledTarget

# Targets, endpoints and classes of answers, of which a worker keeps the times.
KEPT: Final = 2048
# Answers whose times may wait to be summed up.
MAX_NOTED: Final = 256
Kind = tuple[str, Endpoint, int]


def first_token_s(
    route: CompiledRoute, upstream: CompiledTarget, settings: RouterSettings
) -> float:
    """Returns a stream's time limit to its first output: the route's, else the model's, else
    the router's.
    """
    own = route.route.settings.first_token_timeout_s
    return own or upstream.can.first_token_timeout_s or settings.first_token_timeout_s


class TimeLimits:
    """Finds how long an attempt may take to its first output; belongs to one event loop. What
    it has measured is this worker's own.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._times: BoundedMap[Kind, AnswerTimes] = BoundedMap(KEPT)
        # What was noted and is not in these times yet: target, endpoint, limit of the output in
        # tokens, seconds. Where nobody stands behind a target, its times are seldom asked for.
        self._noted: list[tuple[str, Endpoint, int, float]] = []

    def first_s(self, job: RoutedRequest, made: AttemptSpec) -> float:
        """Returns the seconds to a stream's first output, or to a plain answer's first byte;
        inf for no limit.
        """
        if job.request.stream:
            return first_token_s(job.route, made.upstream, self._settings)
        said = (
            job.route.route.settings.first_byte_timeout_s
            or made.upstream.can.first_byte_timeout_s
            or self._settings.first_byte_timeout_s
        )
        if said is not None:
            return said
        if made.check or made.upstream.id == job.plan.targets[-1]:
            return math.inf  # nobody stands behind it: to wait on is all that is left
        thinks = bool(given_fields(job.request, (OptionalFeature.REASONING,)))
        limit = output_limit(job.request)
        unmeasured_s = unmeasured_limit_s(limit, thinks=thinks)
        self._sum_up()
        kind = made.upstream.id, made.endpoint, answer_class(limit)
        return first_byte_limit_s(self._times.get(kind), unmeasured_s)

    def note(self, job: RoutedRequest, made: AttemptSpec, seconds: float) -> None:
        """A plain answer's first byte came after that time, or the wait for it ended then.

        A wait that was cut counts as well: where answers became slower, the limit must follow.
        """
        limit = output_limit(job.request)
        self._noted.append((made.upstream.id, made.endpoint, limit, seconds))
        if len(self._noted) >= MAX_NOTED:
            self._sum_up()

    def _sum_up(self) -> None:
        noted, self._noted = self._noted, []
        by_kind: dict[Kind, list[float]] = {}
        for target, endpoint, limit, seconds in noted:
            by_kind.setdefault((target, endpoint, answer_class(limit)), []).append(seconds)
        for kind, answers_s in by_kind.items():
            self._times.put(kind, add_answers(self._times.get(kind), answers_s))
