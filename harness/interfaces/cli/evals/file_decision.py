"""`swapproof gate decide` and `canary decide` apply the rules of gate and canary to a CSV file.
They need no installation, so that anyone can check the rules. Also defines the group `gate`.
"""

import json
from collections.abc import Sequence
from typing import Any

import click

from harness.evals.file_gate.terms import FileTerms, between_0_and_1
from harness.evals.run_statement import Acceptance, Direction
from harness.frame.errors import InputError
from harness.frame.formatting import escape_controls
from harness.frame.text_files import read_text
from harness.gate.suite_plan import Claim
from harness.interfaces.cli.frame.command import (
    LazyCommand,
    LazyCommandGroup,
    arg,
    command,
    opt,
    taken_from,
)

# The keys of `EXPORT_FORMATS`, repeated here because importing it would slow `--help`.
EXPORTS = (
    "promptfoo",
    "braintrust",
    "langsmith",
    "openai-evals",
    "lm-eval",
    "inspect",
    "deepeval",
    "langfuse",
    "csv",
    "columns",
)
DECIDE = LazyCommand(
    "harness.interfaces.cli.evals.file_decision:gate_decide",
    "Decide about a candidate from the scores in PAIRS.csv.",
)

DECIDE_CANARY = LazyCommand(
    "harness.interfaces.cli.evals.file_decision:canary_decide",
    "Decide about a canary from the counts in BLOCKS.csv.",
)

RUN = LazyCommand(
    "harness.interfaces.cli.evals.gate_run:gate_run",
    "Compare two targets without a server.",
)

REPLAY = LazyCommand(
    "harness.interfaces.cli.proposals.proof:replay",
    "Decide a verdict again from the stored samples.",
)


@click.command(
    cls=LazyCommandGroup,
    lazy={
        "decide": DECIDE,
        "run": RUN,
        "replay": REPLAY,
    },
)
def gate() -> None:
    """The gate's rule, for files, two targets, or stored verdicts."""


GATE_EXITS = {
    "passed": 0,
    "not_measured": 1,
    "failed": 3,
    "inconclusive": 4,
    "running": 4,
}
CANARY_EXITS = {"hold": 0, "rollback": 3}
N_MAX_HELP = "Planned number of items, or clusters, of a file that grows in random order."
LOOK_HELP = "Number of this look at a file that grew unplanned. Later looks get less alpha."


def build_acceptance(
    *,
    lower: bool = opt("A lower score is better.", "--lower-is-better"),
    higher: bool = opt("A higher score is better.", "--higher-is-better"),
    asked_differently: str = opt(
        "Why runs count that were asked differently.", metavar="WHY", default=""
    ),
    partial: str = opt(
        "Why a partial run counts. Its missing items have no score.", metavar="WHY", default=""
    ),
) -> Acceptance:
    """Builds the user's statements about facts that result files lack. Raises InputError for
    two directions.
    """
    if lower and higher:
        raise InputError("give --lower-is-better or --higher-is-better, not both")
    direction = Direction.LOWER if lower else Direction.HIGHER if higher else None
    return Acceptance(direction, asked_differently.strip(), partial.strip())


@command(name="decide", example="swapproof gate decide pairs.csv --margin 0.05")
def gate_decide(
    files: tuple[str, ...] = arg("PAIRS.csv|FILE…", type=click.Path(), required=True),
    *,
    format_name: str | None = opt(
        "Tool that wrote the files.",
        "--from",
        type=click.Choice(EXPORTS),
    ),
    incumbent: str = opt("With --from: the incumbent's run.", metavar="NAME", default=""),
    candidate: str = opt("With --from: the candidate's run.", metavar="NAME", default=""),
    metric: str = opt("With --from: the score that counts.", metavar="NAME", default=""),
    acceptance: Acceptance = taken_from(build_acceptance),
    claim: str = opt(
        "Claim of the candidate.",
        type=click.Choice(["superior", "non_inferior"]),
        default="superior",
    ),
    margin: float = opt("Allowed loss, from 0 to 1; 0.05 is 5 points.", default=0.05),
    n_max: int | None = opt(N_MAX_HELP),
    look: int = opt(LOOK_HELP, default=1),
    alpha: float = opt("Chance of a false promotion.", default=0.05),
    cluster: str = opt(
        "Column that names an item's cluster. Each cluster counts once.",
        metavar="COLUMN",
        default="",
    ),
    slices: tuple[str, ...] = opt(
        "Column of slices that must not get worse; may be repeated.",
        "--slice",
        metavar="COLUMN",
    ),
    as_json: bool = opt("One JSON object on stdout.", "--json"),
) -> int:
    """Decide about a candidate from the scores in PAIRS.csv.

    Columns: item, incumbent, candidate and optionally epoch. Scores are from 0 to 1; a missing
    score is empty. One analysis uses all rows, and their order does not matter.

    A file that grows: give --n-max before the first look, then repeat the command at any time.
    Without a plan, count the looks with --look.

    With --from, the files are results of another tool, as for `swapproof try`.

    Exit code: 0 passed, 1 not measured, 2 bad input, 3 failed, 4 inconclusive or not
    enough items yet.
    """
    slice_columns = tuple(column.strip().lower() for column in slices)
    terms = FileTerms(
        Claim(claim), margin, alpha, n_max, cluster.strip().lower(), slice_columns, look
    )
    if format_name is not None:
        if terms.columns:
            raise InputError(
                "--cluster and --slice name columns of a CSV file; use them without --from"
            )
        # A late import, because scipy would slow the start of every other command.
        from harness.interfaces.cli.evals import export_decision  # noqa: PLC0415

        choice = export_decision.ExportChoice(
            format_name, incumbent, candidate, metric, acceptance
        )
        export = export_decision.read_exports(files, choice)
        answer = export_decision.judge_exports(export, choice, terms)
    elif incumbent or candidate or metric or acceptance.reasons:
        raise InputError(
            "--incumbent, --candidate, --metric, --asked-differently and --partial need --from"
        )
    else:
        answer = _judge_pairs(files, terms, acceptance.direction)
    _print(answer, as_json=as_json)
    return GATE_EXITS[str(answer["verdict"])]


def _judge_pairs(
    files: Sequence[str],
    terms: FileTerms,
    direction: Direction | None,
) -> dict[str, object]:
    from harness.evals.file_gate.pair_judgement import judge_file  # noqa: PLC0415 - `--help` stays quick

    if len(files) > 1:
        raise InputError("give one file of pairs; name the tool of other files with --from")
    return judge_file(read_text(files[0]), files[0], terms, direction)


@command(name="decide", example="swapproof canary decide blocks.csv")
def canary_decide(
    blocks: str = arg("BLOCKS.csv", type=click.Path()),
    *,
    alpha: float = opt("Chance of a false rollback.", default=0.05),
    rho: float = opt("Tolerated odds ratio of failure.", default=1.0),
    as_json: bool = opt("One JSON object on stdout.", "--json"),
) -> int:
    """Decide about a canary from the counts in BLOCKS.csv.

    Columns: block, requests, canary_requests, failures, canary_failures. `requests` and
    `failures` count both arms. The optional columns `missing` and `canary_missing` count
    outcomes that never arrived. Exit code: 0 hold, 3 rollback, 2 bad input.
    """
    between_0_and_1("--alpha", alpha)
    from harness.evals.file_gate.block_files import (  # noqa: PLC0415 - `--help` stays quick
        judge_blocks,
        parse_blocks,
    )

    answer = judge_blocks(parse_blocks(read_text(blocks), blocks), blocks, alpha, rho)
    _print(answer, as_json=as_json)
    return CANARY_EXITS[str(answer["action"])]


def _print(answer: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer, allow_nan=False))
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        if isinstance(value, list):
            for row in value:
                if isinstance(row, str):
                    click.echo(f"{name:<{width}}  {escape_controls(row)}")
                    continue
                text = ", ".join(f"{key} {_format_value(part)}" for key, part in row.items())
                click.echo(f"{name:<{width}}  {text}")
        else:
            click.echo(f"{name:<{width}}  {_format_value(value)}")


def _format_value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{_format_value(part)} {name}" for name, part in value.items())
    return f"{value:.6g}" if isinstance(value, float) else escape_controls(str(value))
