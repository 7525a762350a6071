"""Turns another tool's logged requests into a file to label, as `capture export` writes it.

The readers of the logs are in `evals.suites.logs`. Each request passes the same redaction as a
captured request. Equal and nearly equal requests become one request, so that people do not
label the same request twice.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from evals.suites.logs.log_formats import LOG_READERS
from evals.suites.request_log import LoggedRequest, RequestLog
from evals.suites.source_records import SourceFile
from evals.suites.suite_import import FOLDER, NAME
from harness.app.installation import Installation
from harness.frame.configuration.config_conversion import (
    ConversionNote,
    ConversionOutcome,
    NothingTaken,
)
from harness.frame.errors import ConfigError, InputError, PatternTooSlow
from harness.frame.redaction import Redactor
from harness.operations.captures import (
    NEAR_DUPLICATE_SIMILARITY,
    build_export_line,
    write_export,
)
from harness.routing.capture import (
    ANSWER_UNREADABLE,
    CapturedRequest,
    capture_id,
    draw_per_caller,
    user_text,
)
from harness.routing.control.routes import require_route
from harness.routing.reliability.failover import hash_user
from harness.routing.similar_texts import find_near_duplicates
from router.protocols.caller_names import body_callers
from router.protocols.transcript import build_question, build_transcript

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    StopIteration,
)
_CONVERSATION: Final = "conversation:"
_FREQUENT: Final = "of callers with more than 2 requests"
_REPEAT: Final = "that repeat another request, or nearly repeat it"


@dataclass(frozen=True, slots=True)
class RequestsToLabel:
    """The written file. data_class: of the route; empty without a route."""

    file: Path
    written: int
    redactions: Mapping[str, int]  # rule → number of its matches
    data_class: str


def export_requests(
    installation: Installation,
    source: SourceFile,
    kind: str,
    *,
    suite: str,
    route: str = "",
) -> tuple[RequestsToLabel, Sequence[ConversionNote]]:
    """Writes `suites/NAME-to-label.jsonl` beside swapproof.yaml, redacted like captures.

    Args:
        kind: a key of LOG_READERS.
        route: gives the requests their data class. Without a route, the file names the service
            that sent each request.

    Raises, without a file, InputError, NothingTaken, NotFound for an unknown route.
    """
    settings = installation.settings
    if settings.source is None:
        raise ConfigError("there is no swapproof.yaml to write the file to: `swapproof init`")
    if not NAME.fullmatch(suite):
        raise InputError(f"{suite!r} is not a suite's name: use a-z, 0-9, - and _")
    data_class = ""
    if route:
        with installation.context.store.read() as tx:
            data_class = require_route(tx, route).settings.data_class
    log = LOG_READERS[kind](source)
    redactor = Redactor(settings.capture.rules, settings.capture.off)
    captures = _build_captures(installation, log, redactor, kind, route, data_class)
    near_duplicates = find_near_duplicates(
        {request.id: user_text(request.content) for request in captures},
        threshold=NEAR_DUPLICATE_SIMILARITY,
    )
    log.lost[_REPEAT] += sum(request.seen - 1 for request in captures) + len(near_duplicates)
    distinct = {
        request.id: request.caller for request in captures if request.id not in near_duplicates
    }
    drawn_ids = draw_per_caller(distinct)
    log.lost[_FREQUENT] += len(distinct) - len(drawn_ids)
    exported = [request for request in captures if request.id in drawn_ids]
    notes = [*_build_notes(source, log)]
    if not exported:
        raise NothingTaken(f"{source.path}: has no request to label", notes)
    sample = {
        "drawn": len(log.requests),
        "written": len(exported),
        "exported_at": installation.clock.now().isoformat(),
    }
    file = settings.source.resolve().parent / FOLDER / f"{suite}-to-label.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [build_export_line(request, sample) for request in exported]
    write_export(file, lines, advice="use another --suite name")
    counts: Counter[str] = Counter()
    for request in exported:
        counts.update(request.redactions)
    return RequestsToLabel(file, len(exported), dict(sorted(counts.items())), data_class), notes


def _build_captures(
    installation: Installation,
    log: RequestLog,
    redactor: Redactor,
    kind: str,
    route: str,
    data_class: str,
) -> Sequence[CapturedRequest]:
    """Builds the captures, oldest first. Equal requests become one capture. Counts unreadable
    requests.
    """
    captures: dict[str, CapturedRequest] = {}
    for request in sorted(log.requests, key=lambda request: request.at):
        name = route or request.source or kind
        capture = build_capture(installation, request, redactor, name, data_class)
        if isinstance(capture, str):
            log.lost[capture] += 1
        elif capture.id in captures:
            captures[capture.id] = replace(
                captures[capture.id], seen=captures[capture.id].seen + 1
            )
        else:
            captures[capture.id] = capture
    return [*captures.values()]


def build_capture(
    installation: Installation,
    request: LoggedRequest,
    redactor: Redactor,
    route: str,
    data_class: str,
) -> CapturedRequest | str:
    """Builds a redacted capture of a logged request, or returns the reason why it cannot."""
    try:
        content, outcome = _build_transcript(request)
    except _UNREADABLE:
        return "that are no conversation"
    if not user_text(content).strip():
        return "whose messages of users have no text"
    try:
        redacted = redactor.redact(content)
    except PatternTooSlow:
        return "that a rule of `capture.redact` does not read in time"
    return CapturedRequest(
        id=capture_id(route, redacted.value, installation.secret),
        at=request.at,
        expires_at=request.at,
        route=route,
        request=request.id,
        endpoint=request.endpoint,
        stream=False,
        arm="",
        target=request.model,
        revision=0,
        data_class=data_class,
        user_hash="",
        share_bps=0,
        rules=redactor.digest,
        redactions=dict(sorted(redacted.counts.items())),
        content=redacted.value,
        outcome=outcome,
        caller=_hash_caller(request, installation.secret),
        conversation=_hash_conversation(request, installation.secret),
    )


def _hash_caller(request: LoggedRequest, secret: bytes) -> str:
    """Returns the pseudonym of the user that a request names; empty without one."""
    user = _find_user(request)
    return hash_user(f"caller:{user}", secret) if user else ""


def _find_user(request: LoggedRequest) -> str:
    names = body_callers(request.body)
    user = next((name for name in names if not name.startswith(_CONVERSATION)), "")
    return request.caller or user


def _hash_conversation(request: LoggedRequest, secret: bytes) -> str:
    """Returns the pseudonym of the conversation that a request names; empty without one.

    It contains the user, because applications give the same name, such as `1`, to
    conversations of different users.
    """
    names = body_callers(request.body)
    conversation = next((name for name in names if name.startswith(_CONVERSATION)), "")
    conversation = request.conversation or conversation
    name = f"conversation:{_find_user(request)}:{conversation}"
    return hash_user(name, secret) if conversation else ""


def _build_transcript(request: LoggedRequest) -> tuple[Mapping[str, Any], str]:
    """Builds the conversation of a request with its answer, in the API that logged it. Returns
    it with the outcome. Omits an unreadable answer.
    """
    body = json.dumps(request.body)
    if request.answer:
        answer_endpoint = "chat" if "choices" in request.answer else request.endpoint
        try:
            answer = json.dumps(request.answer)
            transcript = build_transcript(
                request.endpoint, body, answer, stream=False, answer_endpoint=answer_endpoint
            )
        except _UNREADABLE:
            return build_question(request.endpoint, body), ANSWER_UNREADABLE
        return transcript, request.outcome
    return build_question(request.endpoint, body), request.outcome


def _build_notes(source: SourceFile, log: RequestLog) -> Iterable[ConversionNote]:
    """Yields a note for each key of the log, then for each reason to omit requests, with their
    number.
    """
    place = str(source.path)
    for key, (is_taken, text) in sorted(log.keys.items()):
        outcome = ConversionOutcome.TAKEN if is_taken else ConversionOutcome.LEFT
        yield ConversionNote(place, key, outcome, text)
    for reason, number in sorted(log.lost.items()):
        if number:
            text = f"{number} {reason}"
            yield ConversionNote(place, "requests", ConversionOutcome.LEFT, text)
