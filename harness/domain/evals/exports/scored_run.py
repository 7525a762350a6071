"""Scores of one model as another tool exported them. Samples that failed or have no score are
part of them: they count. No verdict is made of them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.domain.errors import InputError
from harness.domain.suggestions import did_you_mean


@dataclass(frozen=True, slots=True)
class ScoredSample:
    item: str
    scores: Mapping[str, float | None]  # by metric; None where it was not scored
    failed: bool = False  # the model or the tool gave an error instead of an answer

    def score(self, metric: str) -> float | None:
        return None if self.failed else self.scores.get(metric)


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """Holds what one model got, in the order of the file. An item that is there several times
    was asked several times.
    """

    model: str  # or whatever else the file calls it by
    samples: Sequence[ScoredSample]
    metrics: tuple[str, ...] = field(default=())

    @classmethod
    def from_samples(cls, model: str, samples: Sequence[ScoredSample]) -> "ScoredRun":
        metrics = dict.fromkeys(metric for sample in samples for metric in sample.scores)
        return cls(model, tuple(samples), tuple(metrics))


def parse_json(text: str) -> object:
    """Parses a JSON document. Raises InputError with the line of a fault."""
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError("is nested too deep") from None
    except ValueError:
        raise InputError("has a number of more digits than can be read") from None
    return value


def parse_json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (line, object) of JSON lines. Raises InputError for a line that is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"line {number}: not a JSON object") from None
        if not isinstance(value, dict):
            raise InputError(f"line {number}: not a JSON object")
        yield number, value


def parse_json_rows(text: str, *names: str) -> list[Mapping[str, object]]:
    """Parses rows that stand in a list, in a list below one of `names`, or one in a line.

    Raises InputError for anything else.
    """
    head = text.lstrip()[:1]
    value: object = None
    if head in {"[", "{"}:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, dict):
        value = next((value[name] for name in names if name in value), [value])
    if value is None:
        return [row for _, row in parse_json_lines(text)]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError("has no list of rows")
    return value


def as_mapping(value: object) -> Mapping[str, object]:
    """A mapping, or an empty one for what is none."""
    return value if isinstance(value, Mapping) else {}


def numeric_score(value: object) -> float | None:
    """A number, or true and false as 1 and 0; None for what is no score."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and value == value and abs(value) < 1e300:  # noqa: PLR0124
        return float(value)
    return None


def numeric_scores(values: Mapping[str, object]) -> dict[str, float | None]:
    """The numbers among named values; what is null was to be scored and was not."""
    return {
        str(name): numeric_score(value)
        for name, value in values.items()
        if value is None or numeric_score(value) is not None
    }


_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PairRow:
    """Holds an item's scores by both models, by epoch; None for a missing one."""

    item: str
    incumbent: tuple[float | None, ...]
    candidate: tuple[float | None, ...]
    groups: tuple[str, ...] = ()  # of a CSV file: its values in the columns of groups


@dataclass(frozen=True, slots=True)
class GapCount:
    samples: int
    failed: int  # gave an error instead of an answer
    unscored: int  # answered, without a score
    missing: int  # items that only the other run has

    @property
    def total(self) -> int:
        return self.failed + self.unscored + self.missing


@dataclass(frozen=True, slots=True)
class ExportedPairs:
    """Holds the pairs of two exported runs. It is no verdict, and no proof of anything."""

    metric: str
    incumbent: str
    candidate: str
    pairs: tuple[PairRow, ...]
    incumbent_gaps: GapCount
    candidate_gaps: GapCount


def choose_run(runs: Sequence[ScoredRun], name: str, option: str) -> ScoredRun:
    """Picks the named run. name: empty where there is one. Raises InputError."""
    names = [run.model for run in runs]
    if not name and len(runs) == 1:
        return runs[0]
    found = [run for run in runs if run.model == name]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(repr, names[:_SHOWN]))
    if not name:
        raise InputError(f"has {len(runs)} runs: name one by {option}: {listed}")
    hint = did_you_mean(name, names, otherwise=f"; it has {listed}")
    raise InputError(f"has no run {name!r}{hint}")


def choose_metric(incumbent: ScoredRun, candidate: ScoredRun, name: str, usual: str) -> str:
    """Picks the metric: the named one, else the only one or the usual one of both runs. Raises
    InputError.
    """
    shared = [metric for metric in incumbent.metrics if metric in candidate.metrics]
    if name:
        if name not in shared:
            hint = did_you_mean(name, shared, otherwise=f"; they have {', '.join(shared)}")
            raise InputError(f"the runs have no metric {name!r} in common{hint}")
        return name
    if usual in shared or len(shared) == 1:
        return usual if usual in shared else shared[0]
    if not shared:
        raise InputError("the runs have no metric in common")
    raise InputError(f"name one of the metrics by --metric: {', '.join(shared[:_SHOWN])}")


def pair_runs(incumbent: ScoredRun, candidate: ScoredRun, metric: str) -> ExportedPairs:
    """Pairs two runs by item; what one of them lacks has no score, and is counted.

    Raises InputError for runs without a common item, and for scores beyond 0 to 1.
    """
    ours, theirs = _scores(incumbent, metric), _scores(candidate, metric)
    if not ours.keys() & theirs.keys():
        raise InputError("the runs have no item in common: they are of different data")
    pairs = []
    for item in dict.fromkeys((*ours, *theirs)):
        own, other = ours.get(item, []), theirs.get(item, [])
        epochs = max(len(own), len(other))
        pairs.append(PairRow(item, _filled(own, epochs), _filled(other, epochs)))
    return ExportedPairs(
        metric,
        incumbent.model or "incumbent",
        candidate.model or "candidate",
        tuple(pairs),
        _gaps(incumbent, metric, sum(pair.incumbent.count(None) for pair in pairs)),
        _gaps(candidate, metric, sum(pair.candidate.count(None) for pair in pairs)),
    )


def _scores(run: ScoredRun, metric: str) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for sample in run.samples:
        score = sample.score(metric)
        if score is not None and not 0.0 <= score <= 1.0:
            raise InputError(
                f"{metric} of item {sample.item[:40]!r} is {score:g}: scores are from 0 to 1"
            )
        found.setdefault(sample.item, []).append(score)
    return found


def _filled(scores: Sequence[float | None], epochs: int) -> tuple[float | None, ...]:
    return (*scores, *[None] * (epochs - len(scores)))


def _gaps(run: ScoredRun, metric: str, unscored: int) -> GapCount:
    """unscored: how many pairs have no score of this run, whatever the reason."""
    failed = sum(sample.failed for sample in run.samples)
    plain = sum(not s.failed and s.score(metric) is None for s in run.samples)
    return GapCount(len(run.samples), failed, plain, unscored - failed - plain)
