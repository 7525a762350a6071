"""`swapgate gate run` compares two targets without a server, in a temporary database.
`swapgate try --suite` asks a team's own questions; a second call continues in the same folder.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import yaml

from harness.app.configuration.routing import target_seed
from harness.app.gate_run import (
    FOLDER,
    ROUTE,
    ComparisonRequest,
    comparison_context,
    register_comparison,
    run_until_decided,
    runner_seeds,
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
from harness.gate.sentences import reason_text
from harness.gate.suite_plan import Claim
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
from harness.interfaces.cli.proposals.verdict_wait import REJECTED_BY_VERDICT
from harness.interfaces.cli.routing.route_options import (
    TargetOptions,
    requested_target,
)
from harness.operations.context import Context
from harness.proposals import evaluation
from harness.proposals.candidates import estimate
from harness.proposals.report.content import (
    FILE,
    Report,
    gather_report,
    suite_rows,
    variables,
)
from harness.proposals.report.findings import find_format_failures
from harness.proposals.report.formats import render_junit, render_page
from harness.proposals.report.markdown import render_markdown
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.records import Providers
from harness.providers.target import Target
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts

INTERRUPTED: Final = 130
_SUITE: Final = "try"
_FREE: Final = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}  # for local servers


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
    incumbent = _seed(trial.incumbent)
    candidate = _seed(trial.candidate)
    file = config_file(config, os.environ)
    if file is not None:
        load_settings(file)  # so that an error names its line there, not in the copy below
    providers = _providers([incumbent, candidate], file)
    folder = FOLDER / _name(trial, providers)
    seeds = runner_seeds(incumbent, candidate)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "swapgate.yaml"
    written.write_text(yaml.safe_dump(_config(trial, providers)), encoding="utf-8")
    question = ComparisonRequest(
        [_SUITE],
        incumbent,
        candidate,
        claim=trial.claim,
        margin=trial.margin,
        reason="swapgate try",
    )
    with temporary_installation(written, folder, goes_on=True) as installation:
        ctx = comparison_context(installation.context, seeds)
        try:
            proposal = _earlier(ctx) or register_comparison(
                ctx, OPERATOR, installation.settings, question
            )
        except NotFound as error:  # such as a misspelt scorer
            raise InputError(str(error)) from None
        _note_plans(ctx, proposal)
        ended = ""
        try:
            with progress_pauses(ctx, installation.clock) as pause:
                proposal = run_until_decided(ctx, proposal.id, pause)
        except KeyboardInterrupt:
            ended = "stopped"
        except SpendingPaused:
            ended = _describe_pause(ctx, trial.max_usd, [incumbent, candidate])
        report = gather_report(
            installation.context,
            proposal.id,
            standalone=True,
            kept=folder,
        )
    trial.page.write_text(render_page(report), encoding="utf-8")
    if ended:
        output.note(
            f"{ended}. All answers so far are in {folder}; the same command continues there"
        )
        return INTERRUPTED if ended == "stopped" else SpendingPaused.exit_code
    print_report(report, folder)
    output.note(f"report: {trial.page}")
    if exit_code(report) == 1:
        output.note(f"to ask again, delete {folder} and run the same command")
    return exit_code(report)


def _note_plans(ctx: Context, proposal: Proposal) -> None:
    """Prints, before a model is asked, what each suite can show and what it omits."""
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
        known = Providers(tx).all()
    for seed in seeds:
        if seed.model not in known[seed.provider].prices:
            return (
                f"not measured: the price of {seed.name} is unknown, so its cost has no limit. "
                f"Write it under `providers.{seed.provider}.prices` in ./swapgate.yaml"
            )
    spent = format_usd(load_report(ctx).spent_usd)
    return (
        f"not measured: the answers so far cost {spent}; --max-usd {max_usd:g} allows no more"
    )


def _seed(name: str) -> Target:
    """Parses a target. A model without a provider gets the vendor that its name suggests."""
    if "/" in name:
        return target_seed(name)
    vendors = [
        (len(word), kind.name)
        for kind in PROVIDER_KINDS.values()
        for word in kind.keywords
        if name.lower().startswith(word)
    ]
    return target_seed(f"{max(vendors)[1]}/{name}" if vendors else name)


def _providers(seeds: list[Target], file: Path | None) -> dict[str, object]:
    """Takes providers from the configuration file, else by the vendor's name and variable."""
    known = parse_file(file).values.get("providers") if file else None
    found: dict[str, object] = {}
    for seed in seeds:
        name = seed.provider
        kind = PROVIDER_KINDS.get(name)
        if isinstance(known, dict) and name in known:
            found[name] = known[name]
            continue
        if kind is None:
            raise InputError(
                f"{name!r} is not a known provider: use one of {', '.join(PROVIDER_KINDS)}, or "
                "add it under `providers:` in ./swapgate.yaml"
            )
        if kind.needs_key and not os.environ.get(kind.key_env):
            raise InputError(
                f"{name} needs a key: export {kind.key_env or 'its key'}, and try again"
            )
        base = os.environ.get(f"{name.upper()}_BASE_URL") or kind.api_base
        if not base:
            raise InputError(f"{name} has no address: export {name.upper()}_BASE_URL")
        key = {"api_key_env": kind.key_env} if os.environ.get(kind.key_env) else {}
        own = kind.group in {ProviderGroup.LOCAL, ProviderGroup.SIMULATED}
        free = {target.model: _FREE for target in seeds if target.provider == name and own}
        found[name] = {
            "kind": name,
            "api_base": base,
            **key,
            "prices": free,
        }
    return found


def _config(trial: SuiteTrial, providers: Mapping[str, object]) -> dict[str, object]:
    suite = {
        **trial.suite,
        "path": str(trial.file.resolve()),
        "title": trial.file.name,
    }
    return {
        "providers": dict(providers),
        "suites": {_SUITE: suite},
        "spending": {"monthly_cap_usd": trial.max_usd},
    }


def _name(trial: SuiteTrial, providers: Mapping[str, object]) -> str:
    """Returns the folder's name, a hash of everything that the comparison depends on."""
    parts = [
        trial.incumbent,
        trial.candidate,
        trial.claim,
        trial.margin,
        dict(trial.suite),
        providers,
    ]
    content = trial.file.read_bytes().hex()
    return digest(json.loads(json.dumps([*parts, content])))[:12]


def _earlier(ctx: Context) -> Proposal | None:
    with ctx.store.read() as tx:
        found = Proposals(tx).list(route=ROUTE)
    return max(found, key=lambda proposal: proposal.created_at, default=None)


PAUSE_S: Final = 0.2
EXITS: Final = REJECTED_BY_VERDICT | {"passed": 0}


@contextmanager
def progress_pauses(
    ctx: Context,
    clock: Clock,
    timeout_s: float | None = None,
) -> Iterator[Callable[[Proposal], bool]]:
    """Yields the pauses of `run_until_decided`; each updates the progress line on stderr."""
    ticker = ProgressLine()
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s

    def pause(now: Proposal) -> bool:
        ticker.say(_progress(ctx, now), clock.monotonic())
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
        return True

    try:
        yield pause
    finally:
        ticker.end()


def _progress(ctx: Context, proposal: Proposal) -> Progress:
    with ctx.store.read() as tx:
        if proposal.retry_at is not None:
            verdicts = Verdicts(tx).for_proposal(proposal.id)
            why = next((verdict.reason for verdict in verdicts), "")
            return Progress(f"{why[:1].lower()}{why[1:]} Trying again.")
        done, wanted = evaluation.count_answers(tx, proposal)
        cost = sum_cost_so_far(tx, evaluation.run_ids(proposal))
        waits = evaluation.describe_proposal_waits(tx, proposal)
    stage = "asking" if wanted else "starting"
    return Progress(
        stage,
        done,
        wanted,
        at_most=True,
        unit="answers",
        cost_usd=cost,
        note=waits,
    )


def print_report(report: Report, keep: Path | None) -> None:
    """Prints the verdict with its suites. keep: the folder that holds every answer."""
    found = report.comparison
    if output.documented(
        {
            **comparison.as_json(found, None, standalone=True),
            "exit_code": exit_code(report),
        }
    ):
        return
    for fault in found.faults:
        click.echo(f"mind: {fault}")
    if found.verdict is None and found.proposal.open:
        click.echo("not decided within --timeout: run it again, with more time")
    elif found.verdict is None:
        click.echo(comparison.outcome_text(found))
    else:
        click.echo(f"{found.verdict.words}: {reason_text(found.verdict)}")
        rows = suite_rows(found.verdict)
        output.table(comparison.HEADINGS, rows, empty="no suites")
        click.echo(found.decided_on)
        click.echo(f"next: {report.next_step}")
        for lost in find_format_failures(found, standalone=True):
            comparison.print_format_failures(lost)
    if keep is not None and found.verdict:
        output.note(
            f"every answer is in {keep / FILE}: "
            f"{variables(keep)} "
            f"swapgate gate replay {found.verdict.id}"
        )


def exit_code(report: Report) -> int:
    verdict = report.comparison.verdict
    if verdict is not None:
        return EXITS[verdict.outcome]
    # Without a verdict, the comparison timed out (still open) or measured nothing.
    return TIMED_OUT if report.comparison.proposal.open else 1


@command(name="run")
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
    reason: str = opt("Why.", default="swapgate gate run"),
    markdown_file: Path | None = opt("Write the report here.", "--markdown"),
    junit_file: Path | None = opt("Write JUnit XML here.", "--junit"),
    keep: Path | None = opt(
        "Keep the database, for `swapgate gate replay`. [default: delete it]",
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
    question = ComparisonRequest(
        suites,
        target_seed(incumbent),
        requested_target(candidate, settings),
        policy,
        claim,
        margin,
        reason,
        guards,
        min_saving,
    )
    with tempfile.TemporaryDirectory(prefix="swapgate-gate-") as scratch:
        with temporary_installation(session.config, keep or Path(scratch)) as installation:
            seeds = runner_seeds(question.incumbent, question.candidate)
            ctx = comparison_context(
                installation.context, seeds, unreadable_is_wrong=unreadable_as_wrong
            )
            proposal = register_comparison(ctx, session.actor, installation.settings, question)
            _note_plans(ctx, proposal)
            with progress_pauses(ctx, installation.clock, timeout_s) as pause:
                found = run_until_decided(ctx, proposal.id, pause)
            report = gather_report(
                installation.context,
                found.id,
                standalone=True,
                kept=keep,
            )
        for path, render in (
            (markdown_file, render_markdown),
            (junit_file, render_junit),
        ):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(render(report), encoding="utf-8")
        print_report(report, keep)
    return exit_code(report)
