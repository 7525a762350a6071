"""`swapproof gate run` and `swapproof try --suite` compare two targets without a server.

`gate run` uses a temporary database. `try --suite` keeps its database in a folder, so that the
same command continues an interrupted comparison.
"""

import json
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import yaml

from harness.app.configuration.routing import parse_target_seed
from harness.app.gate_run import (
    FOLDER,
    ROUTE,
    ComparisonRequest,
    build_comparison_context,
    open_runner_seeds,
    register_comparison,
    run_until_decided,
)
from harness.app.installation import config_file, load_settings, read_dotenv
from harness.app.set_up import temporary_installation
from harness.evals.spending import load_report, sum_cost_so_far
from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import InputError, NotFound, SpendingPaused
from harness.frame.formatting import format_usd
from harness.frame.people.access import OPERATOR
from harness.frame.plain_data import digest
from harness.frame.ports import Clock
from harness.gate.suite_plan import Claim
from harness.gate.verdict_sentences import describe_reason
from harness.interfaces.cli.evals.next_command import name_command, name_suite
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    FiniteRange,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import (
    TIMED_OUT,
    Progress,
    ProgressLine,
)
from harness.interfaces.cli.proposals import comparison
from harness.interfaces.cli.proposals.verdict_wait import EXIT_CODES_BY_VERDICT
from harness.interfaces.cli.routing.route_options import (
    TargetOptions,
    requested_target,
)
from harness.operations.context import Context
from harness.proposals import evaluation, proposal_waits
from harness.proposals.candidates import estimate
from harness.proposals.report.answer_examples import describe_report
from harness.proposals.report.content import (
    DATABASE_FILE,
    FileTrial,
    Report,
    gather_report,
    replay_variables,
)
from harness.proposals.report.document import describe_format_failure
from harness.proposals.report.findings import find_format_failures
from harness.proposals.report.junit import render_junit
from harness.proposals.report.markdown import render_markdown
from harness.proposals.report.measurements import describe_suites
from harness.proposals.report.page import render_page
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.records import Providers
from harness.providers.target import Target
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts

INTERRUPTED_CODE: Final = 130
# The defaults of `try`'s options, which a command need not repeat.
_DEFAULTS: Final[Mapping[str, object]] = {
    "scorer": "exact",
    "system": "",
    "template": "{input}",
    "max_output_tokens": "auto",
    "max_usd": 1.0,
}
# The price of a model on a local server.
_FREE_PRICE: Final = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}


@dataclass(frozen=True, slots=True)
class SuiteTrial:
    file: Path
    incumbent: str
    candidate: str
    claim: Claim
    margin: float
    max_usd: float
    suite: Mapping[str, object]  # the suite's settings without `path`
    page: Path


def try_suite(trial: SuiteTrial, config: Path | None) -> int:
    """Asks both models and writes the page. Returns the exit code. Raises InputError."""
    read_dotenv(Path.cwd())
    incumbent = _parse_target(trial.incumbent)
    candidate = _parse_target(trial.candidate)
    file = config_file(config, os.environ)
    if file is not None:
        # Checks the user's file before the copy, so that an error names the user's line.
        load_settings(file)
    providers = _build_providers([incumbent, candidate], file)
    folder = FOLDER / _name_folder(trial, providers)
    seeds = open_runner_seeds(incumbent, candidate)
    folder.mkdir(parents=True, exist_ok=True)
    config_copy = folder / "swapproof.yaml"
    config_copy.write_text(yaml.safe_dump(_build_config(trial, providers)), encoding="utf-8")
    request = ComparisonRequest(
        [name_suite(trial.file)],
        incumbent,
        candidate,
        claim=trial.claim,
        margin=trial.margin,
        reason="swapproof try",
    )
    with temporary_installation(config_copy, folder, reuses_state=True) as installation:
        ctx = build_comparison_context(installation.context, seeds)
        try:
            proposal = _find_earlier_proposal(ctx) or register_comparison(
                ctx, OPERATOR, installation.settings, request
            )
        except NotFound as error:  # for example, a misspelt scorer
            raise InputError(str(error)) from None
        _note_plans(ctx, proposal)
        early_end = ""
        try:
            with progress_pauses(ctx, installation.clock) as pause:
                proposal = run_until_decided(ctx, proposal.id, pause)
        except KeyboardInterrupt:
            early_end = "stopped"
        except SpendingPaused:
            early_end = _describe_pause(ctx, trial.max_usd, [incumbent, candidate])
        report = gather_report(
            installation.context,
            proposal.id,
            standalone=True,
            kept=folder,
            trial=_describe_trial(trial, folder),
        )
    page = render_page(describe_report(report))
    trial.page.write_text(page, encoding="utf-8")
    if early_end:
        output.note(
            f"{early_end}. All answers so far are in {folder}; the same command continues there"
        )
        return INTERRUPTED_CODE if early_end == "stopped" else SpendingPaused.exit_code
    print_report(report, folder)
    output.note(f"report: {trial.page}")
    if exit_code(report) == 1:
        output.note(f"to ask again, delete {folder} and run the same command")
    return exit_code(report)


def _describe_trial(trial: SuiteTrial, folder: Path) -> FileTrial:
    """Describes the file for people, with the commands that use it."""
    values: dict[str, object] = {
        "--suite": trial.file,
        "--incumbent": trial.incumbent,
        "--candidate": trial.candidate,
    }
    if trial.claim is not Claim.SUPERIOR:
        values |= {"--claim": trial.claim.value, "--margin": f"{trial.margin:g}"}
    chosen = {name: value for name, value in trial.suite.items() if value != _DEFAULTS[name]}
    values |= {f"--{name.replace('_', '-')}": value for name, value in chosen.items()}
    if trial.max_usd != _DEFAULTS["max_usd"]:
        values["--max-usd"] = f"{trial.max_usd:g}"
    words = [text for option, value in values.items() for text in (option, str(value))]
    scorer = ["--scorer", str(chosen["scorer"])] if "scorer" in chosen else []
    name = name_suite(trial.file)
    import_words = ["swapproof", "suite", "import", str(trial.file), "--suite", name, *scorer]
    return FileTrial(
        trial.file.name,
        shlex.join([*name_command(), *words]),
        f"swapproof init --yes && {shlex.join(import_words)}",
        folder,
    )


def _note_plans(ctx: Context, proposal: Proposal) -> None:
    """Prints the limits of each suite's measurement before the models get questions."""
    for plan in proposal.plans:
        for text in estimate.describe_before_answers(ctx, plan):
            output.note(f"{ctx.suites.title(plan.suite)}: {text}")


def _describe_pause(
    ctx: Context,
    max_usd: float,
    seeds: Sequence[Target],
) -> str:
    """Describes why --max-usd stopped the comparison, and how to continue."""
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    for seed in seeds:
        if seed.model not in providers[seed.provider].prices:
            return (
                f"not measured: the price of {seed.name} is unknown, so its cost has no limit. "
                f"Write it under `providers.{seed.provider}.prices` in ./swapproof.yaml"
            )
    spent = format_usd(load_report(ctx).spent_usd)
    return (
        f"not measured: the answers so far cost {spent}; more may exceed --max-usd {max_usd:g}"
    )


def _parse_target(name: str) -> Target:
    """Parses a target. A model without a provider gets the vendor that its name suggests."""
    if "/" in name:
        return parse_target_seed(name)
    vendors = [
        (len(word), kind.name)
        for kind in PROVIDER_KINDS.values()
        for word in kind.keywords
        if name.lower().startswith(word)
    ]
    return parse_target_seed(f"{max(vendors)[1]}/{name}" if vendors else name)


def _build_providers(seeds: list[Target], file: Path | None) -> dict[str, object]:
    """Builds the settings of the targets' providers.

    A provider outside the configuration file gets its kind's address and key variable.
    """
    configured = parse_file(file).values.get("providers") if file else None
    providers: dict[str, object] = {}
    for seed in seeds:
        name = seed.provider
        kind = PROVIDER_KINDS.get(name)
        if isinstance(configured, dict) and name in configured:
            providers[name] = configured[name]
            continue
        if kind is None:
            raise InputError(
                f"{name!r} is not a known provider: use one of {', '.join(PROVIDER_KINDS)}, or "
                "add it under `providers:` in ./swapproof.yaml"
            )
        if kind.needs_key and not os.environ.get(kind.key_env):
            raise InputError(
                f"{name} needs a key: export {kind.key_env or 'its key'}, and try again"
            )
        api_base = os.environ.get(f"{name.upper()}_BASE_URL") or kind.api_base
        if not api_base:
            raise InputError(f"{name} has no address: export {name.upper()}_BASE_URL")
        key = {"api_key_env": kind.key_env} if os.environ.get(kind.key_env) else {}
        is_free = kind.group in {ProviderGroup.LOCAL, ProviderGroup.SIMULATED}
        prices = {
            target.model: _FREE_PRICE for target in seeds if target.provider == name and is_free
        }
        providers[name] = {
            "kind": name,
            "api_base": api_base,
            **key,
            "prices": prices,
        }
    return providers


def _build_config(trial: SuiteTrial, providers: Mapping[str, object]) -> dict[str, object]:
    suite = {
        **trial.suite,
        "path": str(trial.file.resolve()),
        "title": trial.file.name,
    }
    return {
        "providers": dict(providers),
        "suites": {name_suite(trial.file): suite},
        "spending": {"monthly_cap_usd": trial.max_usd},
    }


def _name_folder(trial: SuiteTrial, providers: Mapping[str, object]) -> str:
    """Returns the folder's name, a hash of everything that the comparison depends on."""
    parts = [
        trial.incumbent,
        trial.candidate,
        trial.claim,
        trial.margin,
        dict(trial.suite),
        providers,
        name_suite(trial.file),
    ]
    content = trial.file.read_bytes().hex()
    return digest(json.loads(json.dumps([*parts, content])))[:12]


def _find_earlier_proposal(ctx: Context) -> Proposal | None:
    with ctx.store.read() as tx:
        proposals = Proposals(tx).list(route=ROUTE)
    return max(proposals, key=lambda proposal: proposal.created_at, default=None)


PAUSE_S: Final = 0.2
EXIT_CODES: Final = EXIT_CODES_BY_VERDICT | {"passed": 0}


@contextmanager
def progress_pauses(
    ctx: Context,
    clock: Clock,
    timeout_s: float | None = None,
) -> Iterator[Callable[[Proposal], bool]]:
    """Yields the pause function for `run_until_decided`. Each pause updates the progress line
    on stderr.
    """
    line = ProgressLine()
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s

    def pause(proposal: Proposal) -> bool:
        line.say(_build_progress(ctx, proposal), clock.monotonic())
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
        return True

    try:
        yield pause
    finally:
        line.end()


def _build_progress(ctx: Context, proposal: Proposal) -> Progress:
    with ctx.store.read() as tx:
        if proposal.retry_at is not None:
            verdicts = Verdicts(tx).for_proposal(proposal.id)
            reason = next((verdict.reason for verdict in verdicts), "")
            return Progress(f"{reason[:1].lower()}{reason[1:]} Trying again.")
        done, total = evaluation.count_answers(tx, proposal)
        cost = sum_cost_so_far(tx, evaluation.list_run_ids(proposal))
        note = proposal_waits.describe_proposal_waits(tx, proposal)
    stage = "asking" if total else "starting"
    return Progress(
        stage,
        done,
        total,
        at_most=True,
        unit="answers",
        cost_usd=cost,
        note=note,
    )


def print_report(report: Report, folder: Path | None) -> None:
    """Prints the verdict with its suites.

    Args:
        folder: the folder that holds every answer.
    """
    result = report.comparison
    if output.documented(
        {
            **comparison.as_json(result, None, standalone=True),
            "exit_code": exit_code(report),
        }
    ):
        return
    for fault in result.faults:
        click.echo(f"mind: {fault}")
    if result.verdict is None and result.proposal.open:
        click.echo("not decided within --timeout: run the command again with more time")
    elif result.verdict is None:
        click.echo(comparison.describe_outcome(result))
    else:
        click.echo(f"{result.verdict.words}: {describe_reason(result.verdict)}")
        comparison.print_blocks(describe_suites(result))
        click.echo(f"next: {report.next_step}")
        for failure in find_format_failures(result, standalone=True):
            comparison.print_blocks(
                describe_format_failure(failure, with_commands=report.trial is None)
            )
        if report.trial is not None:
            click.echo(f"  {report.trial.next_command(result.verdict.outcome)}")
    if folder is not None and result.verdict:
        output.note(
            f"every answer is in {folder / DATABASE_FILE}: "
            f"{replay_variables(folder)} "
            f"swapproof gate replay {result.verdict.id}"
        )


def exit_code(report: Report) -> int:
    verdict = report.comparison.verdict
    if verdict is not None:
        return EXIT_CODES[verdict.outcome]
    # Without a verdict, the comparison timed out (still open) or measured nothing.
    return TIMED_OUT if report.comparison.proposal.open else 1


def _write_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@command(
    name="run",
    example="swapproof gate run --suite tickets --incumbent openai/gpt-6-sol "
    "--candidate openai/gpt-6-luna",
)
def gate_run(
    session: Session,
    *,
    suites: tuple[str, ...] = opt(
        "The primary suite; further suites are required suites.",
        "--suite",
        required=True,
    ),
    guards: tuple[str, ...] = opt(
        "Suite that fails a candidate that is shown to be worse; may be repeated.",
        "--guard",
        metavar="SUITE",
    ),
    incumbent: str = opt("As `provider/model`.", metavar="TARGET"),
    candidate: str = opt("As `provider/model`.", metavar="TARGET"),
    settings: TargetOptions = taken_from(TargetOptions),
    policy: str = opt("Name of a policy.", default="default"),
    claim: Claim | None = opt("Claim of the candidate. [default: the policy's]"),
    margin: float | None = opt(
        "Allowed loss, from 0 to 1; 0.05 is 5 points. [default: the policy's]",
        metavar="SHARE",
    ),
    min_saving: float | None = opt(
        "With cheaper_and_not_worse: share of the cost to save. [default: the policy's]",
        metavar="SHARE",
    ),
    unreadable_as_wrong: bool = opt(
        "Continue if none of a model's first 5 answers can be parsed: they count as wrong."
    ),
    reason: str = opt("Why.", default="swapproof gate run"),
    markdown_file: Path | None = opt("Write the report here.", "--markdown"),
    junit_file: Path | None = opt("Write JUnit XML here.", "--junit"),
    keep: Path | None = opt(
        "Keep the database, for `swapproof gate replay`. [default: delete it]",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
    ),
    timeout_s: float | None = opt(
        "Seconds, then exit code 5. [default: none]",
        "--timeout",
        type=FiniteRange(min=0),
    ),
) -> int:
    """Compare two targets without a server.

    Suites, providers and policies come from the configuration; your database does not change.
    --param, --patch-param, --prompt-addendum and --response-format apply to the candidate.
    Exit code: 0 passed, 3 failed or format mismatch, 4 not enough evidence, 5 timeout, 1 not
    measured.
    """
    request = ComparisonRequest(
        suites,
        parse_target_seed(incumbent),
        requested_target(candidate, settings),
        policy,
        claim,
        margin,
        reason,
        guards,
        min_saving,
    )
    with tempfile.TemporaryDirectory(prefix="swapproof-gate-") as scratch:
        with temporary_installation(session.config, keep or Path(scratch)) as installation:
            seeds = open_runner_seeds(request.incumbent, request.candidate)
            ctx = build_comparison_context(
                installation.context, seeds, unreadable_is_wrong=unreadable_as_wrong
            )
            proposal = register_comparison(ctx, session.actor, installation.settings, request)
            _note_plans(ctx, proposal)
            with progress_pauses(ctx, installation.clock, timeout_s) as pause:
                proposal = run_until_decided(ctx, proposal.id, pause)
            report = gather_report(
                installation.context,
                proposal.id,
                standalone=True,
                kept=keep,
            )
        if markdown_file is not None:
            _write_file(markdown_file, render_markdown(describe_report(report)))
        if junit_file is not None:
            _write_file(junit_file, render_junit(report))
        print_report(report, keep)
    return exit_code(report)
