"""Values that have the right type and still make no sense."""

from collections.abc import Iterator, Mapping

from harness.config.places import Path_

SHARES = {"alpha", "margin", "min_saving", "p0"}
POSITIVE = {
    "min_pairs",
    "verdict_ttl_s",
    "approval_ttl_s",
    "run_max_age_s",
    "deadline_s",
    "session_s",
    "missing_s",
    "rho",
    "rho_ni",
    "certificate",
    "cost_ceiling",
    "weight",
    "epochs",
    "block_size",
    "session_requests",
    "n_max",
    "total_timeout_s",
    "first_token_timeout_s",
    "between_chunks_timeout_s",
    "connect_timeout_s",
    "max_body_bytes",
    "max_response_bytes",
    "max_concurrent",
    "requests_per_min",
    "tokens_per_min",
    "upstream_connections",
    "flush_interval_s",
    "workers",
    "drain_s",
    "queue_size",
    "failures",
    "window_s",
    "open_s",
    "open_max_s",
    "probe_successes",
    "probe_lease_s",
    "tries_per_target",
    "attempts",
    "reconcile_interval_s",
    "housekeeping_interval_s",
    "drift_interval_s",
    "every_s",
    "items",
    "failovers_keep_days",
    "deliver_interval_s",
    "timeout_s",
    "keep_days",
    "eval_workers",
    "eval_connections",
    "max_output_tokens",
    "max_tokens",
    "context_window",
}
NOT_NEGATIVE = {
    "infra_retries", "infra_pause_s", "max_cost_usd", "min_exposures", "temperature",
    "input_usd_per_mtok", "output_usd_per_mtok", "base_s", "cap_s", "attempt_s",
    "max_wait_s", "health_check_interval_s", "local_alpha", "cached_input_usd_per_mtok",
    "min_s", "min_peak_s", "bake_s",
}  # fmt: skip

# Half of the traffic: more of it would be no promotion.
MOST_HELD_BACK_BPS = 5_000
BPS = 10_000


def complaints(values: Mapping[str, object]) -> Iterator[tuple[Path_, str]]:
    """(path, message) of every value out of its range, in the file's order."""
    yield from _walk(values, ())
    for name, policy in _mapping(values.get("policies")).items():
        yield from _steps(policy, ("policies", name, "canary", "steps"))
        yield from _shadow(policy, ("policies", name, "canary", "shadow"))
        yield from _guardrails(policy, ("policies", name, "canary", "guardrails"))


def _walk(value: object, path: Path_) -> Iterator[tuple[Path_, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # What a target's parameters or a scorer's options mean is theirs to say.
            if key not in ("parameters", "scorer_options", "request_patch"):
                yield from _walk(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*path, index))
    elif isinstance(value, int | float) and path:
        yield from _number(str(path[-1]), value, path)


def _number(key: str, value: float, path: Path_) -> Iterator[tuple[Path_, str]]:
    if key in SHARES and not 0 < value < 1:
        yield path, f"must lie between 0 and 1, not {value}"
    elif key in POSITIVE and not value > 0:
        yield path, f"must be above 0, not {value}"
    elif key in NOT_NEGATIVE and not value >= 0:
        yield path, f"must not be negative, and {value} is"
    elif key == "port" and not 0 <= value <= 65_535:
        yield path, f"a port is 0 to 65535, not {value}"
    elif key in ("start_h", "end_h") and not 0 <= value <= 24:
        yield path, f"an hour of the day is 0 to 24, not {value}"
    elif key == "bake_bps" and not 1 <= value <= MOST_HELD_BACK_BPS:
        yield path, f"1 to {MOST_HELD_BACK_BPS} basis points are held back, not {value}"
    elif key == "weight_bps" and not 1 <= value <= 9_999:
        yield path, f"a step's weight is 1 to 9999 basis points (1 % is 100), not {value}"


def _steps(policy: object, path: Path_) -> Iterator[tuple[Path_, str]]:
    steps = _mapping(_mapping(policy).get("canary")).get("steps")
    steps = steps if isinstance(steps, list | tuple) else ()
    if not steps:
        yield path, "a canary needs at least one step"
    weights = [_mapping(_fields(step)).get("weight_bps", 0) for step in steps]
    for index in range(1, len(weights)):
        if not weights[index] > weights[index - 1]:  # type: ignore[operator]
            yield (*path, index), "a step's weight must be above the one before"


def _shadow(policy: object, path: Path_) -> Iterator[tuple[Path_, str]]:
    shadow = _mapping(_mapping(policy).get("canary")).get("shadow")
    if shadow is None:
        return
    fields = _fields(shadow)
    if not 1 <= fields["share_bps"] <= BPS:  # type: ignore[operator]
        yield (*path, "share_bps"), f"1 to {BPS} basis points are mirrored (5 % is 500)"
    if not fields["max_cost_usd"] > 0:  # type: ignore[operator]
        yield (*path, "max_cost_usd"), "must be above 0: without money nothing is mirrored"


def unclear(values: Mapping[str, object]) -> Iterator[tuple[Path_, str]]:
    """Guardrails that are `on` or 0 in the file as it was read: they look like 1, and off."""
    for name, policy in _mapping(values.get("policies")).items():
        guardrails = _mapping(_mapping(_mapping(policy).get("canary")).get("guardrails"))
        for guardrail, ratio in guardrails.items():
            if ratio is True or (ratio == 0 and ratio is not False):
                path = ("policies", name, "canary", "guardrails", guardrail)
                yield path, "give the ratio that is tolerated, such as 1.25, or off"


def _guardrails(policy: object, path: Path_) -> Iterator[tuple[Path_, str]]:
    guardrails = _mapping(_mapping(_mapping(policy).get("canary")).get("guardrails"))
    for name, ratio in guardrails.items():
        if ratio is not False and not (isinstance(ratio, float) and ratio > 0):
            yield (*path, name), f"a tolerated ratio is above 0, or off; not {ratio}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _fields(step: object) -> Mapping[str, object]:
    if isinstance(step, Mapping):
        return step
    return {name: getattr(step, name) for name in getattr(step, "__slots__", ())}
