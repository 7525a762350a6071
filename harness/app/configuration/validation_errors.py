"""Errors of the configuration: closed ranges of its numbers, by key; messages with file, line
and nearest known key; retired keys and commands.

A range belongs to a key's last name, wherever the key is, so one name has one range in the
whole file. Units are in the name, such as `_s` or `_bps`. Rules of one policy are here too;
`schema` has the types of keys, and the command line names the successors of retired commands.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import ValidationError

from harness.frame.configuration.setting import plain_settings
from harness.frame.configuration.source_locations import Document, KeyPath, dotted_path
from harness.frame.errors import ConfigError, RetiredKeys
from harness.frame.formatting import SHARE_RANGE, Range, format_bound
from harness.frame.suggestions import (
    UNKNOWN_KEY,
    describe_fault,
    find_fault_path,
)
from harness.routing.route_settings import RouteSettings

# A holdback takes at most half of the traffic, so that a promoted candidate serves the rest.
MOST_HELD_BACK_BPS: Final = 5_000
BPS: Final = 10_000
HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
YEAR_S: Final = 366 * DAY_S
MOST: Final = 1_000_000
MUCH: Final = 1_000_000_000
# Shorter than any useful duration, but not 0, which could mean "no limit".
MOMENT_S: Final = 0.001

# The highest values add up to less than 1, as the chances of a false rollback must.
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

# The ranges of the plain numbers of routes, from their declarations.
_OF_ROUTES: Final[dict[str, Range]] = {
    declared.key: declared.range
    for declared in plain_settings(RouteSettings)
    if declared.range is not None and declared.written is None
}
RANGES: Final[Mapping[str, Range]] = _OF_ROUTES | {
    key: allowed
    for allowed, keys in (
        (ALPHA, "alpha"),
        (LOCAL_ALPHA, "local_alpha"),
        (SHARE_RANGE, "margin margin_max min_saving"),
        (Range(0.000001, 1), "alpha_budget"),
        (Range(0.000001, 0.5), "p0"),
        (RATIO, "rho"),
        (Range(1.01, 100), "rho_ni"),
        (Range(2, MOST), "certificate"),
        (Range(1, MOST), "cost_ceiling"),
        (
            Range(1, 1_000),
            "block_size epochs workers tries_per_target attempts eval_workers",
        ),
        (Range(1, 1_000), "max_steps"),
        (Range(1, MOST_HELD_BACK_BPS), "bake_bps"),
        (
            Range(0, DAY_S),
            "warm_up_s handover_s health_check_interval_s base_s cap_s",
        ),
        (Range(0, DAY_S), "attempt_s max_wait_s"),
        (Range(0, 1_000), "warm_up_units max_stop_sequences"),
        (Range(1, BPS - 1), "weight_bps"),
        (Range(1, BPS), "share_bps"),
        (Range(0, MUCH), "min_exposures"),
        (
            COUNT,
            "n_max items max_concurrent upstream_connections failures probe_successes",
        ),
        (Range(MOMENT_S, 7 * DAY_S), "missing_s open_max_s"),
        (Range(1, YEAR_S), "deadline_s every_s"),
        (FLOOR_S, "min_s min_peak_s bake_s"),
        (Range(0.1, 168), "session_hours"),
        (Range(0, 24), "start_h end_h"),
        (LIFE_S, "verdict_ttl_s approval_ttl_s run_max_age_s"),
        (Range(0, 30 * DAY_S), "infra_patience_s"),
        (
            DOLLARS,
            "max_cost_usd monthly_cap_usd clients_budget_month_usd max_usd budget_usd",
        ),
        (TOKENS, "max_tokens"),
        (Range(0.000001, MOST), "weight"),
        (Range(0, 100), "temperature"),
        (Range(1, MUCH), "max_output_tokens context_window above_tokens"),
        (
            Range(0, MOST),
            "input_usd_per_mtok output_usd_per_mtok cached_input_usd_per_mtok",
        ),
        (Range(0, MOST), "cache_write_usd_per_mtok"),
        (
            WAIT_S,
            "total_timeout_s first_token_timeout_s first_byte_timeout_s",
        ),
        (
            WAIT_S,
            "between_chunks_timeout_s connect_timeout_s timeout_s drain_s window_s",
        ),
        (WAIT_S, "open_s trickle_s probe_lease_s"),
        (Range(0, HOUR_S), "heartbeat_s shutdown_delay_s"),
        (Range(MOMENT_S, HOUR_S), "flush_interval_s"),
        (BYTES, "max_body_bytes max_response_bytes"),
        (Range(0.000001, MUCH), "requests_per_min"),
        (Range(0.000001, 1e12), "tokens_per_min"),
        (Range(0.001, 1), "rate_share"),
        (Range(1, 100_000_000), "queue_size"),
        (
            Range(MOMENT_S, DAY_S),
            "reconcile_interval_s housekeeping_interval_s",
        ),
        (
            Range(MOMENT_S, DAY_S),
            "drift_interval_s deliver_interval_s interval_s",
        ),
        (DAYS, "failovers_keep_days texts_keep_days keep_days"),
        (Range(62, 36_600), "traffic_keep_days"),
        (Range(1, 100_000), "eval_connections"),
        (Range(0, 65_535), "port"),
        (Range(1, 7 * DAY_S), "switch_timeout_s"),
        (Range(0.001, 366), "switch_days"),
        (Range(0.001, 3_660), "literal_days"),
        (Range(0, 10_000), "max_literals"),
        (Range(1_024, 1e9), "max_message_bytes"),
        (Range(1, 100), "max_tasks"),
        (Range(0, 1), "floor"),
    )
    for key in keys.split()
}

UNITS: Final[Mapping[str, str]] = {
    "bake_bps": " basis points (1 % is 100)",
    "weight_bps": " basis points (1 % is 100)",
    "share_bps": " basis points (1 % is 100)",
    "start_h": ", an hour of the day",
    "end_h": ", an hour of the day",
}


def range_errors(values: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and message for every value outside its range."""
    yield from _walk(values, ())
    for name, policy in _mapping(values.get("policies")).items():
        yield from _policy_errors(_mapping(policy), ("policies", name))


def _walk(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yields the faults of all numbers inside a value. path: of the value."""
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


def _number(
    key: str,
    value: float,
    path: KeyPath,
) -> Iterator[tuple[KeyPath, str]]:
    """Yields the fault of one number. A key without a range takes any number."""
    allowed = RANGES.get(key)
    if allowed is not None and not allowed.holds(value):
        yield (
            path,
            f"is {format_bound(value)}; it must lie in {allowed.text}{UNITS.get(key, '')}",
        )


def _policy_errors(
    policy: Mapping[str, object], path: KeyPath
) -> Iterator[tuple[KeyPath, str]]:
    """Yields the faults of one policy that depend on several of its keys.

    Steps must rise, and `margin_max` must not be below the margin. A guardrail is a ratio or
    off.
    """
    canary = _mapping(policy.get("canary"))
    gate = _mapping(policy.get("gate"))
    steps: Any = canary.get("steps") or ()
    weights = [_mapping(step).get("weight_bps", 0) for step in steps]
    if not weights:
        yield (*path, "canary", "steps"), "a canary needs at least one step"
    for index in range(1, len(weights)):
        if not weights[index] > weights[index - 1]:  # type: ignore[operator]
            place = (*path, "canary", "steps", index)
            yield (
                place,
                "a step's weight must be above the previous step's weight",
            )
    most = gate.get("margin_max")
    margin = gate.get("margin")
    if isinstance(most, float) and isinstance(margin, float) and most < margin:
        text = f"is {format_bound(most)}, less than the policy's own margin"
        yield (
            (*path, "gate", "margin_max"),
            f"{text}, {format_bound(margin)}",
        )
    for name, ratio in _mapping(canary.get("guardrails")).items():
        if ratio is not False and not (isinstance(ratio, float) and RATIO.holds(ratio)):
            shown = format_bound(ratio) if isinstance(ratio, float) else ratio
            place = (*path, "canary", "guardrails", name)
            yield (
                place,
                f"is {shown}; a tolerated ratio is {RATIO.text}, or off",
            )


def ambiguous_guardrails(values: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Yields guardrails that are `on` or 0, which are not clearly a ratio or off."""
    for name, policy in _mapping(values.get("policies")).items():
        guardrails = _mapping(_mapping(_mapping(policy).get("canary")).get("guardrails"))
        for guardrail, ratio in guardrails.items():
            if ratio is True or (ratio == 0 and ratio is not False):
                path = ("policies", name, "canary", "guardrails", guardrail)
                yield path, "give the tolerated ratio, such as 1.25, or off"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


_LOG: Final = logging.getLogger(__name__)

# By path in the file; `*` is any name or list index. `path=value` matches one value only.
RETIRED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.carried_share": "Swapgate always uses new callers' evidence across days",
    "policies.*.canary.evidence": "there is one rule of evidence",
    "policies.*.canary.segment_share": "a rollback shows segments, which are not evidence",
    "policies.*.canary.session_requests": "a caller's first request is the unit",
    "policies.*.canary.session_s": "a caller's first request is the unit",
    "policies.*.canary.shadow": "`swapgate shadow start` mirrors a route's requests",
    "policies.*.canary.unit=session": "a caller's first request is the unit",
    "policies.*.gate.rule": "the gate has one rule; leave the key out",
    "policies.*.gate.spend": "the first look spends alpha, and all looks spend 1.5 times alpha",
    "archive": "`control.traffic_keep_days` sets when old traffic is deleted",
    "audit": "collect the control plane's stdout, which has a line for each audit event",
    "agents.tool_servers.*.command": "run the server over HTTP, and give its `url`",
    "agents.tool_servers.*.args": "run the server over HTTP, and give its `url`",
    "agents.tool_servers.*.env": "run the server over HTTP, and give its `url`",
    "agents.busy_wait_s": "a second message gets 409 session_busy: send it again",
    "agents.spawn.max_depth": "sub-tasks spawn no sub-tasks; leave the key out",
    "agents.encrypt": "encrypt the disk or the database",
    "encrypt_content": "encrypt the disk or the database",
    "projects": "give each team an installation of its own",
    "ui.oidc.project_roles": "put the groups in `ui.oidc.roles`",
}

# Keys of older files that have no effect: Swapgate ignores them with a warning.
IGNORED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.unit": "a caller's first request is the unit; each request without a "
    "caller counts as a new caller",
    "policies.*.gate.infra_pause_s": "`infra_patience_s` sets how long a comparison waits",
    "policies.*.gate.infra_retries": "`infra_patience_s` sets how long a comparison waits",
}

# By the command's words; its subcommands are retired, too.
RETIRED_COMMANDS: Final[Mapping[str, str]] = {
    "agent purge-user": "use `swapgate user delete`",
    "archive": "set `control.traffic_keep_days`, after which old traffic is deleted",
    "audit resend": "use `swapgate audit export`",
    "audit sinks": "collect the control plane's stdout",
    "backup": "use `pg_dump` or SQLite's `.backup` (`swapgate docs open backup`)",
    "bench": "run `make bench` in a checkout",
    "canary bench": "run `python -m benchmarks.canary.run` in a checkout",
    "credential": "use `swapgate provider key`",
    "db downgrade": "restore a backup from before the upgrade",
    "db sign": "use `swapgate db remove-forged`",
    "drift list": "use `swapgate drift status`",
    "drift show": "use `swapgate drift status ROUTE`",
    "eval import": "use `swapgate suite import`",
    "restore": "use `pg_restore`, or put SQLite's file back (`swapgate docs open backup`)",
    "gate bench": "run `python -m benchmarks.gate.run` in a checkout",
    "replay": "use `swapgate gate replay`",
}


def config_error(
    document: Document,
    error: ValidationError,
    schema: Mapping[str, object],
) -> ConfigError:
    """Builds the error of the first unknown key, with the nearest known key, or else of the
    first fault.

    error: pydantic's. schema: the file's JSON Schema, for the known keys.
    """
    faults = error.errors(include_url=False)
    # If pydantic tried several types, it reports a fault for each. An unknown key tells more
    # than "not a string".
    first = next(
        (fault for fault in faults if fault["type"] in UNKNOWN_KEY),
        faults[0],
    )
    path = find_fault_path(first, document.values)
    is_key = first["type"] in UNKNOWN_KEY
    named = dotted_path(path) if is_key else str(first["input"])
    text = describe_fault(first, path, schema, named=named)
    if is_key:
        return ConfigError(f"{document.place(path)}: {text}")
    return document.error(path, text)


def require_no_retired_keys(document: Document) -> None:
    """Raises RetiredKeys with all retired keys of a document, each with its place and its
    successor.
    """
    found = [
        f"{document.place(path)}: {dotted_path(path)!r} is retired: {instead}"
        for path, instead in _matches(document.values, (), RETIRED_KEYS)
    ]
    if found:
        title = "nothing was started, because the configuration has retired keys"
        raise RetiredKeys("\n".join((title, *found)))


def without_ignored_keys(document: Document) -> dict[str, object]:
    """Returns the values without the keys in IGNORED_KEYS, and logs a warning for each."""
    values = deepcopy(document.values)
    for path, reason in _matches(document.values, (), IGNORED_KEYS):
        place = document.place(path)
        key = dotted_path(path)
        _LOG.warning("%s: %r has no effect: %s", place, key, reason)
        parent: Any = values
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    return values


def _matches(
    value: object,
    path: KeyPath,
    patterns: Mapping[str, str],
) -> Iterator[tuple[KeyPath, str]]:
    """Yields path and text of each key that a pattern matches. patterns: as RETIRED_KEYS."""
    for pattern, instead in patterns.items():
        names, _, only = pattern.partition("=")
        if _fits(names.split("."), path) and (not only or str(value) == only):
            yield path, instead
            return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _matches(inner, (*path, str(name)), patterns)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _matches(inner, (*path, number), patterns)


def _fits(names: list[str], path: KeyPath) -> bool:
    """Tells whether a pattern's names match a path; `*` matches any name or index."""
    return len(names) == len(path) and all(
        name in ("*", str(part)) for name, part in zip(names, path, strict=True)
    )
