"""Every number of the configuration file must lie in a closed range, which its key has here."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.config.source_locations import KeyPath
from harness.domain.ranges import SHARE_RANGE, Range, format_bound

# Half of the traffic: more of it would be no promotion.
MOST_HELD_BACK_BPS: Final = 5_000
BPS: Final = 10_000
HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
YEAR_S: Final = 366 * DAY_S
MOST: Final = 1_000_000
MUCH: Final = 1_000_000_000
# Shorter than any that means something, longer than what may ever be meant by 0.
MOMENT_S: Final = 0.001


# With both at their highest, a rollout's chance of a false rollback is still below 1.
ALPHA: Final = Range(0.000001, 0.5)
LOCAL_ALPHA: Final = Range(0.000001, 0.25, zero=True)
RATIO: Final = Range(0.1, 100)
WAIT_S: Final = Range(MOMENT_S, DAY_S)
LIFE_S: Final = Range(1, 10 * YEAR_S)
FLOOR_S: Final = Range(0, YEAR_S)
COUNT: Final = Range(1, MOST)
TOKENS: Final = Range(1, 1e15)
BYTES: Final = Range(1, 1e12)
DOLLARS: Final = Range(0, MUCH)
DAYS: Final = Range(0.001, 36_600)

RANGES: Final[Mapping[str, Range]] = {
    "alpha": ALPHA,
    "local_alpha": LOCAL_ALPHA,
    "margin": SHARE_RANGE,
    "margin_max": SHARE_RANGE,
    "alpha_budget": Range(0.000001, 1),
    "min_saving": SHARE_RANGE,
    "p0": Range(0.000001, 0.5),
    "rho": RATIO,
    "rho_ni": Range(1.01, 100),
    "certificate": Range(2, MOST),
    "cost_ceiling": Range(1, MOST),
    "block_size": Range(1, 1_000),
    "bake_bps": Range(1, MOST_HELD_BACK_BPS),
    "warm_up_s": Range(0, DAY_S),
    "warm_up_units": Range(0, 1_000),
    "weight_bps": Range(1, BPS - 1),
    "share_bps": Range(1, BPS),
    "min_exposures": Range(0, MUCH),
    "n_max": COUNT,
    "epochs": Range(1, 1_000),
    "items": COUNT,
    "missing_s": Range(MOMENT_S, 7 * DAY_S),
    "deadline_s": Range(1, YEAR_S),
    "min_s": FLOOR_S,
    "min_peak_s": FLOOR_S,
    "bake_s": FLOOR_S,
    "handover_s": Range(0, DAY_S),
    "session_hours": Range(0.1, 168),
    "start_h": Range(0, 24),
    "end_h": Range(0, 24),
    "verdict_ttl_s": LIFE_S,
    "approval_ttl_s": LIFE_S,
    "run_max_age_s": LIFE_S,
    "infra_patience_s": Range(0, 30 * DAY_S),
    "max_cost_usd": DOLLARS,
    "monthly_cap_usd": DOLLARS,
    "clients_budget_month_usd": DOLLARS,
    "max_usd": DOLLARS,
    "budget_usd": DOLLARS,
    "max_tokens": TOKENS,
    "every_s": Range(1, YEAR_S),
    "weight": Range(0.000001, MOST),
    "temperature": Range(0, 100),
    "max_output_tokens": Range(1, MUCH),
    "context_window": Range(1, MUCH),
    "input_usd_per_mtok": Range(0, MOST),
    "output_usd_per_mtok": Range(0, MOST),
    "cached_input_usd_per_mtok": Range(0, MOST),
    "cache_write_usd_per_mtok": Range(0, MOST),
    "total_timeout_s": WAIT_S,
    "first_token_timeout_s": WAIT_S,
    "first_byte_timeout_s": WAIT_S,
    "between_chunks_timeout_s": WAIT_S,
    "connect_timeout_s": WAIT_S,
    "heartbeat_s": Range(0, HOUR_S),
    "timeout_s": WAIT_S,
    "drain_s": WAIT_S,
    "shutdown_delay_s": Range(0, HOUR_S),
    "flush_interval_s": Range(MOMENT_S, HOUR_S),
    "health_check_interval_s": Range(0, DAY_S),
    "max_body_bytes": BYTES,
    "max_response_bytes": BYTES,
    "copy_max_bytes": Range(1, 8 * 2**20),
    "max_concurrent": COUNT,
    "requests_per_min": Range(0.000001, MUCH),
    "tokens_per_min": Range(0.000001, 1e12),
    "upstream_connections": COUNT,
    "rate_share": Range(0.001, 1),
    "workers": Range(1, 1_000),
    "queue_size": Range(1, 100_000_000),
    "failures": COUNT,
    "window_s": WAIT_S,
    "open_s": WAIT_S,
    "open_max_s": Range(MOMENT_S, 7 * DAY_S),
    "trickle_s": WAIT_S,
    "probe_successes": COUNT,
    "probe_lease_s": WAIT_S,
    "tries_per_target": Range(1, 1_000),
    "attempts": Range(1, 1_000),
    "base_s": Range(0, DAY_S),
    "cap_s": Range(0, DAY_S),
    "attempt_s": Range(0, DAY_S),
    "max_wait_s": Range(0, DAY_S),
    "reconcile_interval_s": Range(MOMENT_S, DAY_S),
    "housekeeping_interval_s": Range(MOMENT_S, DAY_S),
    "drift_interval_s": Range(MOMENT_S, DAY_S),
    "deliver_interval_s": Range(MOMENT_S, DAY_S),
    "interval_s": Range(MOMENT_S, DAY_S),
    "failovers_keep_days": DAYS,
    "texts_keep_days": DAYS,
    "traffic_keep_days": Range(62, 36_600),
    "keep_days": DAYS,
    "eval_workers": Range(1, 1_000),
    "eval_connections": Range(1, 100_000),
    "port": Range(0, 65_535),
    "switch_timeout_s": Range(1, 7 * DAY_S),
    "switch_days": Range(0.001, 366),
    "literal_days": Range(0.001, 3_660),
    "max_literals": Range(0, 10_000),
    "max_message_bytes": Range(1_024, 1e9),
    "max_steps": Range(1, 1_000),
    "max_tasks": Range(1, 100),
    "floor": Range(0, 1),
}
UNITS: Final[Mapping[str, str]] = {
    "bake_bps": " basis points (1 % is 100)",
    "weight_bps": " basis points (1 % is 100)",
    "share_bps": " basis points (1 % is 100)",
    "start_h": ", an hour of the day",
    "end_h": ", an hour of the day",
}


def range_errors(values: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Yields (path, message) of every value out of its range."""
    yield from _walk(values, ())
    for name, policy in _mapping(values.get("policies")).items():
        yield from _policy_errors(_mapping(policy), ("policies", name))


def _walk(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # Targets and scorers check their own parameters and options.
            if key not in ("parameters", "scorer_options", "request_patch"):
                yield from _walk(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*path, index))
    elif isinstance(value, int | float) and not isinstance(value, bool) and path:
        yield from _number(str(path[-1]), value, path)


def _number(key: str, value: float, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    allowed = RANGES.get(key)
    if allowed is not None and not allowed.holds(value):
        yield (
            path,
            f"is {format_bound(value)}; it must lie in {allowed.text}{UNITS.get(key, '')}",
        )


def _policy_errors(
    policy: Mapping[str, object], path: KeyPath
) -> Iterator[tuple[KeyPath, str]]:
    canary, gate = _mapping(policy.get("canary")), _mapping(policy.get("gate"))
    steps: Any = canary.get("steps") or ()
    weights = [_mapping(step).get("weight_bps", 0) for step in steps]
    if not weights:
        yield (*path, "canary", "steps"), "a canary needs at least one step"
    for index in range(1, len(weights)):
        if not weights[index] > weights[index - 1]:  # type: ignore[operator]
            place = (*path, "canary", "steps", index)
            yield place, "a step's weight must be above the one before"
    most, margin = gate.get("margin_max"), gate.get("margin")
    if isinstance(most, float) and isinstance(margin, float) and most < margin:
        text = f"is {format_bound(most)}, less than the policy's own margin"
        yield (*path, "gate", "margin_max"), f"{text}, {format_bound(margin)}"
    for name, ratio in _mapping(canary.get("guardrails")).items():
        if ratio is not False and not (isinstance(ratio, float) and RATIO.holds(ratio)):
            told = format_bound(ratio) if isinstance(ratio, float) else ratio
            place = (*path, "canary", "guardrails", name)
            yield place, f"is {told}; a tolerated ratio is {RATIO.text}, or off"


def ambiguous_guardrails(values: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Guardrails that are `on` or 0 in the file as it was read: they look like 1, and off."""
    for name, policy in _mapping(values.get("policies")).items():
        guardrails = _mapping(_mapping(_mapping(policy).get("canary")).get("guardrails"))
        for guardrail, ratio in guardrails.items():
            if ratio is True or (ratio == 0 and ratio is not False):
                path = ("policies", name, "canary", "guardrails", guardrail)
                yield path, "give the ratio that is tolerated, such as 1.25, or off"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
