"""Reads the sources of `attach` into a survey: files as a stream, and LiteLLM's admin API.

Opens no connection except to a source that the user names. Of an API, it reads the newest
requests first, and ends at its time limit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from evals.suites.litellm_logs import read_spend_logs
from evals.suites.logs.log_formats import LOG_READERS, LOG_TITLES, find_kind
from evals.suites.logs.log_stream import stream_source
from evals.suites.request_log import RequestLog
from evals.suites.source_records import SourceFile, SourceRecord
from harness.app.attach.log_obstacles import SourceNote
from harness.app.attach.traffic_survey import TrafficSurvey
from harness.app.gateways.litellm_api import LiteLLMApi
from harness.frame.errors import InputError
from harness.frame.formatting import format_span
from harness.frame.ports import Clock
from harness.providers.models.model_names import LOOPBACK_NAMES

# `attach` answers within two minutes; the report needs some seconds.
API_TIME_S: Final = 90.0
_LITELLM: Final = "litellm"


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How to read an API. key: never shown. days: up to now."""

    key: str
    days: int


def read_file(
    path: Path,
    survey: TrafficSurvey,
    kind: str = "",
    report: Callable[[int], None] = lambda _requests: None,
) -> SourceNote:
    """Adds a file's requests.

    Args:
        kind: its format, a key of LOG_READERS; empty to recognise it.
        report: hears the number of requests after each part.

    Raises InputError.
    """
    if kind and kind not in LOG_READERS:
        raise InputError(f"{kind!r} is no format of a log: use one of {', '.join(LOG_READERS)}")
    for part in stream_source(path):
        kind = find_kind(part, kind)
        _add(LOG_READERS[kind](part), survey)
        report(survey.requests)
    return SourceNote(str(path), kind, LOG_TITLES[kind])


def read_litellm(
    url: str,
    access: ApiAccess,
    survey: TrafficSurvey,
    clock: Clock,
    report: Callable[[int], None] = lambda _requests: None,
) -> SourceNote:
    """Adds the requests of LiteLLM's spend logs, which its API lists without their messages.

    Raises InputError for an address that is neither https nor this machine's, UpstreamError for
    a refusal.
    """
    host = check_url(url)
    api = LiteLLMApi(url, access.key, allowed=[host])
    since = clock.now() - timedelta(days=access.days)
    began_s = clock.monotonic()
    rows = 0
    note = ""
    for page in api.read_spend_logs(since, newest_first=True):
        records = [
            SourceRecord(f"{url} row {rows + number}", row)
            for number, row in enumerate(page.rows, start=1)
        ]
        rows += len(records)
        _add(read_spend_logs(SourceFile(Path(url), "json", records, {})), survey)
        report(survey.requests)
        is_last = page.total is not None and rows >= page.total
        if clock.monotonic() - began_s > API_TIME_S and not is_last:
            of_all = f" of {page.total:,}" if page.total else ""
            note = (
                f"the newest {rows:,}{of_all} rows were read in {format_span(API_TIME_S)}: "
                "export the table for all, or use fewer --days"
            )
            break
    return SourceNote(url, _LITELLM, f"{LOG_TITLES[_LITELLM]}, by its API", note)


def add_records(records: Iterator[SourceFile], survey: TrafficSurvey) -> None:
    """Adds the requests of OTLP documents, as the receiver yields them."""
    for part in records:
        _add(LOG_READERS["otel"](part), survey)


def check_url(url: str) -> str:
    """Returns the host of an API's address. Raises InputError unless it is https, or http on
    this machine.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise InputError(f"{url!r} is no address") from None
    is_here = host in LOOPBACK_NAMES or host in ("127.0.0.1", "::1")
    if parts.username or parts.password:
        raise InputError(
            "the address contains a key: give the key by --key-env or --source-key-file"
        )
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_here)):
        raise InputError(
            f"{url}: a key goes only over https, or to this machine: use https://…, or "
            "http://127.0.0.1:PORT through a tunnel"
        )
    return host


def _add(log: RequestLog, survey: TrafficSurvey) -> None:
    for request in (*log.requests, *log.without_content):
        survey.add(request)
    survey.lost.update(log.lost)
