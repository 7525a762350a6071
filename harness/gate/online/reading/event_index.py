"""Finds the events of each exposure, and reads an ended request's outcome and values."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from harness.gate.online.exposures import EventKind, Exposure, ExposureEvent
from harness.gate.online.outcome import ExposureOutcome, JudgeOutcome
from harness.gate.online.prompt_cache import CacheUse
from harness.gate.online.reading.scored_exposures import GuardrailSample, SampleValues

_Key = tuple[str, int]  # worker and ticket


class EventIndex:
    """The events that have arrived, by their process's own exposure.

    has_feedback: users give feedback.
    """

    def __init__(self) -> None:
        self.has_feedback = False
        self._ended: dict[_Key, ExposureEvent] = {}
        self._turns: dict[_Key, list[ExposureEvent]] = defaultdict(list)
        self._feedback: dict[_Key, list[ExposureEvent]] = defaultdict(list)
        self._judged: dict[_Key, ExposureEvent] = {}
        self._judge_costs: list[float] = []

    def add(self, events: Iterable[ExposureEvent]) -> None:
        for event in events:
            key = (event.worker, event.ticket)
            if event.kind is EventKind.ENDED:
                if event.outcome is not None:
                    _keep_earliest(self._ended, key, event)
            elif event.kind is EventKind.TURN:
                self._turns[key].append(event)
            elif event.kind is EventKind.FEEDBACK:
                self.has_feedback = True
                self._feedback[key].append(event)
            else:
                if event.verdict is not None and event.ticket:
                    _keep_earliest(self._judged, key, event)
                self._judge_costs.append(event.judge_usd or 0.0)

    def find_end(self, exposure: Exposure, by: datetime) -> ExposureEvent | None:
        """Finds the end of the exposure's own request; None if it has not ended in time."""
        return _before(self._ended.get((exposure.worker, exposure.ticket)), by)

    def find_verdict(self, exposure: Exposure, by: datetime) -> ExposureEvent | None:
        """Finds the judge's verdict; None if there is none in time."""
        return _before(self._judged.get((exposure.worker, exposure.ticket)), by)

    def list_turns(self, exposure: Exposure) -> Sequence[ExposureEvent]:
        """Lists the later requests that the exposure's process served."""
        return self._turns.get((exposure.worker, exposure.ticket), ())

    def list_feedback(self, exposure: Exposure) -> Sequence[ExposureEvent]:
        return self._feedback.get((exposure.worker, exposure.ticket), ())

    def forget(self, exposure: Exposure) -> None:
        """Forgets the events of an exposure that no block reads any more."""
        key = (exposure.worker, exposure.ticket)
        for events in (self._ended, self._turns, self._feedback, self._judged):
            events.pop(key, None)

    def take_judge_usd(self) -> Sequence[float]:
        """Returns what the judge's calls cost since the last time, in US dollars."""
        costs = self._judge_costs
        self._judge_costs = []
        return costs


def _keep_earliest(events: dict[_Key, ExposureEvent], key: _Key, event: ExposureEvent) -> None:
    known = events.get(key)
    if known is None or (event.at, event.number) < (known.at, known.number):
        events[key] = event


def _before(event: ExposureEvent | None, by: datetime) -> ExposureEvent | None:
    return event if event is not None and event.at <= by else None


def read_outcome(event: ExposureEvent | None) -> ExposureOutcome | None:
    """Reads the outcome of an ended request; None without an end, or if it is unknown."""
    if event is None or event.outcome is None:
        return None
    return ExposureOutcome(
        event.outcome,
        event.reason,
        event.failure,
        event.waited_s or 0.0,
        bool(event.sent),
        event.first_output_s,
        event.longest_gap_s or 0.0,
    )


def read_sample(event: ExposureEvent) -> GuardrailSample | None:
    """Reads the values of an ended request; None if it was not measured."""
    if event.faults is None:  # every measured request has them, and may have none of the values
        return None
    return GuardrailSample(
        SampleValues(
            event.latency_s,
            event.time_to_first_token_s,
            event.inter_token_latency_s,
            event.output_tokens,
            event.cost_usd,
            CacheUse(
                event.input_tokens or 0,
                event.cached_tokens or 0,
                event.cache_worth_usd or 0.0,
                event.cache_saved_s or 0.0,
            ),
            event.opening_s or 0.0,
            bool(event.bounded),
        ),
        event.faults,
        event.text_hash or 0,
        event.text_length or 0,
        event.question_hash or 0,
    )


def read_verdict(event: ExposureEvent | None) -> JudgeOutcome:
    """Reads a verdict; an event without one, or no event, is no verdict."""
    if event is None or event.verdict is None:
        return JudgeOutcome.NO_VERDICT
    return event.verdict
