"""Defines each metric that a router or the control plane exports at /metrics, by its Prometheus
name without a counter's `_total`. `make docs` generates docs/reference/metrics.md from it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class MetricSpec(NamedTuple):
    """Describes one metric. kind: counter, gauge or histogram."""

    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


_C = "counter"
_G = "gauge"
_H = "histogram"
ROUTER_METRICS: Final[Mapping[str, MetricSpec]] = {
    "swapproof_requests": MetricSpec(
        _C,
        "Requests by assigned arm, and by the target that answered or was tried last; outcome "
        "is ok, failed, refused (a kill switch, a missing key or a data class left no target "
        "to call), client_error, cancelled, or handed_on (the agent's fallback answers)",
        ("route", "arm", "provider", "target", "outcome"),
    ),
    "swapproof_request_duration_seconds": MetricSpec(
        _H,
        "Time to an answer's last byte, by the target that answered or was tried last",
        ("route", "provider", "target", "outcome"),
    ),
    "swapproof_time_to_first_token_seconds": MetricSpec(
        _H,
        "Time from a stream's request to its first output, including failovers",
        ("route", "provider", "target"),
    ),
    "swapproof_attempts": MetricSpec(
        _C,
        "Calls to a provider; failure_class is `none` for successful calls",
        ("provider", "target", "failure_class"),
    ),
    "swapproof_failovers": MetricSpec(
        _C,
        "Requests that moved to the next target after a failure, or past an open circuit",
        ("route", "provider", "target", "failure_class"),
    ),
    "swapproof_feedback": MetricSpec(
        _C,
        "Feedback; verdict is good, bad, or none for a label without a verdict",
        ("route", "arm", "verdict", "label"),
    ),
    "swapproof_irregular_answers": MetricSpec(
        _C,
        "Answers that the router passed on although they end wrongly or have NaN in an event",
        ("target", "what"),
    ),
    "swapproof_refused_pieces": MetricSpec(
        _C,
        "Answers that a provider gave only after the router removed a refused piece; piece is "
        "thinking, reasoning, no_reasoning, signature, file, half_character or field",
        ("target", "piece"),
    ),
    "swapproof_requests_without_route": MetricSpec(
        _C,
        "Requests for a model without a route, by the model's name",
        ("model",),
    ),
    "swapproof_internal_errors": MetricSpec(
        _C,
        "Faults in the router's code, by its part and the arm of the request",
        ("part", "arm"),
    ),
    "swapproof_tokens": MetricSpec(_C, "Tokens as providers report them", ("target", "kind")),
    "swapproof_cost_dollars": MetricSpec(
        _C, "US dollars spent at targets that have a price", ("target",)
    ),
    "swapproof_breaker_state": MetricSpec(_G, "0 closed, 1 half open, 2 open", ("target",)),
    "swapproof_target_pause_seconds": MetricSpec(
        _G,
        "Seconds left of the pause that the target's provider asked for",
        ("target",),
    ),
    "swapproof_learned_repairs": MetricSpec(
        _G,
        "1 while the router omits or changes this field, because the target refused it",
        ("target", "field"),
    ),
    "swapproof_health_check_up": MetricSpec(
        _G,
        "1 when the target answered its last health check, or a request since",
        ("target",),
    ),
    "swapproof_health_check_duration_seconds": MetricSpec(
        _G, "Duration of the target's last health check", ("target",)
    ),
    "swapproof_routing_revision": MetricSpec(_G, "The routing revision that the worker serves"),
    "swapproof_snapshot_age_seconds": MetricSpec(
        _G,
        "Seconds since the worker last confirmed that its revision is current",
    ),
    "swapproof_router_stale": MetricSpec(_G, "1 while the database is unavailable"),
    "swapproof_router_revision_refused": MetricSpec(
        _G,
        "1 while the worker serves the previous revision because the new one is invalid",
    ),
    "swapproof_router_workers": MetricSpec(_G, "Workers that serve"),
    "swapproof_router_requests_under_way": MetricSpec(_G, "Requests in progress"),
    "swapproof_router_agents_under_way": MetricSpec(
        _G, "Requests to the agents process in progress"
    ),
    "swapproof_router_tasks": MetricSpec(_G, "Tasks of the worker's event loop"),
    "swapproof_observations_dropped": MetricSpec(
        _C,
        "Rows of observations that database, spool and memory did not accept",
    ),
}


def _process_counters(meanings: Mapping[str, str]) -> dict[str, MetricSpec]:
    return {
        f"swapproof_router_{name}": MetricSpec(_C, meaning)
        for name, meaning in meanings.items()
    }


# Counters of a router's processes.
PROCESS_COUNTERS: Final[Mapping[str, MetricSpec]] = _process_counters(
    {
        "agent_callers_refused": "Calls of agents with an invalid signed header",
        "agents_broke_off": "Incomplete answers of the agents process",
        "agents_refused_when_full": "Requests to agents over `router.max_concurrent`",
        "agents_requests": "Requests passed to the agents process",
        "agents_unavailable": "Requests that the agents process did not accept",
        "alerts_dropped": "Alerts that did not fit into memory",
        "budget_stopped": "Requests refused because their key's budget is spent",
        "callers_gone": "Requests whose client left before the answer",
        "canaries_aborted": "Canaries that this router ended by its own evidence",
        "captures_dropped": "Copies dropped: full buffer, unavailable database, or too late",
        "captures_over_day": "Copies over the route's `capture_per_day`",
        "captures_refused": "Requests not captured because the client opts out",
        "captures_repeated": "Copies of a stored question, or of a caller with a stored pair",
        "captures_stored": "Stored copies",
        "captures_too_large": "Requests or answers too large to store",
        "captures_unreadable": "Copies that do not follow their protocol",
        "claims_failed": "Times that the database did not record a block's callers",
        "end_headers_malformed": "`Deprecation` or `Sunset` headers without a date, in answers "
        "that the router reads: one a second for each target",
        "failover_rows_dropped": "Rows of the failover log over 20 a second",
        "flushes_failed": "Times that observations did not reach the database",
        "internal_errors": "Faults in the router's code, in all parts",
        "judge_asked": "Answers sent to the canary's judge",
        "judge_bad": "Answers that the judge found bad",
        "judge_budget_unknown": "Not judged: the judge's spending is unknown",
        "judge_circuit_open": "Not judged: the judge's circuit is open",
        "judge_declined": "Not judged: the client opts out",
        "judge_failed": "Times that the judge did not answer",
        "judge_full": "Not judged: too many answers wait for the judge",
        "judge_good": "Answers that the judge found good",
        "judge_no_verdict": "Answers for which the judge gave no verdict",
        "judge_over_monthly_cap": "Not judged: the monthly cap is reached",
        "judge_over_budget": "Not judged: the judge's budget is spent",
        "judge_resting": "Not judged: the judge failed recently",
        "judge_too_large": "Not judged: the request is too large",
        "judge_unreadable": "Unreadable verdicts of the judge",
        "judge_users_first": "Not judged: callers need the account's rate limit",
        "judge_without_answer": "Not judged: the arm did not answer",
        "log_events_dropped": "Log lines that did not fit into memory",
        "rate_limited": "Requests over a limit of their key",
        "reloads": "Reloads of the configuration (SIGHUP)",
        "reloads_refused": "Reloads refused because the file is wrong",
        "reports_refused": "Reports of a worker that its parent could not read",
        "refused_when_full": "Requests over `router.max_concurrent`",
        "requests_without_price": "Answers without a known price",
        "requests_with_bounds": "Requests without a provider's count: their cost is a bound",
        "responses_kept": "Responses whose history a route keeps (`responses_state`)",
        "responses_not_kept": "Responses not kept: too large, no room, or unavailable database",
        "rows_refused": "Rows of observations that the database refused",
        "exposure_rows_dropped": "Rows of canary callers that neither disk nor memory accepted",
        "exposure_rows_refused": "Rows of canary callers that the database refused",
        "exposure_rows_written": "Rows of canary callers that the database accepted",
        "rows_spooled": "Rows of observations that wait on disk",
        "rows_written": "Rows of observations that the database accepted",
        "shadow_budget_unknown": "Not mirrored: the spending is unknown",
        "shadow_circuit_open": "Not mirrored: the candidate's circuit is open",
        "shadow_declined": "Not mirrored: the client opts out",
        "shadow_dropped": "Not mirrored: too many copies are in progress",
        "shadow_mirrored": "Requests mirrored to a candidate",
        "shadow_not_repeatable": "Not mirrored: a copy would act twice",
        "shadow_over_monthly_cap": "Not mirrored: the monthly cap is reached",
        "shadow_over_budget": "Not mirrored: the shadow's budget is spent",
        "shadow_resting": "Not mirrored: the candidate failed recently",
        "shadow_too_large": "Not mirrored: the request is too large",
        "shadow_unable": "Not mirrored: the candidate lacks an ability",
        "shadow_unstored_client": "Mirrored, but no stored pair: the client forbids captures",
        "shadow_unstored_route": "Mirrored, but no stored pair: the route keeps no captures",
        "shadow_unreadable": "Mirrored requests whose answer could not be compared",
        "shadow_users_first": "Not mirrored: callers need the account's rate limit",
        "unnamed_callers": "Requests that named no caller",
        "switch_in_effect": "Requests that followed a kill switch",
        "switch_not_in_effect": "Requests that could not follow a kill switch",
        "tools_serialized": "Requests sent without parallel tool calls",
        "units_counted_elsewhere": "Callers already counted by another router",
        "unknown_keys": "Requests with an unknown, revoked or expired key",
        "unscored_in_handover": "Requests not counted: conversation older than the step",
        "unscored_units": "Callers not counted: outcome after the canary's end",
        "worker_restarts": "Workers restarted after they ended",
    }
)
CONTROL_METRICS: Final[Mapping[str, MetricSpec]] = {
    "swapproof_proposals": MetricSpec(_G, "Proposals by phase", ("phase",)),
    "swapproof_canary_weight_bps": MetricSpec(
        _G,
        "Share of a live canary, in basis points (100 is 1 %)",
        ("route", "state"),
    ),
    "swapproof_canary_log_e": MetricSpec(
        _G,
        "Evidence of harm, as the natural logarithm of an e-value",
        ("route",),
    ),
    "swapproof_canary_distance_to_trip": MetricSpec(
        _G,
        "Evidence of harm, as a share of the rollback level (1: rollback)",
        ("route",),
    ),
    "swapproof_reconcile_age_seconds": MetricSpec(
        _G,
        "Seconds since the control plane last checked proposals and canaries",
    ),
}
_ROUTERS: Final = {**ROUTER_METRICS, **PROCESS_COUNTERS}


def router_metric(name: str) -> MetricSpec:
    """Describes a router's metric. An unknown name is a counter."""
    unknown = MetricSpec(_C, name.removeprefix("router_").replace("_", " "))
    return _ROUTERS.get(f"swapproof_{name}", unknown)
