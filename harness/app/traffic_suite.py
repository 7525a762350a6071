"""Draws a suite of traffic from a log of requests or from captures, and registers the draw.

A draw reads a file or the database of this machine, and sends nothing. Each record passes the
same redaction as a capture. `evals.traffic` has the rules; this module connects them to the
route, the log, the configuration and the audit log.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from evals.scorers.preference import DEFAULT_CRITERIA, PREFERENCE
from evals.suites.items import file_sha256
from evals.suites.logs.log_formats import LOG_READERS, find_kind
from evals.suites.logs.log_stream import stream_source
from evals.suites.request_log import LoggedRequest
from evals.suites.suite_import import ImportedSuite, SuiteItems
from evals.traffic.draw import (
    OTHER_MODEL,
    OUTSIDE,
    Draw,
    DrawRule,
    describe_draw,
    draw_dates,
    draw_records,
)
from evals.traffic.items import (
    CLUSTER,
    LoggedCall,
    build_item,
    has_left_out_part,
)
from harness.app.capture_import import build_capture
from harness.app.installation import Installation
from harness.app.suite_import import SuiteImport, add_suites
from harness.evals.recorded_turn import Coverage
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role, key_hash
from harness.frame.plain_data import digest
from harness.frame.records.transaction import Transaction
from harness.frame.redaction import Redactor
from harness.frame.signing.audit_log import AuditLog
from harness.gate.suite_plan import RUN_CLUSTER
from harness.operations.records import Captures
from harness.proposals.traffic_suites import DRAWN
from harness.providers.models.makers import find_shared_maker
from harness.providers.records import Providers, Sightings
from harness.providers.registry.targets import require_provider, store_prices
from harness.providers.target import Target
from harness.routing.capture import PROVIDER_STATE, SETTINGS, CapturedRequest
from harness.routing.control import data_class_checks
from harness.routing.control.routes import require_route
from harness.routing.provider_side import find_provider_file, find_provider_state
from harness.routing.records.routes import Routing
from harness.routing.reliability.failover import hash_user
from harness.routing.request_settings import read_settings

CAPTURES: Final = "captures"  # the source that is Swapproof's own database
_OTHER_CLASS: Final = "of another data class than the route's"
_COPY_REFUSED: Final = "whose client refuses copies (`store: false`)"
_NO_CHAT: Final = "that Swapproof cannot ask as a chat"
_WITH_MEDIA: Final = "with pictures, audio or files, which Swapproof does not keep"
_TOO_LARGE: Final = "over the size limit of captures (copy_max_bytes)"


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """A person's request for a draw. source: a file, or CAPTURES.

    days: None for the days of the route's policy. max_items: None for no limit.
    judge_anyway: why the judge may be of a compared model's maker.
    """

    suite: str
    route: str
    source: str
    judge: str
    days: int | None = None
    max_items: int | None = None
    criteria: str = DEFAULT_CRITERIA
    judge_anyway: str = ""
    ask_again: bool = False  # both models answer every record now


@dataclass(frozen=True, slots=True)
class SuiteDraw:
    """A written suite of traffic.

    receivers: the targets whose providers get contents once the suite is used, by their part.
    runs: of agents, by their coverage; empty for a draw of requests.
    """

    added: SuiteImport
    summary: str
    left_out: Mapping[str, int]  # by reason
    dated: int  # drawn records with a date or a tool's result in their prompt
    receivers: Mapping[str, str]
    runs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _LoggedRecords:
    """The records of a source that may be drawn.

    calls, traces: by the record's id; a trace is the pseudonym of its name in the log.
    """

    records: Sequence[CapturedRequest]
    calls: Mapping[str, LoggedCall]
    traces: Mapping[str, str]
    left_out: Mapping[str, int]
    source_sha256: str


def draw_suite(
    installation: Installation,
    actor: Actor,
    request: DrawRequest,
    *,
    replace_: bool = False,
) -> SuiteDraw:
    """Draws records of the route's incumbent, and writes them as a suite with a manifest.

    Raises, without a change, InputError for records that cannot give a verdict or a judge of a
    compared family, NotAllowed, NotFound, and the errors of `add_suites`.
    """
    actor.require(Role.PROPOSER if request.source != CAPTURES else Role.APPROVER)
    ctx = installation.context
    with ctx.store.read() as tx:
        settings = require_route(tx, request.route).settings
        table = Routing(tx).table()
        incumbent = table.targets[table.routes[request.route].incumbent]
        sightings = Sightings(tx).for_target(incumbent.id)
        judge = Target.from_name(request.judge)
        _require_judge_provider(tx, judge)
    _check_judge(request, judge, incumbent)
    _check_classes(installation, settings.data_class, request.route)
    data_class_checks.check_targets(ctx, settings, [incumbent, judge], route=request.route)
    rule = _build_rule(installation, request, ctx.policy(settings.policy).gate.draw_days)
    logged = _load_records(installation, request, settings.data_class, rule, incumbent)
    names = (incumbent.model.lower(), incumbent.model.rpartition("/")[2].lower())
    draw = draw_records(
        logged.records,
        rule,
        model_names=frozenset(names),
        served_today=sightings[0].served.model if sightings else "",
        traces=logged.traces,
    )
    left_out = Counter({**logged.left_out}) + Counter({**draw.left_out})
    items = _build_items(request, draw, logged, incumbent, left_out)
    manifest = _build_manifest(request, draw, logged.source_sha256, left_out, items)
    suite = _build_suite(request, draw, incumbent, settings.data_class, manifest, items)
    added = add_suites(
        installation,
        actor,
        [suite],
        replace_=replace_,
        audit=lambda imported: _record_draw(installation, actor, request, manifest, imported),
    )
    return SuiteDraw(
        added,
        describe_draw(draw),
        dict(left_out),
        dated=sum(item["metadata"]["dated"] == "yes" for item in items),
        receivers={"the judge": judge.name, "the incumbent, asked again": incumbent.name},
        runs={coverage.value: count for coverage, count in draw.coverage.items()},
    )


def _build_items(
    request: DrawRequest,
    draw: Draw,
    logged: _LoggedRecords,
    incumbent: Target,
    left_out: Counter[str],
) -> Sequence[Mapping[str, Any]]:
    """Builds the items, and counts the records that Swapproof cannot ask. Raises InputError if
    it can ask none.
    """
    items = []
    for drawn in draw.records:
        call = logged.calls.get(drawn.record.id, LoggedCall())
        try:
            item = build_item(
                drawn, call, answers_of=incumbent.name, ask_again=request.ask_again
            )
        except InputError:
            left_out[_NO_CHAT] += 1
        else:
            items.append(item)
    if not items:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{request.source}: Swapproof cannot ask a drawn record: {reasons}")
    return items


def _build_suite(
    request: DrawRequest,
    draw: Draw,
    incumbent: Target,
    data_class: str,
    manifest: Mapping[str, object],
    items: Sequence[Mapping[str, Any]],
) -> SuiteItems:
    reason = {"judge_anyway": request.judge_anyway} if request.judge_anyway else {}
    settings = SuiteSettings(
        name=request.suite,
        title=f"traffic of {request.route}, {draw.rule.first} to {draw.rule.last}",
        scorer=PREFERENCE.name,
        scorer_options={
            "criteria": request.criteria,
            "answers_of": incumbent.name,
            "draw": digest(manifest),
            **reason,
        },
        data_class=data_class,
        cluster=RUN_CLUSTER if draw.runs_by else CLUSTER,
        judge=JudgeSettings(Target.from_name(request.judge)),
    )
    return SuiteItems(settings, items, origin=dict(manifest))


def _require_judge_provider(tx: Transaction, judge: Target) -> None:
    """Raises NotFound for a judge without a provider, before anything is drawn."""
    if judge.provider not in Providers(tx).all():
        raise NotFound(
            f"the judge {judge.name} has no provider here: add it by `swapproof provider add "
            f"{judge.provider}`, or name a --judge of another provider"
        )


def _check_judge(request: DrawRequest, judge: Target, incumbent: Target) -> None:
    """Raises InputError for the incumbent as judge, and for a judge of its family without a
    reason.
    """
    if judge.name == incumbent.name:
        raise InputError(
            f"{judge.name} is the incumbent, so it cannot judge its own answers: name another "
            "--judge"
        )
    fault = find_shared_maker(judge.model, [incumbent.model])
    if fault and not request.judge_anyway.strip():
        raise InputError(
            f"{fault}: name a --judge of another maker, or give a reason by --judge-anyway, "
            "which each verdict shows"
        )


def _check_classes(installation: Installation, data_class: str, route: str) -> None:
    """Raises NotAllowed if a route without a data class leaves its receivers unknown."""
    if installation.context.data_classes and not data_class:
        raise NotAllowed(
            f"the configuration has data classes, but route {route!r} has none, so Swapproof "
            "cannot tell who may see its records: set the route's `data_class`, and draw again"
        )


def _build_rule(installation: Installation, request: DrawRequest, policy_days: int) -> DrawRule:
    """Builds the rule of the draw. Its seed depends on the route and the dates, and on no
    content, so that a proposer cannot search for a favourable seed.
    """
    days = policy_days if request.days is None else request.days
    if days > policy_days:
        raise InputError(
            f"--days {days}: the route's policy draws from {policy_days} whole days; fewer are "
            "allowed, more need the policy's `draw_days`"
        )
    if request.max_items is not None and request.max_items < 1:
        raise InputError(f"a draw needs at least one item, not {request.max_items}")
    first, last = draw_dates(installation.clock.now(), days)
    seed = key_hash(f"draw:{request.route}:{first}:{last}", installation.secret)[:16]
    return DrawRule(first, last, seed, request.max_items)


def _load_records(
    installation: Installation,
    request: DrawRequest,
    data_class: str,
    rule: DrawRule,
    incumbent: Target,
) -> _LoggedRecords:
    if request.source == CAPTURES:
        return _load_captures(installation, request.route, data_class, rule, incumbent)
    return _read_log(installation, request, data_class, rule)


def _read_log(
    installation: Installation, request: DrawRequest, data_class: str, rule: DrawRule
) -> _LoggedRecords:
    """Reads and redacts the requests of a file that a copy cannot harm. Raises InputError."""
    path = Path(request.source)
    redactor = Redactor(installation.settings.capture.rules, installation.settings.capture.off)
    left_out: Counter[str] = Counter()
    records: list[CapturedRequest] = []
    calls = {}
    traces = {}
    for logged in _stream_requests(path, left_out):
        if not rule.includes(logged.at):
            left_out[OUTSIDE] += 1
            continue
        if reason := _find_obstacle(logged.body, logged.data_class, data_class):
            left_out[reason] += 1
            continue
        capture = build_capture(installation, logged, redactor, request.route, data_class)
        if isinstance(capture, str):
            left_out[capture] += 1
            continue
        if has_left_out_part(capture):
            left_out[_WITH_MEDIA] += 1
            continue
        # Equal requests stay apart: each is one of the population.
        identity = key_hash(f"drawn:{logged.place}:{logged.id}", installation.secret)
        served = logged.served_model or logged.model
        record = replace(capture, id=f"drw_{identity[:24]}", target=served)
        records.append(record)
        calls[record.id] = LoggedCall(read_settings(logged.body), _find_tokens(logged))
        if logged.trace:
            traces[record.id] = hash_user(f"trace:{logged.trace}", installation.secret)
    return _LoggedRecords(records, calls, traces, left_out, file_sha256(path))


def _find_tokens(logged: LoggedRequest) -> tuple[int, int] | None:
    """Returns the tokens of request and answer; None unless the log has both."""
    if logged.input_tokens is None or logged.output_tokens is None:
        return None
    return logged.input_tokens, logged.output_tokens


def _stream_requests(path: Path, left_out: Counter[str]) -> Iterator[LoggedRequest]:
    """Yields the requests of a log with their contents, and counts the others. Reads a large
    file in parts. Raises InputError.
    """
    kind = ""
    for part in stream_source(path):
        kind = find_kind(part, kind)
        log = LOG_READERS[kind](part)
        left_out.update(log.lost)
        yield from log.requests


def _find_obstacle(body: Mapping[str, Any], own_class: str, data_class: str) -> str:
    """Returns why a logged request is not drawn; empty if it may be. The answer is not read."""
    if own_class and own_class != data_class:
        return _OTHER_CLASS
    if body.get("store") is False:
        return _COPY_REFUSED
    noted = body.get(PROVIDER_STATE)
    if obstacle := noted or find_provider_state(body.get) or find_provider_file(body):
        return f"with {obstacle}"
    return ""


def _load_captures(
    installation: Installation,
    route: str,
    data_class: str,
    rule: DrawRule,
    incumbent: Target,
) -> _LoggedRecords:
    """Loads the route's captures. They are redacted, and without opted-out requests."""
    age = timedelta(days=rule.days + 1)
    with installation.context.store.read() as tx:
        captures = [*Captures(tx).list(route=route, since=installation.clock.now() - age)]
    left_out: Counter[str] = Counter()
    records = []
    for capture in captures:
        if capture.target != incumbent.name:
            left_out[OTHER_MODEL] += 1
        elif capture.too_large:
            left_out[_TOO_LARGE] += 1
        elif reason := _find_obstacle(capture.content, capture.data_class, data_class):
            left_out[reason] += 1
        elif has_left_out_part(capture):
            left_out[_WITH_MEDIA] += 1
        else:
            records.append(replace(capture, target=incumbent.model))
    sha256 = digest(sorted(record.id for record in records))
    calls = {
        record.id: LoggedCall(record.content[SETTINGS])
        for record in records
        if SETTINGS in record.content
    }
    return _LoggedRecords(records, calls, {}, left_out, sha256)


def _build_manifest(
    request: DrawRequest,
    draw: Draw,
    source_sha256: str,
    left_out: Mapping[str, int],
    items: Sequence[Mapping[str, Any]],
) -> dict[str, object]:
    """Builds the registration of the draw, as the manifest has it."""
    return {
        "origin": "drawn from traffic",
        "route": request.route,
        "source": Path(request.source).name,
        "source_sha256": source_sha256,
        "served_model": draw.served,
        "first_day": draw.rule.first.isoformat(),
        "last_day": draw.rule.last.isoformat(),
        "per_day": [f"{day} {count}" for day, count in sorted(draw.per_day.items())],
        "seed": draw.rule.seed,
        "max_items": draw.rule.max_items or 0,
        "callers": draw.callers,
        "callers_by_conversation": draw.split_callers,
        "without_caller": draw.unnamed,
        **_describe_runs(draw),
        "asked_again": len(items) if request.ask_again else draw.failed,
        "dated": sum(item["metadata"]["dated"] == "yes" for item in items),
        "not_drawn": [
            f"{count} {reason}" for reason, count in sorted(left_out.items()) if count
        ],
        "judge": request.judge,
        "judge_anyway": request.judge_anyway,
    }


def _describe_runs(draw: Draw) -> Mapping[str, object]:
    """Describes the runs of a draw for its registration; empty for a draw of requests."""
    if draw.runs_by is None:
        return {}
    counts = {f"runs_{coverage}": draw.coverage[coverage] for coverage in Coverage}
    return {"runs_by": draw.runs_by.value, **counts, "without_run": draw.unnamed_runs}


@contextmanager
def _record_draw(
    installation: Installation,
    actor: Actor,
    request: DrawRequest,
    manifest: Mapping[str, object],
    imported: Sequence[ImportedSuite],
) -> Iterator[None]:
    """Registers the draw in the audit log before the block."""
    details = {**manifest, "items": imported[0].items, "sha256": imported[0].sha256}
    with installation.context.store.write() as tx:
        AuditLog(tx).append(actor, DRAWN, f"suite {request.suite}", details)
        # A control process that runs fills prices at its start only.
        judge = Target.from_name(request.judge)
        provider = require_provider(tx, judge.provider)
        store_prices(installation.context, tx, SYSTEM, provider, [judge.model])
        yield
