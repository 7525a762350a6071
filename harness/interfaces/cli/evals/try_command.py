"""`swapproof try` gives a first answer about a candidate, without an installation."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from harness.evals.file_gate.terms import FileTerms
from harness.evals.run_statement import Acceptance, Direction
from harness.evals.scored_run import as_mapping
from harness.frame.errors import InputError
from harness.frame.formatting import (
    escape_controls,
    format_milliseconds,
    format_number,
    format_price_pair,
    format_quantity,
)
from harness.gate.suite_plan import Claim
from harness.interfaces.cli.evals.file_decision import (
    GATE_EXITS,
    LOOK_HELP,
    N_MAX_HELP,
    build_acceptance,
)
from harness.interfaces.cli.evals.next_command import Trial, find_next_step, name_command
from harness.interfaces.cli.frame.command import (
    ANSWER_LIMIT,
    EXISTING_FILE,
    FILE,
    FiniteRange,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.session import Session

if TYPE_CHECKING:
    from harness.evals.file_gate.pair_judgement import Sight
    from harness.evals.scored_run import ExportedPairs


@command(name="try", example="swapproof try incumbent.json candidate.json")
def try_(
    session: Session,
    files: tuple[str, ...] = arg("RESULTS…", type=click.Path()),
    *,
    suite: Path | None = opt(
        "Ask both models these questions: JSON lines or CSV.",
        type=EXISTING_FILE,
        metavar="FILE",
    ),
    incumbent: str = opt(
        "With --suite: provider/model. Without it: a run in the results.",
        metavar="NAME",
        default="",
    ),
    candidate: str = opt(
        "With --suite: provider/model. Without it: a run in the results.",
        metavar="NAME",
        default="",
    ),
    max_usd: float = opt(
        "With --suite: maximum cost of the answers in US dollars.",
        type=FiniteRange(min=0, min_open=True),
        default=1.0,
    ),
    scorer: str = opt("With --suite: the scorer.", metavar="NAME", default="exact"),
    system: str = opt("With --suite: the system message.", metavar="TEXT", default=""),
    template: str = opt(
        "With --suite: the user message; {input} is the question.",
        metavar="TEXT",
        default="{input}",
    ),
    max_output_tokens: int | Literal["auto"] = opt(
        "With --suite: token limit of an answer; auto measures it.",
        type=ANSWER_LIMIT,
        default="auto",
    ),
    page: Path = opt(
        "With --suite: file of the report page.",
        "--html",
        type=FILE,
        default="swapproof-try.html",
    ),
    metric: str = opt("The score that counts, if there are several.", default=""),
    acceptance: Acceptance = taken_from(build_acceptance),
    claim: str = opt(
        "Claim of the candidate.",
        type=click.Choice(["superior", "non_inferior"]),
        default="superior",
    ),
    margin: float = opt("Allowed loss, from 0 to 1; 0.05 is 5 points.", default=0.05),
    n_max: int | None = opt(f"Without --suite. {N_MAX_HELP}"),
    look: int = opt(f"Without --suite. {LOOK_HELP}", default=1),
) -> int:
    """Give a first answer about a candidate, from results or questions that you have.

    RESULTS: the incumbent's file, then the candidate's, or one file with both runs. Formats:
    promptfoo, Inspect, lm-eval, OpenAI evals, Langfuse, Braintrust, LangSmith, DeepEval, and
    tables, CSV or .xlsx, with a row for each answer, or a column of scores for each model. A
    folder with lm-eval's samples stands for its newest run.
    Swapproof stores and promotes nothing. One analysis uses all rows, in any order. To judge
    results again after they grew, plan the items with --n-max, or count the looks with --look.

    With --suite, Swapproof asks both models, with the keys in the environment, .env or
    ./swapproof.yaml. It keeps the answers in .swapproof-try: after Ctrl-C, or with a higher
    --max-usd, the same command continues.

    Without arguments, it lists the results in this folder with their commands.

    Exit code: 0 passed, 1 not measured, 2 bad input, 3 failed, 4 inconclusive.
    """
    terms = FileTerms(Claim(claim), margin, alpha=0.05, n_max=n_max, look=look)
    if suite is not None:
        if files or not (incumbent and candidate):
            raise InputError("--suite needs --incumbent and --candidate, and no result files")
        if acceptance != Acceptance():
            raise InputError(
                "directions, --asked-differently and --partial are for result files"
            )
        if n_max is not None or look > 1:
            raise InputError("--n-max and --look are for result files, not for --suite")
        from harness.interfaces.cli.evals.gate_run import (  # noqa: PLC0415 - `--help` stays quick
            SuiteTrial,
            try_suite,
        )

        click.echo(
            f"asking {incumbent} and {candidate} the questions of {suite}",
            err=True,
        )
        settings = {
            "scorer": scorer,
            "system": system,
            "template": template,
            "max_output_tokens": max_output_tokens,
        }
        trial = SuiteTrial(
            suite,
            incumbent,
            candidate,
            Claim(claim),
            margin,
            max_usd,
            settings,
            page,
        )
        return try_suite(trial, session.config)
    if not files:
        _list_found_results()
        raise InputError("give the incumbent's and the candidate's results, or --suite FILE")
    names = incumbent, candidate, metric
    return _try_files(files, names, acceptance, terms, as_json=session.json)


def _list_found_results() -> None:
    """Prints the results of eval tools in this folder, each with its command."""
    from harness.evals.file_gate.results_search import search_results  # noqa: PLC0415 - `--help` stays quick

    found = search_results(Path())
    for results in found:
        click.echo(escape_controls(f"{results.tool}: {results.place}"))
        command = shlex.join([*name_command(), *results.words])
        click.echo(escape_controls(f"  {command if results.words else results.hint}"))
    if any(results.words for results in found):
        click.echo(
            "The first of two is the incumbent, the model in use: swap them if that is wrong."
        )
    elif not found:
        click.echo("This folder has no results of promptfoo, Inspect, DeepEval or lm-eval.")


def _try_files(
    files: Sequence[str],
    names: tuple[str, str, str],
    acceptance: Acceptance,
    terms: FileTerms,
    *,
    as_json: bool,
) -> int:
    """Judges result files.

    Args:
        names: incumbent, candidate and metric, as in `ExportChoice`.
    """
    from harness.interfaces.cli.evals import export_decision  # noqa: PLC0415 - `--help` stays quick

    files = export_decision.locate_results(files)
    formats = export_decision.recognise_files(files)
    if not as_json:
        for file, name in formats.items():
            click.echo(f"read {escape_controls(file)}: {export_decision.find_title(name)}")
    # A late import, so that the first lines appear before numpy and scipy load.
    from harness.evals.file_gate.pair_judgement import find_sight  # noqa: PLC0415

    choice = export_decision.ExportChoice(formats[files[0]], *names, acceptance)
    export = export_decision.read_exports(files, choice)
    answer = export_decision.judge_exports(export, choice, terms)
    sight = find_sight(export.pairs, replace(terms, cluster=export.cluster))
    verdict = str(answer["verdict"])
    trial = Trial(files, choice.format, *names, acceptance, terms)
    step = find_next_step(trial, verdict, is_loss=_is_loss(answer))
    if as_json:
        document = {
            **answer,
            "smallest_difference": sight.smallest,
            "items_for_5_points": None if _is_loss(answer) else sight.items_needed,
            "notes": export.notes,
            "next": step.sentence,
            "next_command": step.command,
        }
        click.echo(json.dumps(document, allow_nan=False))
    else:
        for sentence in _write_sentences(export, answer, sight, terms):
            click.echo(escape_controls(sentence))
        click.echo(f"next: {step.sentence}:")
        click.echo(f"  {escape_controls(step.command)}")
    return GATE_EXITS[verdict]


def _is_loss(answer: Mapping[str, object]) -> bool:
    """Tells whether the data show, or point to, a worse candidate."""
    return answer["verdict"] == "failed" or answer["points_to"] == "worse"


def _write_sentences(
    export: "ExportedPairs",
    answer: Mapping[str, object],
    sight: "Sight",
    terms: FileTerms,
) -> Iterator[str]:
    count = len(export.pairs)
    questions = format_quantity(count, "question")
    repeats = {len(row.incumbent) for row in export.pairs}
    epochs = max(repeats)
    if epochs > 1:
        up_to = "" if len(repeats) == 1 else "up to "
        questions += f" × {up_to}{epochs} repeats"
    verb = "is" if count == 1 else "are"
    yield f"{questions} {verb} {format_quantity(count, 'item')}, scored by `{export.metric}`."
    turned = ", so the scores are turned round" if export.direction is Direction.LOWER else ""
    yield f"{export.direction.capitalize()} ({export.direction_source}){turned}."
    for option, reason in export.accepted.items():
        yield f"accepted: {option.replace('_', ' ')}: {reason}"
    if means := _describe_means(export, answer):
        yield f"Means of {export.candidate} against {export.incumbent}: {means}."
    yield _describe_outcome(export, answer, terms)
    if not _is_loss(answer):
        yield _describe_sight(count, sight)
    for side, gaps in (
        ("incumbent", export.incumbent_gaps),
        ("candidate", export.candidate_gaps),
    ):
        if gaps.total:
            yield (
                f"mind: {side}: of {gaps.samples:,} answers {gaps.failed} failed, "
                f"{gaps.unscored + gaps.grader_failed + gaps.invalidated} have no score, and "
                f"{gaps.missing} are missing. A missing score never counts for the candidate."
            )
    for note in export.notes:
        yield f"mind: {note}"


def _describe_means(export: "ExportedPairs", answer: Mapping[str, object]) -> str:
    """Lists both runs' means, so that people can compare them with the means in their tool.

    The means of the scores cover the same items as the verdict's difference.
    """
    incumbent_mean = export.incumbent_mean
    candidate_mean = export.candidate_mean
    parts = []
    means = [as_mapping(answer[f"{side}_mean"]) for side in ("candidate", "incumbent")]
    scores = [score for mean in means if isinstance(score := mean["score"], float)]
    if len(scores) == len(means):
        parts.append(f"score {' against '.join(map(format_number, scores))}")
    if incumbent_mean.usd is not None and candidate_mean.usd is not None:
        parts.append(f"cost {format_price_pair(candidate_mean.usd, incumbent_mean.usd)}")
    if incumbent_mean.latency_ms is not None and candidate_mean.latency_ms is not None:
        times = (
            format_milliseconds(run.latency_ms or 0.0)
            for run in (candidate_mean, incumbent_mean)
        )
        parts.append(f"time {' against '.join(times)}")
    return "; ".join(parts)


def _describe_outcome(
    export: "ExportedPairs",
    answer: Mapping[str, object],
    terms: FileTerms,
) -> str:
    verdict = answer["verdict"]
    low = answer["ci_low"]
    high = answer["ci_high"]
    if verdict == "not_measured" or not isinstance(low, float) or not isinstance(high, float):
        return str(answer["reason"])
    against = f" than {export.incumbent}" if export.incumbent != "incumbent" else ""
    margin = f"at most {_format_points(terms.margin)} points worse"
    expected = "better" if terms.claim == "superior" else margin
    worse = "worse"
    if terms.claim != "superior":
        worse = f"more than {_format_points(terms.margin)} points worse"
    if points_to := answer["points_to"]:
        likely = expected if points_to != "worse" else worse
        extent = (
            _describe_extent(low, high)
            if likely in ("better", "worse")
            else _describe_interval(low, high)
        )
        remedy = _describe_more_items(answer)
        return f"{export.candidate} is probably {likely}{against} ({extent}){remedy}."
    conclusion = {
        "passed": f"that shows that it is {expected}",
        "failed": f"that shows that it is {worse}",
    }.get(str(verdict), "not enough to decide")
    return f"{export.candidate} is {_describe_interval(low, high)}{against}: {conclusion}."


def _describe_more_items(answer: Mapping[str, object]) -> str:
    """Describes how many further items would prove the probable result."""
    item_count = answer["more_items"]
    if not isinstance(item_count, int):
        return ""
    return f"; about {format_quantity(item_count, 'more item')} would show it"


def _describe_interval(low: float, high: float) -> str:
    """Describes an interval: `between 31 points worse and 12 better`.

    A few items can give an interval beyond 100 points, which no two scores can differ.
    """
    low = max(low, -1.0)
    high = min(high, 1.0)
    if low < 0.0 < high:
        return f"between {_format_points(low)} points worse and {_format_points(high)} better"
    word = "better" if high > 0.0 else "worse"
    near, far = sorted((abs(low), abs(high)))
    return f"between {_format_points(near)} and {_format_points(far)} points {word}"


def _describe_extent(low: float, high: float) -> str:
    """Writes an interval on one side of 0: `6.5 to 31 points`."""
    near, far = sorted((abs(low), abs(high)))
    return f"{_format_points(near)} to {_format_points(far)} points"


def _format_points(share: float) -> str:
    return format_number(abs(share) * 100, 2)


def _describe_sight(count: int, sight: "Sight") -> str:
    with_these = "with this one" if count == 1 else f"with these {count:,}"
    needed = int(float(f"{sight.items_needed:.2g}"))  # an estimate; two digits are enough
    if sight.items_needed <= count:
        return f"A difference of 5 points can be seen {with_these}."
    if sight.smallest > 1.0:
        seen = f"{with_these}, no difference can be seen"
    else:
        seen = f"{with_these}, only {_format_points(sight.smallest)} points can be seen"
    return f"For a difference of 5 points you need about {needed:,} questions; {seen}."
