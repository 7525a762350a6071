"""`swapgate try` gives a first answer about a candidate, without an installation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

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
    accept,
)
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


@command(name="try")
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
        default="swapgate-try.html",
    ),
    metric: str = opt("The score that counts, if there are several.", default=""),
    accepted: Acceptance = taken_from(accept),
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
    promptfoo, Inspect, lm-eval, OpenAI evals, Langfuse, Braintrust, LangSmith, DeepEval, CSV.
    Swapgate stores and promotes nothing. One analysis uses all rows, in any order. To judge
    results again after they grew, plan the items with --n-max, or count the looks with --look.

    With --suite, Swapgate asks both models, with the keys in the environment, .env or
    ./swapgate.yaml. It keeps the answers in .swapgate-try: after Ctrl-C, or with a higher
    --max-usd, the same command continues.

    Exit code: 0 passed, 1 not measured, 2 bad input, 3 failed, 4 inconclusive.
    """
    terms = FileTerms(Claim(claim), margin, alpha=0.05, n_max=n_max, look=look)
    if suite is not None:
        if files or not (incumbent and candidate):
            raise InputError("--suite needs --incumbent and --candidate, and no result files")
        if accepted != Acceptance():
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
        raise InputError("give the incumbent's and the candidate's results, or --suite FILE")
    named = incumbent, candidate, metric
    return _try_files(files, named, accepted, terms, as_json=session.json)


def _try_files(
    files: Sequence[str],
    named: tuple[str, str, str],
    accepted: Acceptance,
    terms: FileTerms,
    *,
    as_json: bool,
) -> int:
    """Judges result files. named: incumbent, candidate and metric, as in `ExportChoice`."""
    from harness.interfaces.cli.evals import export_decision  # noqa: PLC0415 - `--help` stays quick

    formats = export_decision.recognise_files(files)
    if not as_json:
        for file, name in formats.items():
            click.echo(f"read {escape_controls(file)}: {export_decision.title(name)}")
    # A late import, so that the first lines appear before numpy and scipy load.
    from harness.evals.file_gate.pair_judgement import find_sight  # noqa: PLC0415

    choice = export_decision.ExportChoice(formats[files[0]], *named, accepted)
    exported = export_decision.read_exports(files, choice)
    answer = export_decision.judge_exports(exported, choice, terms)
    sight = find_sight(exported.pairs, replace(terms, cluster=exported.cluster))
    verdict = str(answer["verdict"])
    next_step = _next_step(answer, terms)
    if as_json:
        document = {
            **answer,
            "smallest_difference": sight.smallest,
            "items_for_5_points": None if _is_loss(answer) else sight.items_needed,
            "notes": exported.notes,
            "next": next_step,
        }
        click.echo(json.dumps(document, allow_nan=False))
    else:
        for sentence in _sentences(exported, answer, sight, terms):
            click.echo(escape_controls(sentence))
        click.echo(f"next: {next_step}")
    return GATE_EXITS[verdict]


_NEXT: Final[Mapping[str, str]] = {
    "passed": (
        "this report promotes nothing. `swapgate init` sets up Swapgate, which measures both "
        "models itself, and gives the candidate 1 % of your callers first"
    ),
    "failed": "keep the incumbent, or try another candidate or prompt on the same questions",
    "inconclusive": (
        "add questions, run both models over all of them in your tool, and give the new files "
        "to `swapgate try` with --look {look}: each further look at results that grew gets "
        "less alpha. With --n-max, planned before the first look, repeats cost nothing"
    ),
    "running": (
        "run both models over more of the planned questions, and repeat the command with the "
        "new files and the same --n-max: repeats cost nothing"
    ),
    "not_measured": (
        "measure the items without a score again, and give the new files to `swapgate try`"
    ),
}


# The step if the data point to a loss, without advice to look for a gain.
_NEXT_OF_LOSS: Final = (
    "keep the incumbent, or try another candidate or prompt. If you add questions, run both "
    "models over all of them, and give the new files to `swapgate try` with --look {look}"
)


def _next_step(answer: Mapping[str, object], terms: FileTerms) -> str:
    verdict = str(answer["verdict"])
    loss = verdict == "inconclusive" and _is_loss(answer)
    step = _NEXT_OF_LOSS if loss else _NEXT[verdict]
    return step.format(look=terms.look + 1)


def _is_loss(answer: Mapping[str, object]) -> bool:
    """Tells whether the candidate is shown to be worse, or is probably worse."""
    return answer["verdict"] == "failed" or answer["points_to"] == "worse"


def _sentences(
    exported: "ExportedPairs",
    answer: Mapping[str, object],
    sight: "Sight",
    terms: FileTerms,
) -> Iterator[str]:
    count = len(exported.pairs)
    questions = format_quantity(count, "question")
    repeats = {len(row.incumbent) for row in exported.pairs}
    epochs = max(repeats)
    if epochs > 1:
        most = "" if len(repeats) == 1 else "up to "
        questions += f" × {most}{epochs} repeats"
    be = "is" if count == 1 else "are"
    yield f"{questions} {be} {format_quantity(count, 'item')}, scored by `{exported.metric}`."
    turned = ", so the scores are turned round" if exported.direction is Direction.LOWER else ""
    yield f"{exported.direction.capitalize()} ({exported.direction_source}){turned}."
    for option, reason in exported.accepted.items():
        yield f"accepted: {option.replace('_', ' ')}: {reason}"
    if means := _means_text(exported, answer):
        yield f"Means of {exported.candidate} against {exported.incumbent}: {means}."
    yield _outcome(exported, answer, terms)
    if not _is_loss(answer):
        yield _sight_text(count, sight)
    for side, gaps in (
        ("incumbent", exported.incumbent_gaps),
        ("candidate", exported.candidate_gaps),
    ):
        if gaps.total:
            yield (
                f"mind: {side}: of {gaps.samples:,} answers {gaps.failed} failed, "
                f"{gaps.unscored + gaps.grader_failed + gaps.invalidated} have no score, and "
                f"{gaps.missing} are missing. A missing score never counts for the candidate."
            )
    for note in exported.notes:
        yield f"mind: {note}"


def _means_text(exported: "ExportedPairs", answer: Mapping[str, object]) -> str:
    """Lists both runs' means, so that people can compare them with the means in their tool.

    The scores' means are of the items that the verdict's difference is of.
    """
    ours = exported.incumbent_mean
    theirs = exported.candidate_mean
    parts = []
    means = [as_mapping(answer[f"{side}_mean"]) for side in ("candidate", "incumbent")]
    scores = [score for mean in means if isinstance(score := mean["score"], float)]
    if len(scores) == len(means):
        parts.append(f"score {' against '.join(map(format_number, scores))}")
    if ours.usd is not None and theirs.usd is not None:
        parts.append(f"cost {format_price_pair(theirs.usd, ours.usd)}")
    if ours.latency_ms is not None and theirs.latency_ms is not None:
        times = (format_milliseconds(run.latency_ms or 0.0) for run in (theirs, ours))
        parts.append(f"time {' against '.join(times)}")
    return "; ".join(parts)


def _outcome(
    exported: "ExportedPairs",
    answer: Mapping[str, object],
    terms: FileTerms,
) -> str:
    verdict = answer["verdict"]
    low = answer["ci_low"]
    high = answer["ci_high"]
    if verdict == "not_measured" or not isinstance(low, float) or not isinstance(high, float):
        return str(answer["reason"])
    against = f" than {exported.incumbent}" if exported.incumbent != "incumbent" else ""
    margin = f"at most {_points(terms.margin)} points worse"
    shown = "better" if terms.claim == "superior" else margin
    worse = "worse"
    if terms.claim != "superior":
        worse = f"more than {_points(terms.margin)} points worse"
    if points_to := answer["points_to"]:
        likely = shown if points_to != "worse" else worse
        extent = _extent(low, high) if likely in ("better", "worse") else _range(low, high)
        return f"{exported.candidate} is probably {likely}{against} ({extent}){_more(answer)}."
    end = {
        "passed": f"that shows that it is {shown}",
        "failed": f"that shows that it is {worse}",
    }.get(str(verdict), "not enough to decide")
    return f"{exported.candidate} is {_range(low, high)}{against}: {end}."


def _more(answer: Mapping[str, object]) -> str:
    """Names the items that would show the result to which the data point."""
    more = answer["more_items"]
    if not isinstance(more, int):
        return ""
    return f"; about {format_quantity(more, 'more item')} would show it"


def _range(low: float, high: float) -> str:
    """Describes an interval: `between 31 points worse and 12 better`."""
    if low < 0.0 < high:
        return f"between {_points(low)} points worse and {_points(high)} better"
    word = "better" if high > 0.0 else "worse"
    near, far = sorted((abs(low), abs(high)))
    return f"between {_points(near)} and {_points(far)} points {word}"


def _extent(low: float, high: float) -> str:
    """Writes an interval on one side of 0: `6.5 to 31 points`."""
    near, far = sorted((abs(low), abs(high)))
    return f"{_points(near)} to {_points(far)} points"


def _points(share: float) -> str:
    return format_number(abs(share) * 100, 2)


def _sight_text(count: int, sight: "Sight") -> str:
    with_these = "with this one" if count == 1 else f"with these {count:,}"
    needed = int(float(f"{sight.items_needed:.2g}"))  # an estimate; two digits are enough
    if sight.items_needed <= count:
        return f"A difference of 5 points can be seen {with_these}."
    if sight.smallest > 1.0:
        seen = f"{with_these}, no difference can be seen"
    else:
        seen = f"{with_these}, only {_points(sight.smallest)} points can be seen"
    return f"For a difference of 5 points you need about {needed:,} questions; {seen}."
