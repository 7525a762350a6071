"""What becomes of LiteLLM's settings beside its models: some have their like here, and for the
others this table says why not, and what to use instead.
"""

from collections.abc import Callable, Mapping
from typing import Final

from harness.domain.adoption.config_builder import ConfigDraft
from harness.domain.adoption.conversion import (
    ConfigPath,
    ConversionReport,
    SourceConfig,
    as_number,
)
from harness.domain.errors import InputError
from harness.domain.formatting import format_percent
from harness.domain.reliability.breaker import DEFAULT_BREAKER
from harness.domain.reliability.retry import DEFAULT_RETRY

_OWN_STATE: Final = "Swapgate keeps its state in its own database, and needs no Redis"
_NO_CACHE: Final = "Swapgate caches no answers"
_KEYS: Final = "clients get keys of Swapgate's: `swapgate key create`"
_TRACES: Final = "traces go out by OpenTelemetry (`router.tracing`), figures by `/metrics`"
_ALERTS: Final = "name your channels under `alerts.sinks`"
_UNIFORM: Final = "a route has one incumbent; the others are its fallbacks, in order"
_HINTS: Final = "Swapgate leaves hints out by itself where a target does not take them"
_LOGS: Final = "Swapgate logs no content, and has its own log format"
_LOOKUP: Final = "Swapgate takes prices from the file, and from the catalogue"

# Section → key → why it is not taken over, and what does it here.
REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "litellm_settings": {
        "drop_params": _HINTS,
        "modify_params": _HINTS,
        "additional_drop_params": _HINTS,
        "callbacks": _TRACES,
        "success_callback": _TRACES,
        "failure_callback": _TRACES,
        "service_callback": _TRACES,
        "audit_log_callbacks": "the audit log is always kept: `swapgate audit tail`",
        "cache": _NO_CACHE,
        "cache_params": _NO_CACHE,
        "set_verbose": _LOGS,
        "json_logs": _LOGS,
        "turn_off_message_logging": _LOGS,
        "redact_user_api_key_info": _LOGS,
        "max_budget": "budgets belong to keys: `swapgate key create --help`",
        "budget_duration": "budgets belong to keys: `swapgate key create --help`",
        "default_team_settings": _KEYS,
        "default_internal_user_params": _KEYS,
        "upperbound_key_generate_params": _KEYS,
        "check_provider_endpoint": "every target is checked: `swapgate doctor`",
        "ssl_verify": "Swapgate always verifies certificates",
        "custom_provider_map": "Swapgate runs no code of a provider: give it an address",
    },
    "router_settings": {
        "routing_strategy": _UNIFORM,
        "routing_strategy_args": _UNIFORM,
        "enable_pre_call_checks": (
            "always so here: a target that lacks what a request needs is left out"
        ),
        "redis_host": _OWN_STATE,
        "redis_port": _OWN_STATE,
        "redis_password": _OWN_STATE,
        "redis_url": _OWN_STATE,
        "cache_responses": _NO_CACHE,
        "cache_kwargs": _NO_CACHE,
        "retry_policy": "Swapgate retries by kind of failure: docs/reference/router.md",
        "model_group_retry_policy": (
            "Swapgate retries by kind of failure: docs/reference/router.md"
        ),
        "allowed_fails_policy": "one breaker counts all failures: `router.breaker`",
        "retry_after": "Swapgate waits as long as the provider says, else by `router.retry`",
        "enable_tag_filtering": "requests choose a route by name, or by x-swapgate-task",
        "set_verbose": _LOGS,
        "debug_level": _LOGS,
        "alerting_config": _ALERTS,
        "provider_budget_config": "budgets belong to keys: `swapgate key create --help`",
    },
    "general_settings": {
        "master_key": _KEYS,
        "database_url": (
            "Swapgate has a database of its own (`database_url`); keys, teams and spend in "
            "LiteLLM's are not in this file, and not taken over"
        ),
        "store_model_in_db": "the database holds routes here from the start",
        "alerting": _ALERTS,
        "alerting_args": _ALERTS,
        "alerting_threshold": _ALERTS,
        "alert_types": _ALERTS,
        "background_health_checks": "always so here: `router.health_check_interval_s`",
        "health_check_interval": "see `router.health_check_interval_s`",
        "max_parallel_requests": "see `router.max_concurrent`",
        "global_max_parallel_requests": "see `router.max_concurrent`",
        "enable_jwt_auth": _KEYS,
        "custom_auth": _KEYS,
        "ui_access_mode": "the dashboard has its own sign-in: docs/reference/dashboard.md",
        "key_management_system": (
            "Swapgate reads secrets from the environment, or encrypts stored ones"
        ),
        "key_management_settings": (
            "Swapgate reads secrets from the environment, or encrypts stored ones"
        ),
        "pass_through_endpoints": "Swapgate passes nothing through but what it routes",
        "disable_spend_logs": "spend is always counted, and content never kept unasked",
        "proxy_batch_write_at": "see `router.flush_interval_s`",
    },
}
# Sections that have no like here.
SECTIONS: Final[Mapping[str, str]] = {
    "guardrails": "Swapgate inspects no prompts; its guardrails watch a canary's answers",
    "mcp_servers": "tools of agents are named under `agents.tool_servers`",
    "mcp_tools": "tools of agents are named under `agents.tool_servers`",
    "vector_store_registry": "Swapgate serves chats and embeddings, no vector stores",
    "search_tools": "Swapgate serves chats and embeddings, no search",
    "files_settings": "Swapgate serves chats and embeddings, no files",
    "finetune_settings": "Swapgate serves chats and embeddings, no fine-tuning",
    "assistant_settings": "Swapgate has agents of its own: docs/reference/agents.md",
    "callback_settings": _TRACES,
    "model_cost_map_url": _LOOKUP,
}


def convert_settings(
    source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    """Takes over what has a like here, and gives the reason for the rest."""
    for name, reason in SECTIONS.items():
        if name in source.values:
            report.leave((name,), reason)
    if "include" in source.values:
        report.take(("include",), "its files were read: their keys are in this report")
    _name_variables(source, draft, report)
    for section in ("litellm_settings", "router_settings", "general_settings"):
        try:
            keys = list(source.mapping((section,)))
        except InputError as error:
            report.leave((section,), f"{error}")
            continue
        for key in keys:
            _convert_key((section, key), source, draft, report)


def _convert_key(
    path: ConfigPath, source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    section, key = str(path[0]), str(path[1])
    convert = _CONVERSIONS.get(key)
    if reason := REASONS[section].get(key):
        report.leave(path, reason)
    elif convert is not None:
        try:
            number = as_number(source.resolve(source.mapping((section,))[key]))
            report.change(path, convert(draft.router, number))
        except InputError as error:
            report.leave(path, f"{error}")


def _retries(router: dict[str, object], number: float) -> str:
    tries = max(1, int(number) + 1)
    most = max(DEFAULT_RETRY.attempts, tries)
    router["retry"] = {"tries_per_target": tries, "attempts": most}
    return f"router.retry: {tries} tries of each target, {most} of one request"


def _check_time(seconds: float) -> None:
    if seconds <= 0:
        raise InputError("is no time: give the seconds, above 0")


def _total_timeout(router: dict[str, object], number: float) -> str:
    _check_time(number)
    router["total_timeout_s"] = number
    return f"router.total_timeout_s: {number:g}, for a request with all its attempts"


def _stream_timeout(router: dict[str, object], number: float) -> str:
    _check_time(number)
    router["first_token_timeout_s"] = number
    return f"router.first_token_timeout_s: {number:g}, until a stream's first content"


def _failures(router: dict[str, object], number: float) -> str:
    failures = int(number) + 1
    _breaker(router)["failures"] = failures
    return (
        f"router.breaker.failures: {failures} in {DEFAULT_BREAKER.window_s:g} s, and at least "
        f"{format_percent(DEFAULT_BREAKER.share, 0)} of the requests"
    )


def _open_time(router: dict[str, object], number: float) -> str:
    _check_time(number)
    breaker = _breaker(router)
    breaker["open_s"] = number
    breaker["open_max_s"] = max(number, DEFAULT_BREAKER.open_max_s)
    return f"router.breaker.open_s: {number:g}, doubled while probes fail"


def _breaker(router: dict[str, object]) -> dict[str, object]:
    breaker = router.setdefault("breaker", {})
    return breaker if isinstance(breaker, dict) else {}


_CONVERSIONS: Final[Mapping[str, Callable[[dict[str, object], float], str]]] = {
    "num_retries": _retries,
    "max_retries": _retries,
    "request_timeout": _total_timeout,
    "timeout": _total_timeout,
    "stream_timeout": _stream_timeout,
    "allowed_fails": _failures,
    "cooldown_time": _open_time,
}


def _name_variables(source: SourceConfig, draft: ConfigDraft, report: ConversionReport) -> None:
    """The file's own environment variables: their values may be secrets, and stay there."""
    try:
        names = list(source.mapping(("environment_variables",)))
    except InputError as error:
        report.leave(("environment_variables",), f"{error}")
        return
    for name in names:
        needed = name in draft.variables
        reason = "its value is not copied" + (
            ": set the variable where the router runs, or in .env"
            if needed
            else ", and nothing that was taken over needs it"
        )
        report.leave(("environment_variables", name), reason)
