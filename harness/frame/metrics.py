"""Every metric that a router or the control plane shows at /metrics, by the name that
Prometheus stores, without the `_total` of a counter; docs/reference/metrics.md is written from
it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class MetricSpec(NamedTuple):
    """Describes one metric. kind: counter, gauge or histogram."""

    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


_C, _G, _H = "counter", "gauge", "histogram"
ROUTER_METRICS: Final[Mapping[str, MetricSpec]] = {
    "swapgate_requests": MetricSpec(
        _C,
        "Requests by assigned arm, and by the target that answered or was tried last; outcome "
        "is ok, failed, client_error, cancelled, or handed_on (to an agent's `fallbackModel`)",
        ("route", "arm", "provider", "target", "outcome"),
    ),
    "swapgate_request_duration_seconds": MetricSpec(
        _H,
        "To the last byte of an answer, by the target that answered or was tried last",
        ("route", "provider", "target", "outcome"),
    ),
    "swapgate_time_to_first_token_seconds": MetricSpec(
        _H,
        "From a stream's request to its first output, failovers included",
        ("route", "provider", "target"),
    ),
    "swapgate_attempts": MetricSpec(
        _C,
        "Calls of a provider; failure_class is `none` for calls that answered",
        ("provider", "target", "failure_class"),
    ),
    "swapgate_failovers": MetricSpec(
        _C,
        "Requests that left a target for the next one, or found its circuit open",
        ("route", "provider", "target", "failure_class"),
    ),
    "swapgate_feedback": MetricSpec(
        _C,
        "Feedback; verdict is good, bad, or none for a label alone",
        ("route", "arm", "verdict", "label"),
    ),
    "swapgate_irregular_answers": MetricSpec(
        _C,
        "Answers that were passed on with a fault of their end, or with NaN in an event",
        ("target", "what"),
    ),
    "swapgate_refused_pieces": MetricSpec(
        _C,
        "Answers that a provider gave only without a piece of the conversation; piece is "
        "thinking, reasoning, no_reasoning, signature, beta or field",
        ("target", "piece"),
    ),
    "swapgate_requests_without_route": MetricSpec(
        _C,
        "Requests for a model without a route, by its name",
        ("model",),
    ),
    "swapgate_internal_errors": MetricSpec(
        _C,
        "Faults of the router's own, by its part and the arm of the request",
        ("part", "arm"),
    ),
    "swapgate_tokens": MetricSpec(_C, "Tokens as providers report them", ("target", "kind")),
    "swapgate_cost_dollars": MetricSpec(
        _C, "US dollars spent at targets that have a price", ("target",)
    ),
    "swapgate_breaker_state": MetricSpec(_G, "0 closed, 1 half open, 2 open", ("target",)),
    "swapgate_target_pause_seconds": MetricSpec(
        _G, "Seconds left of a pause that the target's provider asked for", ("target",)
    ),
    "swapgate_learned_repairs": MetricSpec(
        _G,
        "1 while this field is left out or changed: the target refused it",
        ("target", "field"),
    ),
    "swapgate_health_check_up": MetricSpec(
        _G, "1 when the target answered its last health check, or a request since", ("target",)
    ),
    "swapgate_health_check_duration_seconds": MetricSpec(
        _G, "How long the target's last health check took", ("target",)
    ),
    "swapgate_routing_revision": MetricSpec(_G, "The routing revision that the worker serves"),
    "swapgate_snapshot_age_seconds": MetricSpec(
        _G, "Since the worker last saw that its revision is current"
    ),
    "swapgate_router_stale": MetricSpec(_G, "1 while the database is away"),
    "swapgate_router_revision_refused": MetricSpec(
        _G, "1 while a new revision does not validate, and the one before it serves"
    ),
    "swapgate_router_workers": MetricSpec(_G, "Workers that serve"),
    "swapgate_router_requests_under_way": MetricSpec(_G, "Requests that are being answered"),
    "swapgate_router_agents_under_way": MetricSpec(
        _G, "Requests to the agents process that are being answered"
    ),
    "swapgate_router_tasks": MetricSpec(_G, "Tasks of the worker's event loop"),
    "swapgate_observations_dropped": MetricSpec(
        _C, "Rows of observations that database, spool and memory did not take"
    ),
}


def _about(meanings: Mapping[str, str]) -> dict[str, MetricSpec]:
    return {
        f"swapgate_router_{name}": MetricSpec(_C, meaning) for name, meaning in meanings.items()
    }


# What a router's processes count about themselves.
PROCESS_COUNTERS: Final[Mapping[str, MetricSpec]] = _about(
    {
        "agent_callers_refused": "Calls of agents with a header that is not believed",
        "agents_broke_off": "Answers of the agents process that ended before their end",
        "agents_refused_when_full": "Requests to agents that were refused: too many waited",
        "agents_requests": "Requests that were passed on to the agents process",
        "agents_unavailable": "Requests that the agents process did not take",
        "alerts_dropped": "Alerts that found no room in memory",
        "budget_stopped": "Requests that were refused since their key's budget is spent",
        "callers_gone": "Requests whose client left before the answer",
        "canaries_aborted": "Canaries that this router ended by its own evidence",
        "captures_dropped": "Copies of requests that found no room, or no database",
        "captures_over_day": "Copies of requests past the route's `capture_per_day`",
        "captures_refused": "Requests whose client does not want a copy kept",
        "captures_repeated": "Copies of a question that was kept already",
        "captures_stored": "Copies of requests that were kept",
        "captures_too_large": "Requests that are too large to be kept",
        "captures_unreadable": "Copies that are not what their protocol says",
        "claims_failed": "Times that the ledger of callers did not take a block",
        "failover_rows_dropped": "Rows of the failover log past 20 a second",
        "flushes_failed": "Times that observations did not reach the database",
        "internal_errors": "Faults of the router's own, in all its parts",
        "judge_asked": "Answers that the canary's judge was asked about",
        "judge_bad": "Answers that it found bad",
        "judge_budget_unknown": "Answers not drawn, since the judge's spending is unknown",
        "judge_circuit_open": "Answers not drawn, since the judge's circuit is open",
        "judge_declined": "Answers not drawn, since the client does not want it",
        "judge_failed": "Times that it did not answer",
        "judge_full": "Answers not drawn, since too many wait for the judge",
        "judge_good": "Answers that it found good",
        "judge_no_verdict": "Answers that it gave no verdict on",
        "judge_over_monthly_cap": "Answers not drawn, since the monthly cap is reached",
        "judge_over_budget": "Answers not drawn, since the judge's money is spent",
        "judge_resting": "Answers not drawn, since the judge failed a moment ago",
        "judge_too_large": "Answers not drawn, since the request is too large",
        "judge_unreadable": "Verdicts of the judge that cannot be read",
        "judge_without_answer": "Drawn requests that had no answer to judge",
        "log_events_dropped": "Lines of the log that found no room",
        "rate_limited": "Requests over a limit of their key",
        "reloads": "Reloads of the configuration (SIGHUP)",
        "reloads_refused": "Reloads that were refused, since the file is wrong",
        "reports_refused": "Reports of a worker that its parent could not read",
        "refused_when_full": "Requests over `router.max_concurrent`",
        "requests_without_price": "Answers of targets without a price",
        "rows_refused": "Rows of observations that the database refused",
        "rows_spooled": "Rows of observations that wait on disk",
        "rows_written": "Rows of observations that the database took",
        "shadow_budget_unknown": "Requests not mirrored, since the spending is unknown",
        "shadow_circuit_open": "Requests not mirrored, since the candidate's circuit is open",
        "shadow_declined": "Requests not mirrored, since the client does not want it",
        "shadow_dropped": "Requests not mirrored, since as many as may be are under way",
        "shadow_mirrored": "Requests that were mirrored to a candidate",
        "shadow_not_repeatable": "Requests not mirrored, since asking twice acts twice",
        "shadow_over_monthly_cap": "Requests not mirrored, since the monthly cap is reached",
        "shadow_over_budget": "Requests not mirrored, since the shadow's money is spent",
        "shadow_resting": "Requests not mirrored, since the candidate failed a moment ago",
        "shadow_too_large": "Requests not mirrored, since they are too large",
        "shadow_unable": "Requests not mirrored, since the candidate lacks what they need",
        "shadow_unreadable": "Mirrored requests whose answer could not be compared",
        "unnamed_callers": "Requests that named no caller",
        "switch_in_effect": "Requests under a kill switch that went where it says",
        "switch_not_in_effect": "Requests under a kill switch that could not go there",
        "tools_serialized": "Requests whose tool calls were made one at a time",
        "units_counted_elsewhere": "Callers that another router had counted already",
        "unknown_keys": "Requests with a key that is unknown, revoked or expired",
        "unscored_in_handover": "Requests of conversations older than the canary's share",
        "unscored_in_haste": "Requests with a deadline of the client's own that is too short",
        "unscored_units": "Callers whose outcome came after their canary had ended",
        "worker_restarts": "Workers that ended and were started again",
    }
)
CONTROL_METRICS: Final[Mapping[str, MetricSpec]] = {
    "swapgate_proposals": MetricSpec(_G, "Proposals by phase", ("phase",)),
    "swapgate_canary_weight_bps": MetricSpec(
        _G, "Share of a live canary, in basis points (100 is 1 %)", ("route", "state")
    ),
    "swapgate_canary_log_e": MetricSpec(
        _G, "Evidence of harm, as the natural logarithm of an e-value", ("route",)
    ),
    "swapgate_canary_distance_to_trip": MetricSpec(
        _G, "How much more log e rolls the canary back", ("route",)
    ),
    "swapgate_reconcile_age_seconds": MetricSpec(
        _G, "Since the control plane last looked at proposals and canaries"
    ),
}
_ROUTERS: Final = {**ROUTER_METRICS, **PROCESS_COUNTERS}


def router_metric(name: str) -> MetricSpec:
    """Describes a router's metric; one that is not in the table is a counter of that name."""
    unknown = MetricSpec(_C, name.removeprefix("router_").replace("_", " "))
    return _ROUTERS.get(f"swapgate_{name}", unknown)
