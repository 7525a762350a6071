"""LiteLLM's settings beside its models: those that Swapgate has too."""

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

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")


def convert_settings(
    source: SourceConfig, draft: ConfigDraft, report: ConversionReport
) -> None:
    """Takes over the settings that Swapgate has too."""
    if "include" in source.values:
        report.take(("include",), "its files were read: their keys are in this report")
    _name_variables(source, draft, report)
    for section in SECTIONS:
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
    if (convert := _CONVERSIONS.get(key)) is None:
        return
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
