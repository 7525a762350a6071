"""Writes a report of `attach` as blocks, for the screen and the page, and as JSON. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.app.attach.attach_report import (
    MOST_MODELS,
    UNKNOWN_JUDGE,
    UNKNOWN_ROUTE,
    AttachReport,
    SeenModel,
    count_unknown,
)
from harness.app.attach.proof_effort import FEWEST_CALLERS, POINTS, ProofEffort
from harness.app.attach.replacements import Replacement
from harness.frame.formatting import (
    format_date,
    format_excerpt,
    format_latency,
    format_percent,
    format_quantity,
    format_spent_usd,
    format_usd,
)
from harness.proposals.report.blocks import (
    Blocks,
    BulletList,
    Commands,
    Facts,
    Heading,
    Sentence,
    Table,
    mark_code,
)

_UNKNOWN: Final = "unknown"
_UNKNOWN_END: Final = (
    "An unknown end is not a late one: the catalogue states none, and a log does not tell what "
    "the provider's list states. In an installation, `swapproof model discover PROVIDER` reads "
    "that list."
)
_MEDIAN: Final = 0.5
_LATE: Final = 0.95
_MOST_ERRORS: Final = 3
_LONGEST_NAME: Final = 60  # of a model in a table


def describe_report(report: AttachReport) -> Blocks:
    """Yields the blocks of the whole report, which the screen shows."""
    yield Heading("The traffic", level=1)
    yield Facts([*_list_facts(report)])
    yield Heading("Models in use")
    yield Table(
        ("Model", "Requests", "Spend", "Median", "95 %", "Errors", "Ends"),
        [_write_model_row(model) for model in report.models[:MOST_MODELS]],
    )
    if any(model.end.day is None for model in report.models[:MOST_MODELS]):
        yield Sentence(mark_code(_UNKNOWN_END))
    if others := report.other_models:
        requests = sum(model.traffic.requests for model in others)
        yield Sentence(
            f"{format_quantity(len(others), 'more model')} with "
            f"{format_quantity(requests, 'request')}: --json lists them."
        )
    if unknown := [*_list_unknown(report)]:
        yield BulletList("Unknown", unknown)
    yield Heading("What could take their place")
    yield from _describe_replacements(report)
    yield Heading(f"What a proof for {report.subject.name} would take")
    yield Facts([*_list_effort(report)])
    if report.obstacles:
        yield BulletList("Mind", [mark_code(obstacle) for obstacle in report.obstacles])
    yield Heading("Next")
    yield Sentence(mark_code(_describe_need(report)))
    yield Commands([report.next_command])


def _describe_need(report: AttachReport) -> str:
    """Describes what the next command needs."""
    words = report.next_command.split()
    gaps = [gap for gap in (UNKNOWN_ROUTE, UNKNOWN_JUDGE) if gap in words]
    names = (
        f"Put a name for {' and '.join(gaps)}, which the log does not tell. " if gaps else ""
    )
    return (
        f"{names}The command needs an installation (`swapproof init`) whose route serves "
        f"{report.subject.name}, and a provider for the judge."
    )


def _list_facts(report: AttachReport) -> Iterator[tuple[str, str]]:
    survey = report.survey
    for source in report.sources:
        yield "Source", f"{source.name}: {source.title}"
    yield "Requests", f"{survey.requests:,}"
    if survey.first_at is not None and survey.last_at is not None:
        first = format_date(survey.first_at.date())
        last = format_date(survey.last_at.date())
        days = format_quantity(len(survey.days), "day")
        yield "Dates", f"{first} to {last}, requests on {days}"
    callers = f"{survey.callers:,}" if survey.callers else "the log names no caller"
    yield "Callers", callers
    for reason, number in survey.lost.most_common(_MOST_ERRORS):
        yield "Without", f"{number:,} {reason}"
    catalogue = report.catalogue or (
        "none here: prices and ends of models are unknown. The package swapproof has a "
        "catalogue"
    )
    as_of = f", of {format_date(report.as_of)}" if report.as_of else ""
    yield "Prices and ends", f"{catalogue}{as_of}"


def _write_model_row(model: SeenModel) -> tuple[str, ...]:
    traffic = model.traffic
    median = format_latency(traffic.find_duration(_MEDIAN), _UNKNOWN)
    late = format_latency(traffic.find_duration(_LATE), _UNKNOWN)
    return (
        format_excerpt(model.name, _LONGEST_NAME),
        f"{traffic.requests:,}",
        format_spent_usd(traffic.cost_usd, traffic.requests - traffic.priced),
        median,
        late,
        _describe_errors(model),
        _describe_end(model),
    )


def _describe_errors(model: SeenModel) -> str:
    traffic = model.traffic
    if not traffic.failed:
        return "0"
    kinds = ", ".join(
        f"{number:,} × {kind}" for kind, number in traffic.errors.most_common(_MOST_ERRORS)
    )
    return f"{traffic.failed:,} ({kinds})"


def _describe_end(model: SeenModel) -> str:
    if model.end.day is None and model.entry is None:
        return f"{_UNKNOWN}: not in the catalogue"
    return model.end.text


def _list_unknown(report: AttachReport) -> Iterator[str]:
    total = report.survey.requests
    for fact, number in count_unknown(report).items():
        if number:
            at_list = _describe_list_price(report) if fact == "cost" else ""
            yield f"{number:,} of {format_quantity(total, 'request')} have no {fact}{at_list}"


def _describe_list_price(report: AttachReport) -> str:
    """Describes the price of the requests with known tokens, as the end of a sentence."""
    known = [model.list_usd for model in report.models if model.list_usd is not None]
    if not known:
        return ""
    return f"; those with known tokens cost {format_usd(sum(known))} at list prices"


def _describe_replacements(report: AttachReport) -> Blocks:
    rows = [
        _write_replacement_row(model, replacement)
        for model in report.models[:MOST_MODELS]
        for replacement in model.replacements
    ]
    if not rows:
        yield Sentence(
            "Unknown: the catalogue has no price or no other model for these. Name one by "
            "--candidate PROVIDER/MODEL."
        )
        return
    yield Table(("Model", "By", "Why", "Cost", "Saves", "Ends", "Cannot take"), rows)
    yield Sentence(
        "Costs are of the requests with known tokens, at list prices without a cache. Quality "
        "is unknown until a proof."
    )


def _write_replacement_row(model: SeenModel, other: Replacement) -> tuple[str, ...]:
    end = format_date(other.end.day) if other.end.day else other.end.text
    return (
        format_excerpt(model.name, _LONGEST_NAME),
        other.name,
        other.why,
        format_usd(other.cost_usd, _UNKNOWN),
        _describe_saving(other),
        end,
        _describe_untaken(model, other),
    )


def _describe_saving(other: Replacement) -> str:
    if other.saving_usd is None:
        return _UNKNOWN
    if other.saving_usd < 0:
        return f"nothing: {format_usd(-other.saving_usd)} more"
    if not other.saving_usd:
        return "nothing"
    return f"{format_usd(other.saving_usd)} ({format_percent(other.saving, 0)})"


def _describe_untaken(model: SeenModel, other: Replacement) -> str:
    """Describes the requests that a model cannot take, by reason."""
    total = model.traffic.requests
    known = [
        f"{number:,} of {total:,}: no {reason}" for reason, number in other.untaken.items()
    ]
    unstated = [
        f"{number:,} of {total:,}: {need} unknown" for need, number in other.unstated.items()
    ]
    if not known and not unstated:
        if not model.traffic.with_content:
            return "unknown without the messages"
        return "none found"
    return "; ".join([*known, *unstated])


def _list_effort(report: AttachReport) -> Iterator[tuple[str, str]]:
    effort = report.effort
    few = (
        "" if effort.callers >= FEWEST_CALLERS else f", if there were {FEWEST_CALLERS} callers"
    )
    chosen = report.candidate
    yield "Candidate", f"{chosen.name}: {chosen.why}" if chosen.name else f"none: {chosen.why}"
    yield (
        "Requests",
        (
            f"{effort.items:,} to the candidate, and {effort.reasked:,} again to the present "
            "model"
        ),
    )
    yield "Judge", report.judge or "unknown: name it by --judge"
    yield "Money", _describe_money(effort)
    median, most = effort.minutes
    yield (
        "A person",
        (
            f"about {median} minutes for {effort.labels} labels, and in 4 of 5 cases at most "
            f"{most} for {effort.labels_80}, to show a loss of less than {POINTS} points{few}"
        ),
    )


def _describe_money(effort: ProofEffort) -> str:
    parts = {
        "the candidate": effort.candidate_usd,
        "the present model": effort.incumbent_usd,
        "the judge": effort.judge_usd,
    }
    known = [usd for usd in parts.values() if usd is not None]
    total = format_spent_usd(sum(known), len(parts) - len(known))
    each = ", ".join(f"{format_usd(usd, _UNKNOWN)} for {name}" for name, usd in parts.items())
    tokens = "unknown tokens"
    if effort.judge_input_tokens is not None:
        tokens = f"{format_quantity(effort.judge_input_tokens, 'token')} of input"
    return f"{total}: {each} ({effort.judge_calls:,} judgements, {tokens})"


def write_json(report: AttachReport) -> Mapping[str, Any]:
    """Writes the report for `--json`. A null is an unknown figure."""
    survey = report.survey
    effort = report.effort
    return {
        "sources": [
            {"name": source.name, "format": source.kind, "note": source.note}
            for source in report.sources
        ],
        "requests": survey.requests,
        "first_at": survey.first_at.isoformat() if survey.first_at else None,
        "last_at": survey.last_at.isoformat() if survey.last_at else None,
        "callers": survey.callers,
        "conversations": survey.conversations,
        "unknown": count_unknown(report),
        "left_out": dict(survey.lost),
        "catalogue": report.catalogue or None,
        "models": [_write_model(model) for model in report.models],
        "proof": {
            "model": report.subject.name,
            "candidate": report.candidate.name or None,
            "candidate_why": report.candidate.why,
            "judge": report.judge or None,
            "requests": effort.items,
            "requests_again": effort.reasked,
            "candidate_usd": effort.candidate_usd,
            "incumbent_usd": effort.incumbent_usd,
            "judge_usd": effort.judge_usd,
            "judgements": effort.judge_calls,
            "judge_input_tokens": effort.judge_input_tokens,
            "labels": effort.labels,
            "labels_80_percent": effort.labels_80,
            "minutes": effort.minutes[0],
            "minutes_80_percent": effort.minutes[1],
        },
        "obstacles": list(report.obstacles),
        "next_command": report.next_command,
    }


def _write_model(model: SeenModel) -> Mapping[str, Any]:
    traffic = model.traffic
    end = model.end.day
    return {
        "model": model.name,
        "requests": traffic.requests,
        "cost_usd": traffic.cost_usd if traffic.priced else None,
        "with_cost": traffic.priced,
        "input_tokens": traffic.input_tokens if traffic.counted else None,
        "output_tokens": traffic.output_tokens if traffic.counted else None,
        "with_tokens": traffic.counted,
        "median_s": traffic.find_duration(_MEDIAN),
        "p95_s": traffic.find_duration(_LATE),
        "with_duration": traffic.timed,
        "failed": traffic.failed,
        "errors": dict(traffic.errors),
        "in_catalogue": model.entry is not None,
        "end_date": end.isoformat() if end else None,
        "end": model.end.state.value,
        "end_source": model.end.source,
        "list_price_usd": model.list_usd,
        "needs": dict(traffic.needs),
        "never_asked_again": dict(traffic.bonds),
        "replacements": [
            {
                "model": other.name,
                "why": other.why,
                "end": other.end.state.value,
                "end_date": other.end.day.isoformat() if other.end.day else None,
                "cost_usd": other.cost_usd,
                "saving_usd": other.saving_usd,
                "cannot_take": dict(other.untaken),
                "ability_unknown": dict(other.unstated),
            }
            for other in model.replacements
        ],
    }
