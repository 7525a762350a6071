"""Scores of one model from another tool's export, and the pairs of two such runs. Failed and
unscored samples count. An item is identified by its question's content: repeats of a question
are epochs, and a pair is two answers to one question. These pairs give no verdict.

Nothing here knows a file format: `harness.evals.export_formats` and
`harness.evals.table_formats` do. The command line passes the pairs to `harness.gate.offline`.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.frame.text_files import text_lines


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One answer. Samples with equal questions are repeats of one item, whatever their ids."""

    id: str  # the tool's id of the item
    scores: Mapping[str, float | None]  # by metric; None if not scored
    failed: bool = False  # the model or the tool gave an error instead of an answer
    question: str = ""  # key of question and expected answer; empty if the file has none
    revision: str = ""  # the tool's own hash of the item
    unread: Mapping[str, str] = field(
        default_factory=dict
    )  # metric → value that is not a score
    cached: bool = False  # from a cache, without a call of the model
    usd: float | None = None  # cost and time of the answer, if the tool measured them
    latency_ms: float | None = None

    def score(self, metric: str) -> float | None:
        """Returns the sample's score of a metric.

        A failed sample has no score, even if the file has a number.
        """
        return None if self.failed else self.scores.get(metric)


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """The results of one model, in the file's order; an item may have several samples."""

    model: str  # the model's name, or another name of the run in the file
    samples: Sequence[ScoredSample]
    metrics: tuple[str, ...] = field(default=())
    # Settings that must be equal in both runs, such as `task version` → `2`; a scorer's
    # settings by its name.
    terms: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""  # the template, if the file contains it

    @classmethod
    def from_samples(
        cls,
        model: str,
        samples: Sequence[ScoredSample],
        terms: Mapping[str, str] | None = None,
        prompt: str = "",
    ) -> "ScoredRun":
        """Builds a run with the metrics of all its samples, in the order of their first use."""
        metrics = dict.fromkeys(metric for sample in samples for metric in sample.scores)
        return cls(model, tuple(samples), tuple(metrics), terms or {}, prompt)


def parse_json(text: str) -> object:
    """Parses JSON. Raises InputError, with the line of a syntax error."""
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError("is nested too deep") from None
    except ValueError:
        raise InputError("contains a number with too many digits") from None
    return value


def parse_json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (line, object) of JSON lines. Raises InputError for any other line."""
    for number, line in text_lines(text):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"line {number}: not a JSON object") from None
        if not isinstance(value, dict):
            raise InputError(f"line {number}: not a JSON object")
        yield number, value


def parse_json_rows(text: str, *names: str) -> list[Mapping[str, object]]:
    """Parses rows in a list, in a list under one of `names`, or one row in each line.

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
    """Returns a mapping as it is, and an empty one for any other value."""
    return value if isinstance(value, Mapping) else {}


def numeric_score(value: object) -> float | None:
    """Returns a number, or true and false as 1 and 0; None for any other value."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and value == value and abs(value) < 1e300:  # noqa: PLR0124
        return float(value)
    return None


def numeric_scores(values: Mapping[str, object]) -> dict[str, float | None]:
    """Returns the numbers among named values; null marks a missing score."""
    return {
        str(name): numeric_score(value)
        for name, value in values.items()
        if value is None or numeric_score(value) is not None
    }


def read_scores(
    values: Mapping[str, object],
    read: Callable[[object], float | None] = numeric_score,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Returns the scores by name, and the values that cannot be read as scores.

    read: turns a value into a score, None if it cannot.

    Null, an empty text and NaN are missing scores, so they are not reported as unreadable.
    """
    scores = {str(name): read(value) for name, value in values.items()}
    unread = {
        str(name): str(value)
        for name, value in values.items()
        if value not in (None, "") and scores[str(name)] is None and value == value  # noqa: PLR0124
    }
    return scores, unread


# Columns that distinguish rows with the same question.
_ROW_NAMES: Final = frozenset({"id", "_id", "idx", "index", "doc_id", "uuid", "row", "row_id"})


def question_key(*parts: object) -> str:
    """Builds a key of question and expected answer, without a row's id; empty for none."""
    plain = [_content(part) for part in parts]
    if not any(part not in (None, "", {}, []) for part in plain):
        return ""
    return json.dumps(plain, sort_keys=True)


def _content(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name.lower() not in _ROW_NAMES}


_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PairRow:
    """Holds an item's scores by both models, by epoch; None for a missing score."""

    item: str
    incumbent: tuple[float | None, ...]
    candidate: tuple[float | None, ...]
    groups: tuple[str, ...] = ()  # for a CSV file: values of its group columns


@dataclass(frozen=True, slots=True)
class GapCount:
    """Counts the scores that one run lacks, by cause.

    `samples` is the number of all its samples, the other fields count parts of them, except
    `missing`.
    """

    samples: int
    failed: int  # gave an error instead of an answer
    unscored: int  # answered, without a score
    missing: int  # items that only the other run has

    @property
    def total(self) -> int:
        return self.failed + self.unscored + self.missing


@dataclass(frozen=True, slots=True)
class AnswerMeans:
    """Holds a run's means; None without any value."""

    score: float | None  # mean of the items' means over their scored epochs
    usd: float | None = None
    latency_ms: float | None = None


def mean_known(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class ExportedPairs:
    """Holds the pairs of two exported runs, which are neither a verdict nor proof."""

    metric: str
    incumbent: str
    candidate: str
    pairs: tuple[PairRow, ...]
    incumbent_gaps: GapCount
    candidate_gaps: GapCount
    incumbent_mean: AnswerMeans
    candidate_mean: AnswerMeans
    notes: tuple[str, ...] = ()  # remarks for people about these pairs


def choose_run(
    runs: Sequence[ScoredRun],
    name: str,
    option: str,
) -> ScoredRun:
    """Picks the named run. name: may be empty for a single run. Raises InputError."""
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


def choose_metric(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    name: str,
    usual: str,
) -> str:
    """Picks the named metric, otherwise the only or the usual shared metric. Raises
    InputError."""
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


def pair_runs(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    metric: str,
) -> ExportedPairs:
    """Pairs two runs by question, or by id; an item that a run lacks counts without a score.

    Raises InputError for runs of different tasks, scorers or data, for scores beyond 0 to 1,
    and for a run without a readable score.
    """
    _check_terms(incumbent, candidate, metric)
    ours, theirs = _grouped(incumbent, candidate)
    _check_items(ours, theirs)
    for run in (incumbent, candidate):
        _check_scores(run, metric)
    pairs = []
    groups = {key: ours.get(key) or theirs[key] for key in (*ours, *theirs)}
    for key, name in _names(groups).items():
        own = [sample.score(metric) for sample in ours.get(key, ())]
        other = [sample.score(metric) for sample in theirs.get(key, ())]
        epochs = max(len(own), len(other))
        pairs.append(PairRow(name, _filled(own, epochs), _filled(other, epochs)))
    return ExportedPairs(
        metric,
        incumbent.model or "incumbent",
        candidate.model or "candidate",
        tuple(pairs),
        _gaps(
            incumbent,
            metric,
            sum(pair.incumbent.count(None) for pair in pairs),
        ),
        _gaps(
            candidate,
            metric,
            sum(pair.candidate.count(None) for pair in pairs),
        ),
        _means(incumbent, [pair.incumbent for pair in pairs]),
        _means(candidate, [pair.candidate for pair in pairs]),
        tuple(_notes(incumbent, candidate, ours, theirs)),
    )


_Groups = Mapping[str, Sequence[ScoredSample]]


def _grouped(incumbent: ScoredRun, candidate: ScoredRun) -> tuple[_Groups, _Groups]:
    """Groups samples by question, or by id if a question is missing or all texts are equal."""
    questions = {sample.question for run in (incumbent, candidate) for sample in run.samples}
    by_question = "" not in questions and len(questions) > 1
    found: list[dict[str, list[ScoredSample]]] = []
    for run in (incumbent, candidate):
        groups: dict[str, list[ScoredSample]] = {}
        for sample in run.samples:
            key = sample.question if by_question else sample.id
            groups.setdefault(key, []).append(sample)
        found.append(groups)
    return found[0], found[1]


def _names(groups: _Groups) -> Mapping[str, str]:
    """Gives each item a unique name: its first id, numbered if necessary."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key, samples in groups.items():
        id_ = samples[0].id
        names[key] = id_ if id_ not in taken else f"{id_} ({len(names) + 1})"
        taken.add(names[key])
    return names


def _check_terms(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    metric: str,
) -> None:
    """Raises InputError if settings differ; a scorer's matter for its own metric only."""
    for term, ours in incumbent.terms.items():
        theirs = candidate.terms.get(term, ours)
        of_metric = metric.split(".", maxsplit=1)[0] == term.removeprefix("scorer ")
        if ours != theirs and (of_metric or not term.startswith("scorer ")):
            raise InputError(
                f"the runs differ in {term}: {ours[:80]!r} and {theirs[:80]!r}; their scores "
                "cannot be compared"
            )


def _check_items(ours: _Groups, theirs: _Groups) -> None:
    """Raises InputError if one id has two questions, or if the runs share no item."""
    known: dict[str, set[tuple[str, str]]] = {}
    for samples in ours.values():
        for sample in samples:
            known.setdefault(sample.id, set()).add((sample.question, sample.revision))
    for samples in theirs.values():
        for sample in samples:
            versions = known.get(sample.id)
            if versions and not any(_agree(sample, version) for version in versions):
                raise InputError(
                    f"item {sample.id[:60]!r} is not the same in both runs: its "
                    "question, its expected answer or its assertions differ"
                )
    if not ours.keys() & theirs.keys():
        raise InputError("the runs have no item in common: they use different data")


def _agree(sample: ScoredSample, version: tuple[str, str]) -> bool:
    """Tells whether question and revision are equal where both runs know them."""
    pairs = zip((sample.question, sample.revision), version, strict=True)
    return all(ours == theirs or not (ours and theirs) for ours, theirs in pairs)


def _check_scores(run: ScoredRun, metric: str) -> None:
    """Raises InputError for scores outside [0, 1], for unreadable and for missing scores."""
    for sample in run.samples:
        score = sample.score(metric)
        if score is not None and not 0.0 <= score <= 1.0:
            raise InputError(
                f"{metric} of item {sample.id[:40]!r} is {score:g}: scores are from 0 to 1"
            )
    values = Counter(s.unread[metric] for s in run.samples if metric in s.unread)
    if values:
        listed = "; ".join(
            f"{count} {'sample has' if count == 1 else 'samples have'} the value {value[:40]!r}"
            for value, count in values.most_common(_SHOWN)
        )
        raise InputError(f"{metric} of run {run.model!r} cannot be read as scores: {listed}")
    if all(sample.score(metric) is None for sample in run.samples):
        raise InputError(f"run {run.model!r} has no score of {metric}: its samples failed")


def _notes(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    ours: _Groups,
    theirs: _Groups,
) -> Iterator[str]:
    """Yields remarks on conditions that weaken the comparison, but do not forbid it."""
    if incumbent.prompt != candidate.prompt and incumbent.prompt and candidate.prompt:
        yield "the prompts of the runs differ: the pairs compare prompt and model together"
    if (
        len(ours) > 1
        and len({sample.question or sample.id for sample in incumbent.samples}) == 1
    ):
        yield (
            f"all {len(ours)} ids have the same text, so each id counts as an item; give "
            "repeats of one question the same id"
        )
    for side, run, own, other in (
        ("incumbent", incumbent, ours, theirs),
        ("candidate", candidate, theirs, ours),
    ):
        if cached := sum(sample.cached for sample in run.samples):
            yield f"{side}: {cached} of {len(run.samples)} answers are from a cache"
        unpaired = sorted(
            min(sample.id for sample in samples)
            for key, samples in own.items()
            if key not in other
        )
        if unpaired:
            listed = ", ".join(repr(id_[:40]) for id_ in unpaired[:_SHOWN])
            more = f" and {len(unpaired) - _SHOWN} more" if len(unpaired) > _SHOWN else ""
            yield f"{side}: {len(unpaired)} without a partner: {listed}{more}"


def _filled(scores: Sequence[float | None], epochs: int) -> tuple[float | None, ...]:
    """Adds None for epochs that only the other run has."""
    return (*scores, *[None] * (epochs - len(scores)))


def _gaps(
    run: ScoredRun,
    metric: str,
    unscored: int,
) -> GapCount:
    """unscored: number of pairs without a score of this run, for any reason."""
    failed = sum(sample.failed for sample in run.samples)
    plain = sum(not s.failed and s.score(metric) is None for s in run.samples)
    return GapCount(len(run.samples), failed, plain, unscored - failed - plain)


def _means(run: ScoredRun, items: Sequence[Sequence[float | None]]) -> AnswerMeans:
    """Leaves out cost and time of failed and cached answers."""
    paid = [sample for sample in run.samples if not (sample.failed or sample.cached)]
    return AnswerMeans(
        mean_known(map(mean_known, items)),
        mean_known(sample.usd for sample in paid),
        mean_known(sample.latency_ms for sample in paid),
    )
