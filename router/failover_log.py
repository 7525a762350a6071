"""The failover log (B5): which target a request left, and why; never its content.

Written by a thread of its own: a log that nobody reads must not hold up requests.
"""

import threading
from collections.abc import Iterator, Mapping
from queue import Empty, Full, Queue
from typing import Final, NamedTuple

import structlog

from harness.domain.access import key_hash
from harness.domain.plan import Because
from harness.ports import Clock
from router.body import ClientRequest
from router.course import Course, Job
from router.metrics import RouterMetrics

log = structlog.get_logger("swapgate.router")

QUEUE: Final = 10_000
OPEN: Final = "circuit_open"
STOP_S: Final = 5.0


class Left(NamedTuple):
    """A target that did not answer. failure: a class of `domain.failures`, or OPEN."""

    target: str
    provider: str
    failure: str
    status: int | None = None
    attempts: int = 0
    ms: float = 0.0


class FailoverLog:
    """secret: under which users are hashed. dropped: events that nobody took."""

    def __init__(self, secret: bytes, clock: Clock, metrics: RouterMetrics) -> None:
        self.dropped = 0
        self._secret = secret
        self._clock = clock
        self._metrics = metrics
        self._events: Queue[Mapping[str, object] | None] = Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name="failover-log", daemon=True)

    def note(self, job: Job, course: Course, *, request_id: str, user: str, ms: float) -> None:
        """A request ended: an event for every target that it left. user: its sticky key."""
        if not job.plan.left_out and len(course.attempts) == 1 and course.result is not None:
            return
        left = list(left_targets(job, course))
        if not left:
            return
        answered = course.upstream
        about = {
            "at": self._clock.now().isoformat(),
            "request": request_id,
            "route": job.route.route.name,
            "arm": job.arm.value,
            "answered_by": answered.name if answered else None,
            "user": user_hash(user, self._secret),
            "request_ms": round(ms),
            **shape(job.request),
        }
        for each in left:
            self._metrics.failover(job.route.route.name, each.target, each.failure)
            self._put(
                {
                    **about,
                    "target": each.target,
                    "provider": each.provider,
                    "failure_class": each.failure,
                    "status": each.status,
                    "attempts": each.attempts,
                    "ms": round(each.ms),
                }
            )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, within STOP_S."""
        if self._thread.is_alive():
            try:
                self._events.put(None, timeout=STOP_S)
            except Full:
                return
            self._thread.join(STOP_S)

    def drain(self) -> None:
        """Write all that is waiting, here and now."""
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return
            if event is not None:
                log.warning("failover", **event)

    def _put(self, event: Mapping[str, object]) -> None:
        try:
            self._events.put_nowait(event)
        except Full:
            self.dropped += 1

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                log.warning("failover", **event)
            except Exception:  # noqa: BLE001 - whoever reads the log left; requests go on
                self.dropped += 1


def left_targets(job: Job, course: Course) -> Iterator[Left]:
    """In the order of the plan: those left out as open, then those that were asked in vain."""
    upstreams = job.route.upstreams
    for out in job.plan.left_out:
        if out.because is Because.OPEN:
            yield Left(upstreams[out.target].name, upstreams[out.target].provider.name, OPEN)
    for target in job.plan.targets:
        upstream = upstreams[target]
        made = [each for each in course.attempts if each.upstream.id == target]
        last = made[-1].failure if made else None
        # Whose refusal the client gets was not left.
        if last is not None and course.result is not last:
            spent_ms = sum(each.ms for each in made)
            yield Left(
                upstream.name,
                upstream.provider.name,
                last.failure.value,
                last.status,
                len(made),
                spent_ms,
            )
        elif not made and target in course.shut_out:
            yield Left(upstream.name, upstream.provider.name, OPEN)


def shape(request: ClientRequest) -> dict[str, object]:
    """Sizes and kinds, without a word of the content."""
    messages, tools = request.value("messages"), request.value("tools")
    return {
        "stream": request.stream,
        "body_chars": len(request.text),
        "messages": len(messages) if isinstance(messages, list) else 0,
        "tools": len(tools) if isinstance(tools, list) else 0,
    }


def user_hash(sticky_key: str, secret: bytes) -> str:
    """HMAC-SHA-256, hex, of the sticky key, such as `user:alice`: who knows it can search."""
    return key_hash(f"failover:{sticky_key}", secret)[:32]
