"""Says what of a log hinders a proof, each as one sentence with what to do. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from harness.app.attach.traffic_survey import ModelTraffic, TrafficSurvey
from harness.frame.formatting import format_quantity

# A draw takes records of at most so many days.
MOST_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class SourceNote:
    """A source that was read."""

    name: str  # as the user gave it
    kind: str  # a key of LOG_READERS
    title: str
    note: str = ""  # what the user must know, such as that only a part was read


def list_obstacles(
    sources: Sequence[SourceNote],
    survey: TrafficSurvey,
    subject: ModelTraffic,
    now: datetime,
) -> Iterator[str]:
    """Yields what hinders a proof from this log, or what the reader must know about it.

    Args:
        subject: the model whose proof is sought.
    """
    total = survey.requests
    failed = sum(model.failed for model in survey.models.values())
    yield from (f"{source.name}: {source.note}" for source in sources if source.note)
    if any(source.kind == "promptfoo" for source in sources):
        yield (
            "results of promptfoo are requests of an eval, not of users: they show costs and "
            "times, and a proof about traffic needs a log of traffic"
        )
    if not survey.with_content:
        reasons = "; ".join(reason for reason, _ in survey.lost.most_common(2))
        yield (
            "no request has its messages, so a proof cannot ask them again"
            f"{f' ({reasons})' if reasons else ''}"
        )
    elif missing := total - survey.with_content:
        yield f"{_part(missing, total)} have no messages, and cannot be asked again"
    if survey.with_content and not survey.answered:
        yield (
            "the log has no answers: a proof compares a candidate's answers with those that "
            "users got, so let the tool record them too"
        )
    elif (missing := survey.with_content - survey.answered - failed) > 0:
        yield f"{_part(missing, survey.with_content)} have no answer in the log"
    yield from _list_date_obstacles(survey, now)
    yield from _list_caller_obstacles(survey)
    if survey.all_alike:
        yield (
            "all requests ask the same, and no suite is drawn from one question: log more of "
            "the traffic"
        )
    for bond, number in subject.bonds.most_common():
        yield f"{_part(number, total)} are never asked again, because they use {bond}"
    if survey.repeated:
        yield f"repeated records, which count once: {survey.repeated:,}"


def _list_date_obstacles(survey: TrafficSurvey, now: datetime) -> Iterator[str]:
    if survey.undated == survey.requests:
        yield (
            "no request has a date, and a draw takes whole days: export the log with the times "
            "of the requests"
        )
        return
    if survey.undated:
        yield f"{_part(survey.undated, survey.requests)} have no date, and are not drawn"
    if survey.last_at is None:
        return
    age = now - survey.last_at.astimezone(UTC)
    if age > timedelta(days=MOST_DAYS):
        yield (
            f"the newest request is {age.days} days old, and a draw takes records of at most "
            f"{MOST_DAYS} days: export the log again"
        )
    elif len(survey.days) == 1:
        yield "all requests are of one day: a draw takes whole days, so log several"


def _list_caller_obstacles(survey: TrafficSurvey) -> Iterator[str]:
    if not survey.callers and survey.conversations < 2:
        yield (
            "no request names its caller or its conversation: one heavy caller could decide "
            "the proof, so log the user of each request"
        )
    elif survey.callers == 1:
        yield (
            "all requests name one caller, and no suite is drawn from one caller: log the end "
            "user of each request"
        )


def _part(number: int, total: int) -> str:
    return f"{number:,} of {format_quantity(total, 'request')}"
