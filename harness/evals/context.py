"""`EvalsContext`: everything outside a use case that a use case of evals may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.evals.ports import EvalWorkers, RunQueue, SuiteCatalog
from harness.gate.policy import DriftPolicy
from harness.routing.context import RoutingContext


@dataclass(frozen=True, kw_only=True)
class EvalsContext(RoutingContext):
    """Adds the content of suites, the workers of runs and the monthly cap."""

    suites: SuiteCatalog
    workers: EvalWorkers | None = None  # None if this process starts no eval workers
    eval_workers: int = 2  # the most workers at one time
    run_queue: RunQueue | None = None  # None: no workers on other hosts
    eval_connections: int = 8  # concurrent calls of one worker
    # The drift policies of the suites that have drift checks, by suite.
    drift: Mapping[str, DriftPolicy] = field(default_factory=dict)
    monthly_cap_usd: float | None = None  # the file's cap; the database has the cap in force
