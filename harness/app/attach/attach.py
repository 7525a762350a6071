"""Attaches to a team's sources: reads them, and builds the report of `swapproof attach`.

It sends contents nowhere, and writes to no source.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.app.attach.attach_report import AttachChoice, AttachReport, build_report
from harness.app.attach.log_obstacles import SourceNote
from harness.app.attach.source_reading import (
    ApiAccess,
    add_records,
    check_url,
    read_file,
    read_litellm,
)
from harness.app.attach.traffic_survey import TrafficSurvey
from harness.frame.errors import InputError
from harness.frame.formatting import format_span
from harness.frame.ports import Clock
from harness.frame.runtime.clock import SystemClock
from harness.providers.models.catalogue import Catalogue, LitellmTable

KEY_VARIABLE: Final = "LITELLM_API_KEY"  # the usual environment variable of a source's key
DAYS: Final = 14
MOST_S: Final = 3_600.0  # of reception
PROGRESS_S: Final = 5.0  # between two reports about one source


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """What to read. sources: files, and addresses of LiteLLM.

    kind: the format of all files; empty to recognise each. key_file: holds a source's key;
    None to read it from key_variable. otlp: an address of this machine; empty to receive
    nothing. for_s: how long to receive.
    """

    sources: Sequence[str]
    kind: str = ""
    key_variable: str = KEY_VARIABLE
    key_file: Path | None = None
    days: int = DAYS
    otlp: str = ""
    for_s: float = 60.0
    choice: AttachChoice = field(default_factory=AttachChoice)


def attach(
    request: AttachRequest,
    report: Callable[[str], None] = lambda _sentence: None,
    *,
    clock: Clock | None = None,
    catalogue: Catalogue | None = None,
) -> AttachReport:
    """Reads the sources and builds the report.

    Args:
        report: hears what happens, for people.

    Raises InputError for a source that it cannot read, UpstreamError for a refusal.
    """
    if not request.sources and not request.otlp:
        raise InputError(
            "name a source: a log's file, the address of LiteLLM, or --otlp 127.0.0.1:4318"
        )
    clock = clock or SystemClock()
    survey = TrafficSurvey()
    notes: list[SourceNote] = []
    for source in request.sources:
        report(f"reading {source}")
        notes.append(_read_source(source, request, survey, clock, report))
    if request.otlp:
        notes.append(_receive(request, survey, clock, report))
    known = LitellmTable().catalogue() if catalogue is None else catalogue
    return build_report(notes, survey, known, clock.now(), request.choice)


def _read_source(
    source: str,
    request: AttachRequest,
    survey: TrafficSurvey,
    clock: Clock,
    report: Callable[[str], None],
) -> SourceNote:
    told_s = clock.monotonic()

    def count(requests: int) -> None:
        nonlocal told_s
        if clock.monotonic() - told_s >= PROGRESS_S:
            told_s = clock.monotonic()
            report(f"{requests:,} requests")

    if "://" not in source:
        return read_file(Path(source), survey, request.kind, count)
    check_url(source)  # before the key is read
    access = ApiAccess(_read_key(request), request.days)
    return read_litellm(source, access, survey, clock, count)


def _read_key(request: AttachRequest) -> str:
    """Reads a source's key from its file or the environment. Raises InputError without one."""
    if request.key_file is not None:
        try:
            key = request.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{request.key_file}: cannot be read as a key's file") from None
    else:
        key = os.environ.get(request.key_variable, "").strip()
    if not key:
        place = request.key_file or f"the environment variable {request.key_variable}"
        raise InputError(
            f"{place} has no key: put a read-only key of LiteLLM there (role "
            "proxy_admin_viewer), or name another place by --key-env or "
            "--source-key-file"
        )
    return key


def _receive(
    request: AttachRequest,
    survey: TrafficSurvey,
    clock: Clock,
    report: Callable[[str], None],
) -> SourceNote:
    # Only the package swapproof has the receiver.
    from harness.app.attach.otlp_receiver import OtlpReceiver, parse_address  # noqa: PLC0415

    host, port = parse_address(request.otlp)
    if not 0 < request.for_s <= MOST_S:
        raise InputError(f"--for: receive for at most {format_span(MOST_S)}")
    receiver = OtlpReceiver(host, port, clock)
    name = f"{host}:{receiver.port}"
    report(f"receiving OTLP on http://{name} for {format_span(request.for_s)}")
    add_records(receiver.receive(request.for_s), survey)
    full = receiver.received.refused
    return SourceNote(
        f"otlp {name}",
        "otel",
        "OpenTelemetry's spans, received here",
        f"the receiver ended at its limit of {full}" if full else "",
    )
