"""`swapgate try --suite` asks two models a team's own questions, with a database in a folder of
its own: a second call goes on where the first ended.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from harness.app.installation import config_file, read_dotenv
from harness.app.set_up import temporary_installation
from harness.cli.evals.gate_run import exit_code, print_report, progress_pauses
from harness.cli.frame import output
from harness.config.routing import target_seed
from harness.config.source_locations import parse_file
from harness.control.context import Context
from harness.control.proposals.gate_run import (
    ROUTE,
    ComparisonRequest,
    register_comparison,
    run_until_decided,
    without_patience,
)
from harness.domain.content_hash import digest
from harness.domain.errors import InputError, SpendingPaused
from harness.domain.evals.suite_plan import Claim
from harness.domain.operations.principals import OPERATOR
from harness.domain.proposals.proposal import Proposal
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.settings import TargetSeed
from harness.report.content import gather_report
from harness.report.page import render_page

FOLDER: Final = Path(".swapgate-try")
INTERRUPTED: Final = 130
_SUITE: Final = "try"
_FREE: Final = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}  # on one's own machine


@dataclass(frozen=True, slots=True)
class SuiteTrial:
    file: Path
    incumbent: str
    candidate: str
    claim: Claim
    margin: float
    max_usd: float
    suite: Mapping[str, object]  # its settings, beside the file
    page: Path


def try_suite(trial: SuiteTrial, config: Path | None) -> int:
    """Asks both models, and writes the page. Returns the verdict's exit code. Raises InputError
    for items, models and keys that cannot be used.
    """
    read_dotenv(Path.cwd())
    incumbent, candidate = _seed(trial.incumbent), _seed(trial.candidate)
    providers = _providers([incumbent, candidate], config_file(config, os.environ))
    folder = FOLDER / _name(trial)
    folder.mkdir(parents=True, exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")  # answers are no source
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
        ctx = without_patience(installation.context)
        proposal = _earlier(ctx) or register_comparison(
            ctx, OPERATOR, installation.settings, question
        )
        ended = ""
        try:
            with progress_pauses(ctx, installation.clock) as pause:
                proposal = run_until_decided(ctx, proposal.id, pause)
        except KeyboardInterrupt:
            ended = "stopped"
        except SpendingPaused as error:
            ended = f"{error}. {_describe_remedy(ctx, [incumbent, candidate])}"
        report = gather_report(installation.context, proposal.id, standalone=True, kept=folder)
    trial.page.write_text(render_page(report), encoding="utf-8")
    if ended:
        output.note(
            f"{ended}. Every answer so far is in {folder}, and the same command goes on from it"
        )
        return INTERRUPTED if ended == "stopped" else SpendingPaused.exit_code
    print_report(report, folder)
    output.note(f"the page: {trial.page}")
    return exit_code(report)


def _describe_remedy(ctx: Context, seeds: Sequence[TargetSeed]) -> str:
    """Says what lets a comparison go on that had no money: no sum helps without a price."""
    with ctx.store.read() as tx:
        known = tx.providers.all()
    for seed in seeds:
        if seed.model not in known[seed.provider].prices:
            return f"Write it under `providers.{seed.provider}.prices` in ./swapgate.yaml"
    return "--max-usd allows more"


def _seed(name: str) -> TargetSeed:
    """The target; a model without its provider is of the vendor whose models are called so."""
    if "/" in name:
        return target_seed(name)
    fits = [
        (len(word), kind.name)
        for kind in PROVIDER_KINDS.values()
        for word in kind.keywords
        if name.lower().startswith(word)
    ]
    return target_seed(f"{max(fits)[1]}/{name}" if fits else name)


def _providers(seeds: list[TargetSeed], file: Path | None) -> dict[str, object]:
    """The providers as a configuration has them: those of the folder's own file, else by the
    vendor's name, with its address and the key of its variable.
    """
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
                f"{name!r} is no known provider: take one of {', '.join(PROVIDER_KINDS)}, or "
                "name it under `providers:` in ./swapgate.yaml"
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
        free = {one.model: _FREE for one in seeds if one.provider == name and own}
        found[name] = {"kind": name, "api_base": base, **key, "prices": free}
    return found


def _config(trial: SuiteTrial, providers: Mapping[str, object]) -> dict[str, object]:
    suite = {**trial.suite, "path": str(trial.file.resolve()), "title": trial.file.name}
    return {
        "providers": dict(providers),
        "suites": {_SUITE: suite},
        "spending": {"monthly_cap_usd": trial.max_usd},
    }


def _name(trial: SuiteTrial) -> str:
    """Names the folder by all that a comparison rests on: with other questions, models or
    settings it is another one.
    """
    parts = [trial.incumbent, trial.candidate, trial.claim, trial.margin, dict(trial.suite)]
    content = trial.file.read_bytes().hex()
    return digest(json.loads(json.dumps([*parts, content])))[:12]


def _earlier(ctx: Context) -> Proposal | None:
    with ctx.store.read() as tx:
        found = tx.proposals.list(route=ROUTE)
    return max(found, key=lambda proposal: proposal.created_at, default=None)
