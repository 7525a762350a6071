"""The lines of a file of exposures and events.

Each line is a JSON array that begins with a `LineTag`. A file names its rollouts before their
first row, so a later process can read it alone. Times are microseconds since 1970 by the clock
of the writer's machine; `read_line` moves them to the time of the database.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final

from harness.gate.online.exposures import EventKind, Exposure, ExposureEvent
from harness.gate.online.outcome import (
    ExposureOutcome,
    JudgeOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.reading.scored_exposures import GuardrailSample

# A provider chooses the model's name that its answer carries.
MAX_SERVED_CHARS: Final = 200


class LineTag(StrEnum):
    """The first value of a line. The comments list the others."""

    ROLLOUT = "r"  # the number of the rollout in this file, its id
    # The number of the rollout, ticket, period, caller, sample, canary (1 or 0), weight_bps,
    # admitted_at, traits, the id of the client's key.
    EXPOSURE = "x"
    # The number of the rollout, ticket, kind, at, began_at, and the other fields of
    # `ExposureEvent` in their order; None at the end is left out.
    EVENT = "e"
    TIME = "t"  # the time until which the process has written everything


def count_microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def write_line(tag: LineTag, *values: object) -> str:
    return f"{_ENCODER.encode((tag.value, *values))}\n"


def list_values(
    outcome: ExposureOutcome,
    served: str,
    sample: GuardrailSample | None,
) -> Sequence[object]:
    """Returns the values of an event of an ended request, in the order of `ExposureEvent`."""
    kind, reason, name, waited_s, has_sent, first_s, gap_s = outcome
    served = served[:MAX_SERVED_CHARS]
    ended = (kind.value, reason and reason.value, name, waited_s, has_sent, first_s, gap_s)
    if sample is None:
        return (*ended, served)
    values, faults, text, text_length, question = sample
    total_s, first_token_s, between_s, tokens, cost_usd, cache, opening_s, bounded = values
    return (
        *ended,
        served,
        total_s,
        first_token_s,
        between_s,
        tokens,
        cost_usd,
        *cache,
        opening_s,
        bounded,
        faults,
        text,
        text_length,
        question,
    )


def list_feedback(*, bad: bool) -> Sequence[object]:
    """Returns the values of an event of feedback, in the order of `ExposureEvent`."""
    return (*_before("bad"), bad)


def list_judgement(verdict: JudgeOutcome, judge_usd: float) -> Sequence[object]:
    """Returns the values of an event of the judge, in the order of `ExposureEvent`."""
    return (*_before("verdict"), int(verdict), judge_usd)


@dataclass(frozen=True, slots=True)
class LineReader:
    """Reads the lines of one file in order.

    worker: the process that wrote the file.
    rollouts: the ids of the rollouts by their number in the file; grows with the lines.
    """

    worker: str
    rollouts: dict[int, str]

    def read(self, line: bytes, ahead: timedelta) -> Exposure | ExposureEvent | datetime | None:
        """Reads a line. Returns a row, or the time until which the file has everything; None
        for a line without either.

        Args:
            ahead: how far the database's clock is ahead of the writer's.

        Raises ValueError, KeyError or TypeError for a line of another form.
        """
        tag, *values = json.loads(line)
        match LineTag(tag):
            case LineTag.ROLLOUT:
                number, rollout = values
                self.rollouts[number] = rollout
                return None
            case LineTag.TIME:
                return _read_time(values[0], ahead)
            case LineTag.EXPOSURE:
                return self._read_exposure(values, ahead)
            case LineTag.EVENT:
                return self._read_event(values, ahead)

    def _read_exposure(self, values: Sequence[Any], ahead: timedelta) -> Exposure:
        number, ticket, period, caller, sample, canary, weight_bps, at, traits, client = values
        return Exposure(
            self.rollouts[number],
            0,
            self.worker,
            ticket,
            period,
            caller,
            sample,
            bool(canary),
            weight_bps,
            _read_time(at, ahead),
            traits,
            client,
        )

    def _read_event(self, values: Sequence[Any], ahead: timedelta) -> ExposureEvent:
        number, ticket, kind, at, began_at, *rest = values
        given = zip(_VALUES, rest, strict=False)
        known: dict[str, Any] = {name: value for name, value in given if value is not None}
        for name, kind_of in _ENUMS.items():
            if name in known:
                known[name] = kind_of(known[name])
        return ExposureEvent(
            self.rollouts[number],
            0,
            self.worker,
            ticket,
            EventKind(kind),
            _read_time(at, ahead),
            _read_time(began_at, ahead),
            **known,
        )


def _read_time(at_us: int, ahead: timedelta) -> datetime:
    return _EPOCH + at_us * _MICROSECOND + ahead


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ENUMS: Final[Mapping[str, type[Enum]]] = {
    "outcome": OutcomeKind,
    "reason": OutcomeReason,
    "verdict": JudgeOutcome,
}
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_NAMES: Final = [field.name for field in fields(ExposureEvent)]
# The fields after `began_at`.
_VALUES: Final = _NAMES[_NAMES.index("began_at") + 1 :]


def _before(name: str) -> Sequence[None]:
    return (None,) * _VALUES.index(name)
