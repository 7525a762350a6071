"""Where a request is entered once it is over: statistics, metrics, the failover log."""

from typing import NamedTuple

from harness.domain.routing import Arm, Canary
from harness.ports import Clock
from router.exchange import NO_USAGE, Exchange
from router.failover_log import FailoverLog
from router.metrics import RouterMetrics
from router.minutes import Ended
from router.recording import Recording, Ticket


class Entry(NamedTuple):
    """What is known of a request before it is served.

    started: the clock's monotonic time. key: the id of the caller's.
    """

    ticket: Ticket | None
    revision: int
    started: float
    sticky_key: str
    request_id: str
    key: str


class Books:
    def __init__(
        self, recorder: Recording, metrics: RouterMetrics, failovers: FailoverLog, clock: Clock
    ) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._failovers = failovers
        self._clock = clock

    def admit(self, canary: Canary | None, arm: Arm, key: str) -> Ticket | None:
        return self._recorder.admit(canary, arm, key) if canary else None

    def count(self, name: str) -> None:
        self._recorder.counters[name] += 1

    def enter(self, exchange: Exchange, entry: Entry) -> None:
        job, course = exchange.job, exchange.course
        upstream, usage = course.upstream, exchange.usage
        cost_usd, priced = 0.0, True
        if upstream is not None and upstream.price is not None:
            cost_usd = upstream.price.cost_usd(*usage)
        elif usage != NO_USAGE:
            priced = False
            self.count("requests_without_price")
        seconds = self._clock.monotonic() - entry.started
        ended = Ended(
            route=job.route.route.name,
            arm=job.arm.value,
            target=upstream.id if upstream else "",
            revision=entry.revision,
            stream=job.request.stream,
            failed=exchange.failed,
            charged=exchange.charged,
            latency_ms=seconds * 1000,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=cost_usd,
            key=entry.key,
            priced=priced,
            cached_tokens=usage.cached_tokens,
        )
        self._recorder.finish(entry.ticket, ended)
        self._recorder.served_names.note(ended.target, exchange.model)
        self._metrics.finished(
            ended,
            target=upstream.name if upstream else "",
            outcome=exchange.outcome,
            first_token_s=course.first_token_s,
        )
        self._failovers.note(
            job,
            course,
            request_id=entry.request_id,
            user=entry.sticky_key,
            ms=seconds * 1000,
        )
