"""Turns another tool's logged requests into a file to label, as `capture export` writes it.

The readers of the logs are in `evals.suites`. Each request passes the same redaction as a
captured one, and equal or nearly equal requests become one, so that labelling them is worth it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from evals.suites.litellm_logs import read_spend_logs
from evals.suites.otel_spans import read_spans
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

READERS: Final = {"otel": read_spans, "litellm": read_spend_logs}
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
    """Writes `suites/NAME-to-label.jsonl` beside swapgate.yaml, redacted as captures are.

    kind: a key of READERS. route: gives the data class of these requests; if it is empty, the
    file names the service that sent each request instead.
    Raises, without a file, InputError, NothingTaken, NotFound for an unknown route.
    """
    settings = installation.settings
    if settings.source is None:
        raise ConfigError("there is no swapgate.yaml to write the file to: `swapgate init`")
    if not NAME.fullmatch(suite):
        raise InputError(f"{suite!r} is not a suite's name: use a-z, 0-9, - and _")
    data_class = ""
    if route:
        with installation.context.store.read() as tx:
            data_class = require_route(tx, route).settings.data_class
    log = READERS[kind](source)
    redactor = Redactor(settings.capture.rules, settings.capture.off)
    found = _captures(installation, log, redactor, kind, route, data_class)
    near = find_near_duplicates(
        {request.id: user_text(request.content) for request in found},
        threshold=NEAR_DUPLICATE_SIMILARITY,
    )
    log.lost[_REPEAT] += sum(request.seen - 1 for request in found) + len(near)
    single = {request.id: request.caller for request in found if request.id not in near}
    drawn = draw_per_caller(single)
    log.lost[_FREQUENT] += len(single) - len(drawn)
    kept = [request for request in found if request.id in drawn]
    notes = [*_notes(source, log)]
    if not kept:
        raise NothingTaken(f"{source.path}: has no request to label", notes)
    sample = {
        "drawn": len(log.requests),
        "written": len(kept),
        "exported_at": installation.clock.now().isoformat(),
    }
    file = settings.source.resolve().parent / FOLDER / f"{suite}-to-label.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [build_export_line(request, sample) for request in kept]
    write_export(file, lines, advice="use another --suite name")
    counts: Counter[str] = Counter()
    for request in kept:
        counts.update(request.redactions)
    return RequestsToLabel(file, len(kept), dict(sorted(counts.items())), data_class), notes


def _captures(
    installation: Installation,
    log: RequestLog,
    redactor: Redactor,
    kind: str,
    route: str,
    data_class: str,
) -> Sequence[CapturedRequest]:
    """Returns the requests, oldest first; equal requests are one. Counts unreadable ones."""
    found: dict[str, CapturedRequest] = {}
    for request in sorted(log.requests, key=lambda request: request.at):
        try:
            content, outcome = _transcript(request)
        except _UNREADABLE:
            log.lost["that are no conversation"] += 1
            continue
        if not user_text(content).strip():
            log.lost["whose messages of users have no text"] += 1
            continue
        try:
            redacted = redactor.redact(content)
        except PatternTooSlow:
            log.lost["that a rule of `capture.redact` does not read in time"] += 1
            continue
        name = route or request.source or kind
        id_ = capture_id(name, redacted.value, installation.secret)
        if id_ in found:
            found[id_] = replace(found[id_], seen=found[id_].seen + 1)
            continue
        found[id_] = CapturedRequest(
            id=id_,
            at=request.at,
            expires_at=request.at,
            route=name,
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
            caller=_caller(request, installation.secret),
            conversation=_conversation(request, installation.secret),
        )
    return [*found.values()]


def _caller(request: LoggedRequest, secret: bytes) -> str:
    """Returns the pseudonym of the user that a request names; empty without one."""
    named = body_callers(request.body)
    user = next((name for name in named if not name.startswith(_CONVERSATION)), "")
    user = request.caller or user
    return hash_user(f"caller:{user}", secret) if user else ""


def _conversation(request: LoggedRequest, secret: bytes) -> str:
    """Returns the pseudonym of the conversation that a request names; empty without one."""
    named = body_callers(request.body)
    found = next((name for name in named if name.startswith(_CONVERSATION)), "")
    found = request.conversation or found
    return hash_user(f"conversation:{found}", secret) if found else ""


def _transcript(request: LoggedRequest) -> tuple[Mapping[str, Any], str]:
    """Builds the conversation of a request with its answer, in the API that logged it. Returns
    it with the outcome. An unreadable answer leaves the request without one.
    """
    body = json.dumps(request.body)
    if request.answer:
        answered = "chat" if "choices" in request.answer else request.endpoint
        try:
            answer = json.dumps(request.answer)
            built = build_transcript(
                request.endpoint, body, answer, stream=False, answered=answered
            )
        except _UNREADABLE:
            return build_question(request.endpoint, body), ANSWER_UNREADABLE
        return built, request.outcome
    return build_question(request.endpoint, body), request.outcome


def _notes(source: SourceFile, log: RequestLog) -> Iterable[ConversionNote]:
    """Yields what was read of each key of the log, then why requests were left out, with
    numbers.
    """
    place = str(source.path)
    for key, (taken, text) in sorted(log.keys.items()):
        outcome = ConversionOutcome.TAKEN if taken else ConversionOutcome.LEFT
        yield ConversionNote(place, key, outcome, text)
    for why, number in sorted(log.lost.items()):
        if number:
            text = f"{number} {why}"
            yield ConversionNote(place, "requests", ConversionOutcome.LEFT, text)
