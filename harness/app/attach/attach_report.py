"""What `attach` found: models with their ends and replacements, what hinders a proof, the
proof's effort, and the next command. Pure.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from harness.app.attach.log_obstacles import SourceNote, list_obstacles
from harness.app.attach.proof_effort import (
    FEWEST_CALLERS,
    ProofEffort,
    estimate_effort,
)
from harness.app.attach.replacements import (
    NAMED,
    CandidateChoice,
    Replacement,
    choose_candidate,
    choose_judge,
    count_cost,
    find_end,
    find_entry,
    find_named,
    list_replacements,
)
from harness.app.attach.traffic_survey import ModelTraffic, TrafficSurvey
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.model_ends import KnownEnd

MOST_MODELS: Final = 8  # with replacements, so that the screen stays one
_UNKNOWN: Final = "unknown"
# What the next command has instead of a name that the log does not tell.
UNKNOWN_ROUTE: Final = "ROUTE"
UNKNOWN_JUDGE: Final = "PROVIDER/MODEL"
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class AttachChoice:
    """What the user chose. Empty for Swapproof's choice."""

    model: str = ""  # whose replacement is sought
    candidate: str = ""
    judge: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class SeenModel:
    """A model in use. entry: its facts in the catalogue; None if it has none."""

    traffic: ModelTraffic
    entry: CatalogueEntry | None
    end: KnownEnd
    list_usd: float | None  # the counted requests at the list price
    replacements: Sequence[Replacement]

    @property
    def name(self) -> str:
        return self.entry.name if self.entry else self.traffic.name or _UNKNOWN


@dataclass(frozen=True, slots=True)
class AttachReport:
    sources: Sequence[SourceNote]
    survey: TrafficSurvey
    models: Sequence[SeenModel]  # the most requests first
    subject: SeenModel  # the model whose proof is estimated
    candidate: CandidateChoice
    judge: str  # empty without a known judge
    effort: ProofEffort
    obstacles: Sequence[str]
    catalogue: str  # its source; empty if this machine has none
    as_of: date | None
    next_command: str

    @property
    def other_models(self) -> Sequence[SeenModel]:
        """The models that the screen only counts."""
        return self.models[MOST_MODELS:]


def build_report(
    sources: Sequence[SourceNote],
    survey: TrafficSurvey,
    catalogue: Catalogue,
    now: datetime,
    choice: AttachChoice = AttachChoice(),
) -> AttachReport:
    """Builds the report. Raises InputError if no source has a request, or for an unknown
    model.
    """
    if not survey.requests:
        raise InputError(_explain_nothing(sources, survey))
    today = now.date()
    named = [_require(choice.candidate, catalogue)] if choice.candidate else []
    models = [_look_up(traffic, catalogue, today, named) for traffic in survey.ranked]
    subject = _choose_subject(models, choice.model)
    if named and named[0] is subject.entry:
        chosen = CandidateChoice(subject.name, f"{NAMED}, the model in use itself")
    else:
        chosen = choose_candidate(subject.name, subject.list_usd, subject.replacements)
    candidate = find_named(chosen.name, catalogue)
    compared = [entry for entry in (subject.entry, candidate) if entry is not None]
    judge = (
        _require(choice.judge, catalogue)
        if choice.judge
        else choose_judge(compared, catalogue, today)
    )
    effort = estimate_effort(subject.traffic, subject.entry, candidate, judge)
    obstacles = [*list_obstacles(sources, survey, subject.traffic, now)]
    if survey.with_content and effort.callers < FEWEST_CALLERS:
        obstacles.append(
            f"requests of {format_quantity(effort.callers, 'caller')} can be drawn, and with "
            f"fewer than {FEWEST_CALLERS}, people's labels often show nothing: log more of the "
            "traffic"
        )
    return AttachReport(
        sources=sources,
        survey=survey,
        models=models,
        subject=subject,
        candidate=chosen,
        judge=judge.name if judge else "",
        effort=effort,
        obstacles=obstacles,
        catalogue=catalogue.source,
        as_of=catalogue.as_of,
        next_command=_write_command(sources, subject, judge, choice),
    )


def _require(name: str, catalogue: Catalogue) -> CatalogueEntry:
    entry = find_named(name, catalogue)
    if entry is None:
        raise InputError(
            f"{name!r} is no model of the catalogue: write it as `provider/model`, such as "
            "openai/gpt-6-luna"
        )
    return entry


def _look_up(
    traffic: ModelTraffic,
    catalogue: Catalogue,
    today: date,
    named: Sequence[CatalogueEntry],
) -> SeenModel:
    entry = find_entry(traffic, catalogue)
    others = [other for other in named if other is not entry]
    return SeenModel(
        traffic,
        entry,
        find_end(traffic, catalogue, today),
        count_cost(traffic, entry),
        list_replacements(traffic, entry, catalogue, today, others),
    )


def _choose_subject(models: Sequence[SeenModel], wanted: str) -> SeenModel:
    """Returns the model that the user names, or the one with the most requests."""
    if not wanted:
        return models[0]
    for model in models:
        if wanted in (model.name, model.traffic.name, model.traffic.model):
            return model
    names = ", ".join(model.name for model in models[:MOST_MODELS])
    raise InputError(f"no request is of the model {wanted!r}; there are {names}")


def _explain_nothing(sources: Sequence[SourceNote], survey: TrafficSurvey) -> str:
    reasons = "; ".join(f"{number:,} {reason}" for reason, number in survey.lost.most_common(3))
    names = ", ".join(source.name for source in sources)
    return (
        f"{names}: has no request to a model{f': {reasons}' if reasons else ''}. Give a log "
        "with the calls of models, not only with their traces or totals"
    )


def _write_command(
    sources: Sequence[SourceNote],
    subject: SeenModel,
    judge: CatalogueEntry | None,
    choice: AttachChoice,
) -> str:
    """Writes the command that draws a suite from the first file.

    The route has the name under which most requests were asked, as `init` imports it.
    """
    source = next((one.name for one in sources if "://" not in one.name), "LOG")
    service = next((name for name, _ in subject.traffic.services.most_common(1)), "")
    route = choice.route or _NO_NAME.sub("-", service.lower()).strip("-")
    words = [
        "swapproof",
        "suite",
        "draw",
        f"{route or 'my'}-traffic",
        "--route",
        route or UNKNOWN_ROUTE,
        "--from",
        source,
        "--judge",
        judge.name if judge else UNKNOWN_JUDGE,
    ]
    return shlex.join(words)


def count_unknown(report: AttachReport) -> Mapping[str, int]:
    """Counts the requests whose cost, tokens and duration the logs do not state."""
    models = [model.traffic for model in report.models]
    return {
        "cost": sum(model.requests - model.priced for model in models),
        "tokens": sum(model.requests - model.counted for model in models),
        "duration": sum(model.requests - model.timed for model in models),
    }
