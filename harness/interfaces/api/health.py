"""Endpoints for health and readiness, and Prometheus metrics of the control process."""

from collections.abc import Callable, Iterable

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.datastructures import State
from starlette.responses import Response

from harness.app.installation import Installation
from harness.canary import status as canary_status
from harness.frame.metrics import CONTROL_METRICS
from harness.interfaces.api.frame.error_status import JsonAnswer
from harness.operations.context import Context
from harness.proposals import submission
from harness.routing.proposal import ProposalPhase

log = structlog.get_logger("swapproof.api")
router = APIRouter(include_in_schema=False)
probes = APIRouter(include_in_schema=False)  # every process with an API serves these paths
TurnAge = Callable[[], float | None]


@probes.get("/healthz")
async def healthz() -> JsonAnswer:
    """Answers without reading the database or calling other processes."""
    return JsonAnswer({"status": "ok"})


@probes.get("/readyz")
def readyz(request: Request) -> JsonAnswer:
    """Returns whether the database answers and has Swapproof's tables."""
    state = request.app.state
    installation: Installation = state.installation
    try:
        installation.store.etag()
    except Exception as error:  # noqa: BLE001 - after any error the process is not ready
        _note_readiness(state, str(error) or type(error).__name__)
        return JsonAnswer({"status": "not ready"}, status_code=503)
    _note_readiness(state, "")
    return JsonAnswer({"status": "ok"})


def _note_readiness(state: State, reason: str) -> None:
    """Logs only changes, because a supervisor may check several times a second."""
    if reason == getattr(state, "not_ready_because", ""):
        return
    state.not_ready_because = reason
    if reason:
        log.warning("not_ready", error=reason)
    else:
        log.info("ready")


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Returns Prometheus metrics, to viewers and to the metrics token."""
    state = request.app.state
    registry = CollectorRegistry()
    registry.register(_MetricsCollector(state.installation.context, state.turn_age_s))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _MetricsCollector(Collector):
    """Reads the figures from the database at each scrape."""

    def __init__(self, ctx: Context, turn_age_s: TurnAge | None) -> None:
        self._ctx = ctx
        self._turn_age_s = turn_age_s

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield self._count_proposals()
        yield from self._measure_canaries()
        age = self._turn_age_s() if self._turn_age_s else None
        if age is not None:
            spec = CONTROL_METRICS["swapproof_reconcile_age_seconds"]
            yield GaugeMetricFamily("swapproof_reconcile_age_seconds", spec.meaning, age)

    def _count_proposals(self) -> Metric:
        family = _build_gauge("swapproof_proposals")
        counts = submission.count_phases(self._ctx)
        for phase in ProposalPhase:
            family.add_metric([phase.value], counts.get(phase, 0))
        return family

    def _measure_canaries(self) -> Iterable[Metric]:
        weight = _build_gauge("swapproof_canary_weight_bps")
        log_e = _build_gauge("swapproof_canary_log_e")
        distance = _build_gauge("swapproof_canary_distance_to_trip")
        for status in canary_status.list_canaries(self._ctx):
            rollout = status.rollout
            weight.add_metric(
                [rollout.route, rollout.state.value],
                rollout.current.weight_bps,
            )
            log_e.add_metric([rollout.route], status.action.log_e)
            distance.add_metric([rollout.route], status.action.distance_to_trip)
        return weight, log_e, distance


def _build_gauge(name: str) -> GaugeMetricFamily:
    spec = CONTROL_METRICS[name]
    return GaugeMetricFamily(name, spec.meaning, labels=spec.labels)
