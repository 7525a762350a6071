"""Pairs two runs. An item is identified by its question's content: repeats of a question are
epochs, and a pair is two answers to one question. The command line passes the pairs to
`harness.gate.offline`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.evals.run_statement import (
    Acceptance,
    CallSettings,
    Direction,
    MetricStatement,
    check_completion,
    resolve_direction,
    setting_differences,
)
from harness.evals.scored_run import (
    AnswerMeans,
    ExportedPairs,
    GapCount,
    PairRow,
    ScoredRun,
    ScoredSample,
    mean_known,
)
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean

_SHOWN: Final = 8
_UNIT: Final = (0.0, 1.0)  # the range of scores
_Groups = Mapping[str, Sequence[ScoredSample]]


def choose_run(
    runs: Sequence[ScoredRun],
    name: str,
    option: str,
) -> ScoredRun:
    """Picks the named run. name: may be empty for a single run. Raises InputError."""
    name = canonical(name)
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
    name = canonical(name)
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
    acceptance: Acceptance | None = None,
) -> ExportedPairs:
    """Pairs two runs by question, or by id; an item that a run lacks counts without a score.

    Scores that are better when lower are turned round, so that a positive difference is always
    good for the candidate.

    Raises InputError for runs of different tasks, scorers or data, for scores beyond 0 to 1,
    and for a run without a readable score. It also refuses partial runs, runs that were asked
    differently, and a metric of unknown direction, unless `acceptance` states a reason.
    """
    accepted = acceptance or Acceptance()
    runs = incumbent, candidate
    _check_terms(incumbent, candidate, metric)
    groups = _grouped(incumbent, candidate, by_id=bool(accepted.asked_differently))
    remarks = _check_runs(runs, groups, accepted)
    statements = [run.statement.metrics.get(metric) for run in runs]
    direction = resolve_direction(metric, statements, accepted.direction)
    span = direction.span or _UNIT
    for run in runs:
        _check_scores(run, metric, span)
    if span != _UNIT:
        remarks.append(f"scores from {span[0]:g} to {span[1]:g} count from 0 to 1")
    pairs = _paired(groups, metric, _planned(runs, accepted)[1])
    pairs = _scaled(pairs, span)
    if direction.direction is Direction.LOWER:
        pairs = turned_round(pairs)
    pairs += _not_run(pairs, *_planned(runs, accepted))
    gaps = [
        _gaps(run, metric, sum(row.count(None) for row in side))
        for run, side in zip(runs, _sides(pairs), strict=True)
    ]
    remarks += _grading_notes(metric, runs, statements)
    return ExportedPairs(
        metric,
        incumbent.model or "incumbent",
        candidate.model or "candidate",
        tuple(pairs),
        gaps[0],
        gaps[1],
        _means(incumbent),
        _means(candidate),
        (*remarks, *_notes(incumbent, candidate, *groups)),
        direction.direction or Direction.HIGHER,
        direction.source,
        (_digest(incumbent), _digest(candidate)),
        accepted.reasons,
        span,
    )


def _check_runs(
    runs: tuple[ScoredRun, ScoredRun],
    groups: tuple[_Groups, _Groups],
    accepted: Acceptance,
) -> list[str]:
    """Returns remarks on the runs. Raises InputError for partial runs, for runs that were asked
    differently, and for runs of different items, unless accepted.
    """
    sides = "the incumbent's run", "the candidate's run"
    stated = {side: run.statement for side, run in zip(sides, runs, strict=True)}
    remarks = check_completion(stated, accepted.partial)
    remarks += _check_settings(runs, groups, accepted.asked_differently)
    ours, theirs = groups
    _check_items(ours, theirs, by_question=not accepted.asked_differently)
    return remarks


def _planned(runs: tuple[ScoredRun, ScoredRun], accepted: Acceptance) -> tuple[int, int]:
    """Returns the numbers of planned items and epochs, if the user accepts a partial run."""
    plans = [run.statement.completion for run in runs if accepted.partial]
    known = [plan for plan in plans if plan is not None]
    items = max((plan.items or 0 for plan in known), default=0)
    return items, max((plan.epochs or 1 for plan in known), default=1)


def _paired(groups: tuple[_Groups, _Groups], metric: str, planned: int) -> list[PairRow]:
    """Pairs the items' epochs. planned: the lowest number of epochs; a missing one is None."""
    ours, theirs = groups
    pairs = []
    both = {key: ours.get(key) or theirs[key] for key in (*ours, *theirs)}
    for key, name in _names(both).items():
        own = [sample.score(metric) for sample in ours.get(key, ())]
        other = [sample.score(metric) for sample in theirs.get(key, ())]
        epochs = max(len(own), len(other), planned)
        question = both[key][0].question
        scores = _filled(own, epochs), _filled(other, epochs)
        pairs.append(PairRow(name, *scores, question=question))
    return pairs


def _sides(pairs: Sequence[PairRow]) -> tuple[list[tuple[float | None, ...]], ...]:
    return [pair.incumbent for pair in pairs], [pair.candidate for pair in pairs]


def _scaled(pairs: list[PairRow], span: tuple[float, float]) -> list[PairRow]:
    """Returns scores of the range `span` as scores from 0 to 1."""
    low, high = span
    if span == _UNIT:
        return pairs

    def scaled(scores: Sequence[float | None]) -> tuple[float | None, ...]:
        return tuple(None if one is None else (one - low) / (high - low) for one in scores)

    return [
        replace(pair, incumbent=scaled(pair.incumbent), candidate=scaled(pair.candidate))
        for pair in pairs
    ]


def turned_round(pairs: Iterable[PairRow]) -> list[PairRow]:
    """Returns pairs whose scores from 0 to 1 are better when higher, from those of the other
    direction.
    """

    def turned(scores: Sequence[float | None]) -> tuple[float | None, ...]:
        return tuple(None if score is None else 1.0 - score for score in scores)

    return [
        replace(pair, incumbent=turned(pair.incumbent), candidate=turned(pair.candidate))
        for pair in pairs
    ]


def _not_run(pairs: Sequence[PairRow], planned: int, epochs: int) -> list[PairRow]:
    """Returns a row without scores for each planned item that neither run has."""
    absent = (None,) * epochs
    return [
        PairRow(f"item {number} of {planned}, not run", absent, absent)
        for number in range(len(pairs) + 1, planned + 1)
    ]


def _grouped(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    *,
    by_id: bool,
) -> tuple[_Groups, _Groups]:
    """Groups samples by question, or by id if a question is missing or all texts are equal.

    by_id: also by id if the runs share no question, because their texts include the shots.
    """
    own = {sample.question for sample in incumbent.samples}
    other = {sample.question for sample in candidate.samples}
    questions = own | other
    by_question = "" not in questions and len(questions) > 1
    by_question = by_question and not (by_id and not own & other)
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
        of_metric = term.removeprefix("scorer ") in (metric, metric.partition(".")[0])
        if ours != theirs and (of_metric or not term.startswith("scorer ")):
            raise InputError(
                f"the runs differ in {term}: {ours[:80]!r} and {theirs[:80]!r}; their scores "
                "cannot be compared"
            )


def _check_items(
    ours: _Groups,
    theirs: _Groups,
    *,
    by_question: bool,
) -> None:
    """Raises InputError if one id has two questions, or if the runs share no item.

    by_question: False compares what the item's answer must be alone, because the question's
    text may contain the shots.
    """
    known: dict[str, set[tuple[str, str]]] = {}
    for samples in ours.values():
        for sample in samples:
            question = sample.question if by_question else ""
            known.setdefault(sample.id, set()).add((question, sample.revision))
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


def _check_settings(
    runs: tuple[ScoredRun, ScoredRun],
    items: tuple[_Groups, _Groups],
    accepted: str,
) -> list[str]:
    """Returns remarks on how the runs were asked.

    Raises InputError if a fixed setting or the items' prompts differ, unless accepted.
    """
    ours, theirs = (run.statement.settings for run in runs)
    differences: list[str] = []
    notes: list[str] = []
    if ours is not None and theirs is not None:
        differences = list(setting_differences(ours.fixed, theirs.fixed))
        notes = list(setting_differences(ours.noted, theirs.noted))
    exact, plain, shared = _prompt_differences(*items)
    if plain:
        differences.append(
            f"prompts of {plain} of {shared} items (shots, description or system)"
        )
    elif exact:
        notes.append(f"the prompts of {exact} of {shared} items, by the chat template alone")
    if differences and not accepted:
        raise InputError(
            f"the runs were asked differently ({'; '.join(differences[:_SHOWN])}): ask both "
            "models in one way, or give --asked-differently WHY"
        )
    accepted_ones = [f"the runs were asked differently: {one}" for one in differences[:_SHOWN]]
    return [*accepted_ones, *(f"the runs differ in {one}" for one in notes[:_SHOWN])]


def _prompt_differences(ours: _Groups, theirs: _Groups) -> tuple[int, int, int]:
    """Counts shared items with other prompts: exactly, and without a chat template's marks;
    and the shared items with known prompts.
    """
    exact = plain = shared = 0
    for key in ours.keys() & theirs.keys():
        first = ours[key][0]
        second = theirs[key][0]
        if first.prompt and second.prompt:
            shared += 1
            exact += first.prompt != second.prompt
            plain += first.plain_prompt != second.plain_prompt
    return exact, plain, shared


def _digest(run: ScoredRun) -> str:
    """Returns the digest of how a run was asked; empty if the file does not tell."""
    prompts = {sample.prompt for sample in run.samples if sample.prompt}
    settings = run.statement.settings
    if settings is None and not prompts:
        return ""
    return (settings or CallSettings()).digest(prompts)


def _grading_notes(
    metric: str,
    runs: tuple[ScoredRun, ScoredRun],
    statements: Sequence[MetricStatement | None],
) -> Iterator[str]:
    """Yields remarks on graders, thresholds and tool versions."""
    for side, run in zip(("incumbent", "candidate"), runs, strict=True):
        total = len(run.samples)
        if broken := sum(metric in sample.ungraded for sample in run.samples):
            yield f"{side}: {broken} of {total} answers not scored: the grader failed"
        if doubtful := sum(sample.doubtful for sample in run.samples):
            yield (
                f"{side}: {doubtful} of {total} answers lost points for reasons that read like "
                "a grader's error; the file does not mark such errors: look at them"
            )
        if withdrawn := sum(sample.invalidated for sample in run.samples):
            yield f"{side}: {withdrawn} of {total} answers not scored: they were invalidated"
    thresholds = [None if one is None else one.threshold for one in statements]
    if None not in thresholds and thresholds[0] != thresholds[1]:
        scores = {sample.score(metric) for run in runs for sample in run.samples}
        if scores <= {0.0, 1.0, None}:
            raise InputError(
                f"{metric} passes an answer at {thresholds[0]:g} in one run, and at "
                f"{thresholds[1]:g} in the other: give both runs one threshold, or choose the "
                "graded score with --metric"
            )
        yield f"the thresholds of {metric} differ: {thresholds[0]:g} against {thresholds[1]:g}"
    data = [run.statement.data for run in runs]
    named = {(one.name, one.version) for one in data if one is not None}
    if None not in data and len(named) > 1:
        listed = " and ".join(" ".join(filter(None, one)) for one in sorted(named))
        yield f"the data sets have other names or versions: {listed}"
    versions = [run.statement.version for run in runs]
    if None not in versions and versions[0] != versions[1]:
        yield f"the versions of {runs[0].statement.tool} differ: {versions[0]}, {versions[1]}"


def _check_scores(run: ScoredRun, metric: str, span: tuple[float, float]) -> None:
    """Raises InputError for scores outside `span`, for unreadable and for missing scores."""
    low, high = span
    for sample in run.samples:
        score = sample.score(metric)
        if score is not None and not low <= score <= high:
            raise InputError(
                f"{metric} of item {sample.id[:40]!r} is {score:g}: scores are from {low:g} to "
                f"{high:g}. For another range, give a CSV with columns min_score and max_score"
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
    is_told = any(run.statement.settings is not None for run in (incumbent, candidate))
    for side, run, own, other in (
        ("incumbent", incumbent, ours, theirs),
        ("candidate", candidate, theirs, ours),
    ):
        if run.statement.settings is None and is_told:
            yield f"{side}: the file does not tell how the model was asked, as the other does"
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
    rest = [sample for sample in run.samples if not sample.failed]
    invalidated = sum(sample.invalidated for sample in rest)
    broken = sum(metric in s.ungraded for s in rest if not s.invalidated)
    plain = sum(s.score(metric) is None for s in rest) - invalidated - broken
    missing = unscored - failed - plain - broken - invalidated
    return GapCount(len(run.samples), failed, plain, missing, broken, invalidated)


def _means(run: ScoredRun) -> AnswerMeans:
    """Leaves out cost and time of failed and cached answers."""
    paid = [sample for sample in run.samples if not (sample.failed or sample.cached)]
    return AnswerMeans(
        mean_known(sample.usd for sample in paid),
        mean_known(sample.latency_ms for sample in paid),
    )
