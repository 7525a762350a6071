"""Pairs two runs. The content of the question identifies an item. Repeats of a question are
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
    list_setting_differences,
    resolve_direction,
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

_MAX_SHOWN: Final = 8
_SHARE_RANGE: Final = (0.0, 1.0)  # the range of scores
_Groups = Mapping[str, Sequence[ScoredSample]]


def choose_run(
    runs: Sequence[ScoredRun],
    name: str,
    option: str,
) -> ScoredRun:
    """Picks the named run.

    Args:
        name: may be empty for a single run.

    Raises InputError.
    """
    name = canonical(name)
    names = [run.model for run in runs]
    if not name and len(runs) == 1:
        return runs[0]
    matches = [run for run in runs if run.model == name]
    if len(matches) == 1:
        return matches[0]
    shown_names = ", ".join(map(repr, names[:_MAX_SHOWN]))
    if not name:
        raise InputError(f"has {len(runs)} runs: name one by {option}: {shown_names}")
    hint = did_you_mean(name, names, otherwise=f"; it has {shown_names}")
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
    raise InputError(f"name one of the metrics by --metric: {', '.join(shared[:_MAX_SHOWN])}")


def pair_runs(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    metric: str,
    acceptance: Acceptance | None = None,
) -> ExportedPairs:
    """Pairs two runs by question, or by id; an item that a run lacks counts without a score.

    Inverts scores that are better when lower. So a positive difference is always good for the
    candidate.

    Raises InputError for runs of different tasks, scorers or data, for scores beyond 0 to 1,
    and for a run without a readable score. It also refuses partial runs, runs that were asked
    differently, and a metric of unknown direction, unless `acceptance` states a reason.
    """
    accepted = acceptance or Acceptance()
    runs = incumbent, candidate
    _check_terms(incumbent, candidate, metric)
    groups = _group_samples(incumbent, candidate, by_id=bool(accepted.asked_differently))
    remarks = list(dict.fromkeys(remark for run in runs for remark in run.statement.remarks))
    remarks += _check_runs(runs, groups, accepted)
    statements = [run.statement.metrics.get(metric) for run in runs]
    direction = resolve_direction(metric, statements, accepted.direction)
    span = direction.span or _SHARE_RANGE
    for run in runs:
        _check_scores(run, metric, span)
    if span != _SHARE_RANGE:
        remarks.append(f"scores from {span[0]:g} to {span[1]:g} count from 0 to 1")
    pairs = _pair_items(groups, metric, _find_plan_size(runs, accepted)[1])
    pairs = _scale_scores(pairs, span)
    if direction.direction is Direction.LOWER:
        pairs = turned_round(pairs)
    pairs += _build_missing_rows(pairs, *_find_plan_size(runs, accepted))
    gaps = [
        _count_gaps(run, metric, sum(row.count(None) for row in side))
        for run, side in zip(runs, _split_sides(pairs), strict=True)
    ]
    remarks += _describe_grading(metric, runs, statements)
    return ExportedPairs(
        metric,
        incumbent.model or "incumbent",
        candidate.model or "candidate",
        tuple(pairs),
        gaps[0],
        gaps[1],
        _average_answers(incumbent),
        _average_answers(candidate),
        (*remarks, *_describe_weaknesses(incumbent, candidate, *groups)),
        direction.direction or Direction.HIGHER,
        direction.source,
        (_digest_settings(incumbent), _digest_settings(candidate)),
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
    incumbent_items, candidate_items = groups
    _check_items(incumbent_items, candidate_items, by_question=not accepted.asked_differently)
    return remarks


def _find_plan_size(runs: tuple[ScoredRun, ScoredRun], accepted: Acceptance) -> tuple[int, int]:
    """Returns the numbers of planned items and epochs, if the user accepts a partial run."""
    plans = [run.statement.completion for run in runs if accepted.partial]
    stated_plans = [plan for plan in plans if plan is not None]
    items = max((plan.items or 0 for plan in stated_plans), default=0)
    return items, max((plan.epochs or 1 for plan in stated_plans), default=1)


def _pair_items(groups: tuple[_Groups, _Groups], metric: str, planned: int) -> list[PairRow]:
    """Pairs the items' epochs. A missing epoch has the score None.

    Args:
        planned: the minimum number of epochs.
    """
    incumbent_groups, candidate_groups = groups
    pairs = []
    all_groups = {
        key: incumbent_groups.get(key) or candidate_groups[key]
        for key in (*incumbent_groups, *candidate_groups)
    }
    for key, name in _name_items(all_groups).items():
        incumbent_scores = [sample.score(metric) for sample in incumbent_groups.get(key, ())]
        candidate_scores = [sample.score(metric) for sample in candidate_groups.get(key, ())]
        epochs = max(len(incumbent_scores), len(candidate_scores), planned)
        question = all_groups[key][0].question
        scores = _fill_epochs(incumbent_scores, epochs), _fill_epochs(candidate_scores, epochs)
        pairs.append(PairRow(name, *scores, question=question))
    return pairs


def _split_sides(pairs: Sequence[PairRow]) -> tuple[list[tuple[float | None, ...]], ...]:
    return [pair.incumbent for pair in pairs], [pair.candidate for pair in pairs]


def _scale_scores(pairs: list[PairRow], span: tuple[float, float]) -> list[PairRow]:
    """Converts scores of the range `span` into scores from 0 to 1."""
    low, high = span
    if span == _SHARE_RANGE:
        return pairs

    def scale(scores: Sequence[float | None]) -> tuple[float | None, ...]:
        return tuple(
            None if score is None else (score - low) / (high - low) for score in scores
        )

    return [
        replace(pair, incumbent=scale(pair.incumbent), candidate=scale(pair.candidate))
        for pair in pairs
    ]


def turned_round(pairs: Iterable[PairRow]) -> list[PairRow]:
    """Inverts scores from 0 to 1 that are better when lower, so that higher is better."""

    def invert(scores: Sequence[float | None]) -> tuple[float | None, ...]:
        return tuple(None if score is None else 1.0 - score for score in scores)

    return [
        replace(pair, incumbent=invert(pair.incumbent), candidate=invert(pair.candidate))
        for pair in pairs
    ]


def _build_missing_rows(pairs: Sequence[PairRow], planned: int, epochs: int) -> list[PairRow]:
    """Returns a row without scores for each planned item that neither run has."""
    absent = (None,) * epochs
    return [
        PairRow(f"item {number} of {planned}, not run", absent, absent)
        for number in range(len(pairs) + 1, planned + 1)
    ]


def _group_samples(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    *,
    by_id: bool,
) -> tuple[_Groups, _Groups]:
    """Groups samples by question, or by id if a question is missing or all texts are equal.

    Args:
        by_id: also by id if the runs share no question, because their texts include the shots.
    """
    incumbent_questions = {sample.question for sample in incumbent.samples}
    candidate_questions = {sample.question for sample in candidate.samples}
    questions = incumbent_questions | candidate_questions
    by_question = "" not in questions and len(questions) > 1
    by_question = by_question and not (by_id and not incumbent_questions & candidate_questions)
    sides: list[dict[str, list[ScoredSample]]] = []
    for run in (incumbent, candidate):
        groups: dict[str, list[ScoredSample]] = {}
        for sample in run.samples:
            key = sample.question if by_question else sample.id
            groups.setdefault(key, []).append(sample)
        sides.append(groups)
    return sides[0], sides[1]


def _name_items(groups: _Groups) -> Mapping[str, str]:
    """Gives each item a unique name: its first id, numbered if necessary."""
    names: dict[str, str] = {}
    used_names: set[str] = set()
    for key, samples in groups.items():
        id_ = samples[0].id
        names[key] = id_ if id_ not in used_names else f"{id_} ({len(names) + 1})"
        used_names.add(names[key])
    return names


def _check_terms(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    metric: str,
) -> None:
    """Raises InputError if terms differ. A scorer's terms matter only for its own metric."""
    for term, incumbent_value in incumbent.terms.items():
        candidate_value = candidate.terms.get(term, incumbent_value)
        is_of_metric = term.removeprefix("scorer ") in (metric, metric.partition(".")[0])
        if incumbent_value != candidate_value and (
            is_of_metric or not term.startswith("scorer ")
        ):
            raise InputError(
                f"the runs differ in {term}: {incumbent_value[:80]!r} and "
                f"{candidate_value[:80]!r}; their scores cannot be compared"
            )


def _check_items(
    incumbent_items: _Groups,
    candidate_items: _Groups,
    *,
    by_question: bool,
) -> None:
    """Raises InputError if one id has two questions, or if the runs share no item.

    Args:
        by_question: False compares only the items' revisions, because the question's text may
            contain the shots.
    """
    known_versions: dict[str, set[tuple[str, str]]] = {}
    for samples in incumbent_items.values():
        for sample in samples:
            question = sample.question if by_question else ""
            known_versions.setdefault(sample.id, set()).add((question, sample.revision))
    for samples in candidate_items.values():
        for sample in samples:
            versions = known_versions.get(sample.id)
            if versions and not any(_agree(sample, version) for version in versions):
                raise InputError(
                    f"item {sample.id[:60]!r} is not the same in both runs: its "
                    "question, its expected answer or its assertions differ"
                )
    if not incumbent_items.keys() & candidate_items.keys():
        raise InputError("the runs have no item in common: they use different data")


def _agree(sample: ScoredSample, version: tuple[str, str]) -> bool:
    """Tells whether question and revision are equal where both runs know them."""
    pairs = zip((sample.question, sample.revision), version, strict=True)
    return all(value == other or not (value and other) for value, other in pairs)


def _check_settings(
    runs: tuple[ScoredRun, ScoredRun],
    items: tuple[_Groups, _Groups],
    accepted_reason: str,
) -> list[str]:
    """Returns remarks on how the runs were asked.

    Raises InputError if a fixed setting or the items' prompts differ, unless accepted.
    """
    incumbent_settings, candidate_settings = (run.statement.settings for run in runs)
    differences: list[str] = []
    notes: list[str] = []
    if incumbent_settings is not None and candidate_settings is not None:
        differences = list(
            list_setting_differences(incumbent_settings.fixed, candidate_settings.fixed)
        )
        notes = list(
            list_setting_differences(incumbent_settings.noted, candidate_settings.noted)
        )
    exact_count, plain_count, shared_count = _count_prompt_differences(*items)
    if plain_count:
        differences.append(
            f"prompts of {plain_count} of {shared_count} items (shots, description or system)"
        )
    elif exact_count:
        notes.append(
            f"the prompts of {exact_count} of {shared_count} items, by the chat template alone"
        )
    if differences and not accepted_reason:
        raise InputError(
            f"the runs were asked differently ({'; '.join(differences[:_MAX_SHOWN])}): ask "
            "both models in one way, or give --asked-differently WHY"
        )
    accepted_remarks = [
        f"the runs were asked differently: {difference}"
        for difference in differences[:_MAX_SHOWN]
    ]
    return [*accepted_remarks, *(f"the runs differ in {note}" for note in notes[:_MAX_SHOWN])]


def _count_prompt_differences(
    incumbent_items: _Groups, candidate_items: _Groups
) -> tuple[int, int, int]:
    """Counts the shared items whose prompts differ: exactly, and without a chat template's
    marks. Then counts the shared items whose prompts are known in both runs.
    """
    exact = plain = shared = 0
    for key in incumbent_items.keys() & candidate_items.keys():
        first = incumbent_items[key][0]
        second = candidate_items[key][0]
        if first.prompt and second.prompt:
            shared += 1
            exact += first.prompt != second.prompt
            plain += first.plain_prompt != second.plain_prompt
    return exact, plain, shared


def _digest_settings(run: ScoredRun) -> str:
    """Returns the digest of how a run was asked; empty if the file does not tell."""
    prompts = {sample.prompt for sample in run.samples if sample.prompt}
    settings = run.statement.settings
    if settings is None and not prompts:
        return ""
    return (settings or CallSettings()).digest(prompts)


def _describe_grading(
    metric: str,
    runs: tuple[ScoredRun, ScoredRun],
    statements: Sequence[MetricStatement | None],
) -> Iterator[str]:
    """Yields remarks on graders, thresholds and tool versions."""
    for side, run in zip(("incumbent", "candidate"), runs, strict=True):
        total = len(run.samples)
        if ungraded_count := sum(metric in sample.ungraded for sample in run.samples):
            yield f"{side}: {ungraded_count} of {total} answers not scored: the grader failed"
        if doubtful_count := sum(sample.doubtful for sample in run.samples):
            yield (
                f"{side}: {doubtful_count} of {total} answers lost points for reasons that "
                "read like a grader's error; the file does not mark such errors: look at them"
            )
        if invalidated_count := sum(sample.invalidated for sample in run.samples):
            yield (
                f"{side}: {invalidated_count} of {total} answers not scored: they were "
                "invalidated"
            )
    thresholds = [None if stated is None else stated.threshold for stated in statements]
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
    versions_by_name = {(stated.name, stated.version) for stated in data if stated is not None}
    if None not in data and len(versions_by_name) > 1:
        data_versions = " and ".join(
            " ".join(filter(None, pair)) for pair in sorted(versions_by_name)
        )
        yield f"the data sets have other names or versions: {data_versions}"
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
                f"{metric} of item {sample.id[:40]!r} is {score:g}: scores are from {low:g} "
                f"to {high:g}. For another range, give a table with columns min_score and "
                "max_score"
            )
    values = Counter(sample.unread[metric] for sample in run.samples if metric in sample.unread)
    if values:
        shown_values = "; ".join(
            f"{count} {'sample has' if count == 1 else 'samples have'} the value {value[:40]!r}"
            for value, count in values.most_common(_MAX_SHOWN)
        )
        first = next(sample.id for sample in run.samples if metric in sample.unread)
        raise InputError(
            f"{metric} of run {run.model!r} cannot be read as scores: {shown_values}, first in "
            f"item {first[:40]!r}. Correct the values, or leave missing scores empty"
        )
    if all(sample.score(metric) is None for sample in run.samples):
        raise InputError(f"run {run.model!r} has no score of {metric}: its samples failed")


def _describe_weaknesses(
    incumbent: ScoredRun,
    candidate: ScoredRun,
    incumbent_items: _Groups,
    candidate_items: _Groups,
) -> Iterator[str]:
    """Yields remarks on conditions that weaken the comparison, but do not forbid it."""
    if incumbent.prompt != candidate.prompt and incumbent.prompt and candidate.prompt:
        yield "the prompts of the runs differ: the pairs compare prompt and model together"
    if (
        len(incumbent_items) > 1
        and len({sample.question or sample.id for sample in incumbent.samples}) == 1
    ):
        yield (
            f"all {len(incumbent_items)} ids have the same text, so each id counts as an item; "
            "give repeats of one question the same id"
        )
    has_settings = any(run.statement.settings is not None for run in (incumbent, candidate))
    for side, run, own_items, other_items in (
        ("incumbent", incumbent, incumbent_items, candidate_items),
        ("candidate", candidate, candidate_items, incumbent_items),
    ):
        if run.statement.settings is None and has_settings:
            yield (
                f"{side}: the file does not tell how the model was asked, but the other file "
                "does"
            )
        if cached := sum(sample.cached for sample in run.samples):
            yield f"{side}: {cached} of {len(run.samples)} answers are from a cache"
        unpaired = sorted(
            min(sample.id for sample in samples)
            for key, samples in own_items.items()
            if key not in other_items
        )
        if unpaired:
            shown_ids = ", ".join(repr(id_[:40]) for id_ in unpaired[:_MAX_SHOWN])
            rest = (
                f" and {len(unpaired) - _MAX_SHOWN} more" if len(unpaired) > _MAX_SHOWN else ""
            )
            yield f"{side}: {len(unpaired)} without a partner: {shown_ids}{rest}"


def _fill_epochs(scores: Sequence[float | None], epochs: int) -> tuple[float | None, ...]:
    """Adds None for epochs that only the other run has."""
    return (*scores, *[None] * (epochs - len(scores)))


def _count_gaps(
    run: ScoredRun,
    metric: str,
    unscored: int,
) -> GapCount:
    """Counts the causes of a run's missing scores.

    Args:
        unscored: number of scores of this run that the pairs lack.
    """
    failed = sum(sample.failed for sample in run.samples)
    rest = [sample for sample in run.samples if not sample.failed]
    invalidated = sum(sample.invalidated for sample in rest)
    ungraded = sum(metric in sample.ungraded for sample in rest if not sample.invalidated)
    plain = sum(sample.score(metric) is None for sample in rest) - invalidated - ungraded
    missing = unscored - failed - plain - ungraded - invalidated
    return GapCount(len(run.samples), failed, plain, missing, ungraded, invalidated)


def _average_answers(run: ScoredRun) -> AnswerMeans:
    """Averages cost and time over the answers that are neither failed nor cached."""
    paid = [sample for sample in run.samples if not (sample.failed or sample.cached)]
    return AnswerMeans(
        mean_known(sample.usd for sample in paid),
        mean_known(sample.latency_ms for sample in paid),
    )
