"""Explains a comparison besides its verdict. Drawbacks are arguments against a swap, with 95 %
intervals. The verdict does not depend on them. Format failures explain a candidate that lost
only by the form of its answers, and how to fix the form.

The functions are pure: they read a loaded comparison. They write commands for people to copy
and run nothing themselves. The rules of form are in `harness.gate.offline.format_rules`.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.formatting import (
    format_latency,
    format_percent,
    format_points,
    format_points_interval,
    format_quantity,
    format_range,
    format_score,
    format_thousand_price,
)
from harness.gate.canary_sentences import end_words, who_ended
from harness.gate.offline.format_rules import (
    FormatRemedy,
    find_format_rule,
    find_remedy,
)
from harness.gate.online.rollout import CanaryEnd
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import SuiteReport, VerdictBasis
from harness.proposals.report.comparison import Comparison, SuiteAnswers
from harness.providers.target import RequestPatch, Target
from harness.routing.proposal import Proposal

# A smaller relative difference is not a drawback.
CLEAR_CHANGE: Final = 0.02
MOST_SLICES: Final = 3

Interval = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Drawback:
    """One argument against a swap, as heading and text."""

    what: str
    text: str  # both figures with their intervals
    clear: bool  # whether chance alone is unlikely


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of both arms. A larger value is worse."""

    old: float | None
    new: float | None
    old_interval: Interval
    new_interval: Interval
    write: Callable[[float | None], str]

    @property
    def worse(self) -> bool:
        """Whether the candidate's figure is larger by more than CLEAR_CHANGE of the
        incumbent's.
        """
        if self.old is None or self.new is None:
            return False
        return self.new - self.old > CLEAR_CHANGE * self.old

    @property
    def clear(self) -> bool:
        """Whether the intervals do not overlap, which is stricter than a test."""
        if self.old_interval is None or self.new_interval is None:
            return False
        return self.new_interval[0] > self.old_interval[1]

    @property
    def text(self) -> str:
        new = self._with_interval(self.new, self.new_interval)
        old = self._with_interval(self.old, self.old_interval)
        chance = ""
        if self.old_interval is None or self.new_interval is None:
            chance = " Too few answers for an interval."
        elif not self.clear:
            chance = " The intervals overlap: this may be chance."
        return f"{new} against {old}.{chance}"

    def _with_interval(self, value: float | None, ends: Interval) -> str:
        between = f" (95 % CI {format_range(ends, self.write)})" if ends else ""
        return f"{self.write(value)}{between}"


def list_drawbacks(
    comparison: Comparison, titles: Mapping[str, str] | None = None
) -> Sequence[Drawback]:
    """Lists arguments against a swap, clear arguments first.

    Args:
        titles: suite titles by name.
    """
    if not comparison.is_measured:
        return []
    names = titles or {}
    drawbacks = [*_canary_drawbacks(comparison), *_arm_drawbacks(comparison)]
    if comparison.basis is not None:
        drawbacks += [
            *_suite_drawbacks(comparison.basis, names),
            *_slice_drawbacks(comparison.basis, names),
        ]
    return sorted(drawbacks, key=lambda drawback: not drawback.clear)


def describe_absence(comparison: Comparison) -> str:
    """Describes what was compared without a drawback, as sentences for people.

    Mentions only measured figures, so that a missing price does not read as "not dearer".
    """
    incumbent = comparison.incumbent_figures
    candidate = comparison.candidate_figures
    if not comparison.is_measured:
        return "Unknown: it was not measured."
    has_times = None not in (incumbent.p50_s, candidate.p50_s)
    has_costs = None not in (incumbent.cost_usd_per_1000, candidate.cost_usd_per_1000)
    if not (has_times or has_costs):
        return "Its latency, cost and failures were not measured."
    parts = ["not slower (median, p95)"] if has_times else []
    parts += ["not dearer"] if has_costs else []
    text = f"No drawback: it is {', '.join(parts)}, and no more of its calls failed."
    reports = comparison.basis.suites if comparison.basis else ()
    slices = [slice_ for report in reports for slice_ in report.figures.slices or ()]
    if slices:
        other = "other " if any(slice_.worse for slice_ in slices) else ""
        text += f" No {other}slice looks worse."
    if has_times and has_costs:
        return text
    unknown = "latency" if has_costs else "cost"
    return f"{text} Its {unknown} compared with the current model is unknown."


def _canary_drawbacks(comparison: Comparison) -> Iterator[Drawback]:
    """Yields a canary's rollback. It comes first, because callers' requests count more than any
    eval.
    """
    proposal = comparison.proposal
    if proposal.end is not None:
        ending = proposal.ending
        reason = (who_ended(ending) if ending else "") or proposal.closed_because
        place_text = "" if proposal.end is CanaryEnd.PROMOTION_ROLLED_BACK else " in its canary"
        heading = f"{end_words(proposal.end).capitalize()}{place_text}"
        yield Drawback(heading, f"{reason.rstrip('.')}.", clear=True)


def _arm_drawbacks(comparison: Comparison) -> Iterator[Drawback]:
    """Yields drawbacks in latency, cost and failed calls."""
    incumbent = comparison.incumbent_figures
    candidate = comparison.candidate_figures
    if not (incumbent.samples and candidate.samples):
        return

    def compare(
        name: str,
        interval: str,
        write: Callable[[float | None], str],
    ) -> _Figure:
        old = getattr(incumbent, name)
        new = getattr(candidate, name)
        return _Figure(
            old,
            new,
            getattr(incumbent, interval),
            getattr(candidate, interval),
            write,
        )

    p95 = compare("p95_s", "p95_interval_s", format_latency)
    median = compare("p50_s", "p50_interval_s", format_latency)
    cost = compare(
        "cost_usd_per_1000",
        "cost_interval_usd_per_1000",
        format_thousand_price,
    )
    failed = compare("failed", "failed_interval", _format_one_decimal)
    for figure, name in ((p95, "at p95"), (median, "at the median")):
        if figure.worse and figure.old is not None and figure.new is not None:
            slower = format_latency(figure.new - figure.old)
            yield Drawback(f"{slower} slower {name}", figure.text, figure.clear)
    if cost.worse and cost.old and cost.new is not None:
        share = format_percent(cost.new / cost.old - 1, significant=2)
        text = f"per 1,000 requests {cost.text}"
        yield Drawback(f"{share} dearer", text, cost.clear)
    if failed.worse and _format_one_decimal(failed.old) != _format_one_decimal(failed.new):
        yield Drawback("More failed calls", failed.text, failed.clear)


def _suite_drawbacks(basis: VerdictBasis, names: Mapping[str, str]) -> Iterator[Drawback]:
    """Yields suites whose interval lies below 0.

    Omits a suite that decided with another outcome than `passed`, because the verdict names it
    already.
    """
    for report in basis.suites:
        decided_failure = basis.decides(report) and report.outcome != "passed"
        if decided_failure or not _is_below_zero(report.ci_high):
            continue
        allowed = f"; allowed loss {format_score(report.margin)}"
        text = _describe_effect(report.delta, report.ci_low, report.ci_high) + allowed
        yield Drawback(f"{_title(report, names)} is worse", f"{text}.", clear=True)


def _slice_drawbacks(basis: VerdictBasis, names: Mapping[str, str]) -> Iterator[Drawback]:
    """Yields the slices that look worse although the test shows no loss, the worst first.

    These drawbacks are never clear, because one of several slices easily looks worse by chance.
    """
    worse_looking = [
        (slice_, report)
        for report in basis.suites
        for slice_ in report.figures.slices or ()
        if not slice_.worse and _is_below_zero(slice_.ci_high)
    ]
    worse_looking.sort(key=lambda pair: pair[0].delta)
    for slice_, report in worse_looking[:MOST_SLICES]:
        effect = _describe_effect(slice_.delta, slice_.ci_low, slice_.ci_high)
        used_text = format_quantity(slice_.n_used, report.figures.unit)
        text = (
            f"{effect}; {used_text}. By chance one of several slices easily looks worse: the "
            "test of the slices does not show a loss."
        )
        yield Drawback(
            f"{_title(report, names)}, {slice_.name} looks worse",
            text,
            clear=False,
        )


def _title(report: SuiteReport, names: Mapping[str, str]) -> str:
    return names.get(report.suite, report.suite)


def _describe_effect(
    delta: float,
    low: float | None,
    high: float | None,
) -> str:
    return f"{format_points(delta)} points, 95 % CI {format_points_interval(low, high)}"


def _is_below_zero(high: float | None) -> bool:
    return high is not None and high < 0.0


def _format_one_decimal(share: float | None) -> str:
    return format_percent(share, 1)


JSON_MODE: Final[Mapping[str, object]] = {"type": "json_object"}
OPTIONS: Final = {SuiteRole.REQUIRED: "--suite", SuiteRole.GUARD: "--guard"}


def patch_candidate(candidate: Target, remedy: FormatRemedy) -> Target:
    """Adds a remedy's line to the candidate's prompt. The result is another target."""
    patch = candidate.request_patch
    lines = " ".join(filter(None, (patch.prompt_addendum, remedy.prompt)))
    return replace(candidate, request_patch=replace(patch, prompt_addendum=lines))


def add_json_mode(candidate: Target) -> Target:
    """Sets JSON mode on the candidate. The result is another target."""
    patch = replace(candidate.request_patch, response_format=JSON_MODE)
    return replace(candidate, request_patch=patch)


def build_model_add_command(target: Target) -> str:
    """Writes the command that registers a target with its settings."""
    named = f"{target.provider}/{target.model}"
    return shlex.join(["swapproof", "model", "add", named, *build_target_options(target)])


def build_target_options(target: Target) -> Sequence[str]:
    """Writes a target's own settings as options of `model add` and `gate run`."""
    patch: RequestPatch = target.request_patch
    options: list[str] = []
    for option, fields in (
        ("--param", target.parameters),
        ("--patch-param", patch.parameters),
    ):
        for key, value in fields.items():
            options += [
                option,
                f"{key}={json.dumps(value, ensure_ascii=False)}",
            ]
    if patch.prompt_addendum:
        options += ["--prompt-addendum", patch.prompt_addendum]
    if patch.response_format:
        options += [
            "--response-format",
            json.dumps(dict(patch.response_format)),
        ]
    return options


def build_rerun_command(comparison: Comparison, candidate: Target | None = None) -> str:
    """Writes the command that repeats a comparison, optionally with another candidate. Empty if
    `gate run` cannot: for several primary suites, or an incumbent with settings.
    """
    proposal = comparison.proposal
    incumbent = comparison.incumbent
    primary = [plan.suite for plan in proposal.plans if plan.role is SuiteRole.PRIMARY]
    has_settings = incumbent.parameters or not incumbent.request_patch.empty
    if len(primary) != 1 or has_settings:
        return ""
    target = candidate or comparison.candidate
    # `--suite` names the primary suite.
    arguments = ["swapproof", "gate", "run", "--suite", *primary]
    for plan in proposal.plans:
        if plan.role is not SuiteRole.PRIMARY:
            arguments += [OPTIONS[plan.role], plan.suite]
    arguments += ["--incumbent", f"{incumbent.provider}/{incumbent.model}"]
    arguments += [
        "--candidate",
        f"{target.provider}/{target.model}",
        *build_target_options(target),
    ]
    arguments += [
        "--policy",
        proposal.policy.name,
        "--claim",
        proposal.claim.value,
    ]
    gate = proposal.policy.gate
    arguments += ["--margin", f"{gate.margin!r}"]
    if proposal.claim is Claim.CHEAPER:
        arguments += ["--min-saving", f"{gate.min_saving!r}"]
    if proposal.reason:
        arguments += ["--reason", " ".join(proposal.reason.split())]
    return shlex.join(arguments)


@dataclass(frozen=True)
class FormatExample:
    """One item's answers: the incumbent's of the first epoch, and the candidate's first answer
    that broke a rule. A score is None if the answer has no score.
    """

    item: str
    rule: str
    prompt: str
    incumbent: str
    candidate: str
    incumbent_score: float | None
    candidate_score: float | None
    lenient_score: float | None  # the candidate's score if form is ignored


@dataclass(frozen=True)
class FormatFix:
    """One way to fix the form. target: id of the changed candidate. commands: in order, to
    copy.
    """

    what: str
    target: str
    commands: Sequence[str]


@dataclass(frozen=True)
class FormatFailure:
    """One suite with FORMAT MISMATCH. Differences: shares of 1, candidate − incumbent."""

    suite: str
    rules: Mapping[str, int]  # number of breaks in the candidate's answers, by rule
    meanings: Mapping[str, str]  # meaning of each rule
    strict_delta: float
    lenient_delta: float
    remedy: FormatRemedy
    mends: Sequence[FormatFix]  # the most likely fix first
    examples: Sequence[FormatExample]


def find_format_failures(
    comparison: Comparison, *, standalone: bool = False
) -> Sequence[FormatFailure]:
    """Returns a failure for each suite that the candidate lost only by form.

    Args:
        standalone: the comparison comes from a `gate run` without a route, so its commands are
            `gate run` too.
    """
    reports = (
        {suite.suite: suite for suite in comparison.verdict.suites}
        if comparison.verdict
        else {}
    )
    sides = [(side, reports.get(side.plan.suite)) for side in comparison.suites]
    return [
        failure
        for side, report in sides
        if report is not None and report.outcome == "harness_mismatch"
        for failure in _failure_of_suite(comparison, side, report, standalone=standalone)
    ]


def _failure_of_suite(
    comparison: Comparison,
    side: SuiteAnswers,
    report: SuiteReport,
    *,
    standalone: bool,
) -> Sequence[FormatFailure]:
    """Explains one suite's format mismatch; empty if no rule or no lenient score is known."""
    rules = report.figures.rules
    scorer = side.pin.scorer.partition("@")[0]
    remedy = find_remedy(rules, scorer)
    lenient = report.figures.lenient
    if remedy is None or lenient is None:
        return ()
    return (
        FormatFailure(
            suite=report.suite,
            rules=rules,
            meanings={rule: find_format_rule(rule, scorer).what for rule in rules},
            strict_delta=report.delta,
            lenient_delta=lenient.delta,
            remedy=remedy,
            mends=_list_fixes(comparison, remedy, standalone=standalone),
            examples=_build_examples(side, report),
        ),
    )


def _list_fixes(
    comparison: Comparison,
    remedy: FormatRemedy,
    *,
    standalone: bool,
) -> Sequence[FormatFix]:
    """Lists the changes of a target that fix the form, each with its commands."""
    fixes = [
        (
            f"a line in the prompt: “{remedy.prompt}”",
            patch_candidate(comparison.candidate, remedy),
        )
    ]
    if remedy.json_mode:
        what = "`response_format: json_object`, if the provider supports it"
        fixes.append((what, add_json_mode(comparison.candidate)))
    return [
        FormatFix(
            what,
            target.id,
            _build_fix_commands(comparison, target, standalone=standalone),
        )
        for what, target in fixes
    ]


def _build_fix_commands(
    comparison: Comparison,
    target: Target,
    *,
    standalone: bool,
) -> Sequence[str]:
    if standalone:
        return (build_rerun_command(comparison, target),)
    return build_model_add_command(target), _build_proposal_command(target, comparison.proposal)


def _build_proposal_command(target: Target, proposal: Proposal) -> str:
    """Writes the command that proposes a fixed target with the terms of the failed proposal.

    `--descends-from` charges the candidate's looks to the fixed target, which was tuned on
    them.
    """
    arguments = ["swapproof", "proposal", "create", proposal.route, target.id]
    arguments += ["--claim", proposal.claim.value]
    margins = {plan.margin for plan in proposal.plans}
    if proposal.claim is not Claim.SUPERIOR and len(margins) == 1:
        arguments += ["--margin", f"{min(margins):g}"]
    savings = {plan.min_saving for plan in proposal.plans}
    if proposal.claim is Claim.CHEAPER and len(savings) == 1:
        arguments += ["--min-saving", f"{min(savings):g}"]
    arguments += ["--descends-from", proposal.candidate]
    if proposal.reason:
        arguments += ["--reason", proposal.reason]
    return shlex.join(arguments)


def _build_examples(side: SuiteAnswers, report: SuiteReport) -> Sequence[FormatExample]:
    """Builds the examples of the items that the verdict names."""
    example_items = report.figures.examples
    incumbent_samples = _first_samples(side.incumbent)
    candidate_samples = _first_samples(side.candidate, broken=True)
    return [
        _build_example(incumbent_samples[item], candidate_samples[item])
        for item in example_items
        if item in incumbent_samples and item in candidate_samples
    ]


def _first_samples(samples: Sequence[Sample], *, broken: bool = False) -> Mapping[str, Sample]:
    """Returns one sample of each item: of the first epoch, or with `broken` the first that
    broke a rule.
    """
    samples_by_item: dict[str, Sample] = {}
    for sample in samples:
        if sample.item not in samples_by_item or (
            broken and sample.rule and not samples_by_item[sample.item].rule
        ):
            samples_by_item[sample.item] = sample
    return samples_by_item


def _build_example(incumbent: Sample, candidate: Sample) -> FormatExample:
    return FormatExample(
        item=candidate.item,
        rule=candidate.rule,
        prompt=candidate.prompt or incumbent.prompt,
        incumbent=incumbent.answer or incumbent.error_text,
        candidate=candidate.answer or candidate.error_text,
        incumbent_score=incumbent.strict,
        candidate_score=candidate.strict,
        lenient_score=candidate.lenient,
    )
