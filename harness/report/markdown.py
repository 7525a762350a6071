"""A report as Markdown. What models wrote stands in fences: it is data, never markup."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from harness.control import monthly
from harness.control.reports import ArmFigures
from harness.control.standing import Proof, Standing
from harness.domain.evaluation import SuiteReport, Verdict
from harness.domain.pins import ServedModel, told
from harness.domain.targets import Target
from harness.gate.cases import cost_of
from harness.gate.remedies import patch_words, remedy_of
from harness.gate.words import percent, points, spending
from harness.report.contents import Report, SuitePart, TagRow, Telling

SHOWN: Final = 700
_FENCE: Final = re.compile("`{3,}")
HEADS: Final = {
    "passed": "may replace",
    "failed": "must not replace",
    "harness_mismatch": "loses by form, not by substance, against",
    "inconclusive": "is not shown to be good enough to replace",
    "infra_error": "could not be measured against",
}


def markdown(report: Report) -> str:
    """The whole document, with one empty line at most between its parts."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    found = report.comparison
    yield from _verdict(report, found.verdict)
    yield from ("", "## What was compared", "")
    yield from _table(
        ("suite", "verdict", "candidate − incumbent", "95 % interval", "allowed loss",
         "wins / ties / losses", "items used"),
        [*(_suite_row(part) for part in report.suites), *map(_report_row, report.together)],
    )  # fmt: skip
    yield ""
    yield "Differences are points of 100. A win is an item on which the candidate does better."
    if any(part.report and part.report.how == "early" for part in report.suites):
        yield "The gate stopped early: an interval at that moment is not adjusted for it."
    if found.stopped_early:
        yield from ("", found.stopped_early)
    for part in report.suites:
        yield from _tags(part)
    yield from ("", "## Cost and time of an answer", "")
    yield from _arms(report.arms)
    yield from _claimed_cost(found.verdict)
    yield from _judging(report)
    yield from ("", "## The route's bill", "", monthly.words(found.forecast))
    if why := monthly.basis(found.forecast):
        yield why
    if report.telling:
        yield from ("", "## The most telling answers", "")
        for each in report.telling:
            yield from _telling(each)
    yield from _pins(report)


def _verdict(report: Report, verdict: Verdict | None) -> Iterator[str]:
    found = report.comparison
    a, b = _name(found.incumbent), _name(found.candidate)
    if verdict is None:
        yield f"# No verdict yet: {b} against {a} on route `{found.proposal.route}`"
        yield from ("", found.proposal.closed_because or "The gate is still open.")
        return
    yield f"# {verdict.words}: {b} {HEADS[verdict.outcome]} {a}"
    if found.standing is not None and found.standing.proof is Proof.STALE:
        yield from ("", f"**STALE**, no proof any more: {_cell(found.standing.why)}.")
    yield from ("", f"Route `{found.proposal.route}`. {verdict.reason}")
    claim = found.proposal.claim.value
    said = {
        "superior": "The candidate had to be better.",
        "non_inferior": "The candidate had to be at most the allowed loss worse.",
        "cheaper_and_not_worse": "The candidate had to cost less, by the declared share, and "
        "be at most the allowed loss worse.",
    }[claim]
    why = f" Why it was proposed: {found.proposal.reason}." if found.proposal.reason else ""
    yield from ("", f"{said}{why}")
    for part in report.suites:
        yield from _form(part, found.candidate)


def _form(part: SuitePart, candidate: Target) -> Iterator[str]:
    report = part.report
    rules = report.details.get("rules") if report else None
    remedy = remedy_of(rules) if isinstance(rules, Mapping) else None
    if report is None or remedy is None or not isinstance(rules, Mapping):
        return
    counts = ", ".join(f"`{rule}` {count}" for rule, count in rules.items())
    yield from ("", f"{report.suite}: the candidate broke rules of form: {counts}.")
    if report.outcome != "harness_mismatch":
        return
    yield from ("", f"### {report.suite}: what to change", "", f"The candidate {remedy.what}.")
    yield from ("", *_lenient(report), "One of these would help:", "")
    yield f"- a line of the prompt: “{remedy.prompt}”"
    if remedy.json_mode:
        yield "- `response_format: {type: json_object}`, where the provider knows it"
    yield f"- a parser in your application that can {remedy.parser}"
    plain = f"{candidate.provider}/{candidate.model}"
    yield from ("", "The first makes another target, which is evaluated anew:", "")
    yield from ("```", patch_words(remedy, plain), "```", "")
    for each in part.form:
        yield from _telling(each)


def _lenient(report: SuiteReport) -> Iterator[str]:
    lenient = report.details.get("lenient")
    if isinstance(lenient, Mapping):
        yield (
            f"As scored {points(report.delta)} points; with form forgiven on both sides "
            f"{points(float(str(lenient['delta'])))}."
        )


def _suite_row(part: SuitePart) -> Sequence[str]:
    plan, report = part.side.plan, part.report
    if report is None:
        return (
            plan.suite,
            "open",
            "–",
            "–",
            f"{plan.margin * 100:g}",
            "–",
            f"0 of {plan.n_max}",
        )
    return _report_row(report)


def _report_row(report: SuiteReport) -> Sequence[str]:
    return (
        f"{report.suite} ({report.role.value})",
        report.outcome.replace("_", " "),
        points(report.delta),
        _interval(report),
        f"{report.margin * 100:g}",
        f"{report.wins} / {report.ties} / {report.losses}",
        f"{report.n_used} of {report.n_max}",
    )


def _claimed_cost(verdict: Verdict | None) -> Iterator[str]:
    """The paired evidence of a claim about cost."""
    claimed = [(each, cost_of(each)) for each in (verdict.suites if verdict else ())]
    rows = [
        (
            each.suite,
            str(cost["outcome"]),
            _money(_per_1000(cost["incumbent_usd"])),
            _money(_per_1000(cost["candidate_usd"])),
            _share(cost["saving"]),
            f"{_share(cost['saving_low'])} to {_share(cost['saving_high'])}",
            _share(cost["min_saving"]),
            f"{cost['n_used']}",
        )
        for each, cost in claimed
        if cost is not None
    ]
    if rows:
        heads = ("suite", "cheaper", "incumbent, $ per 1,000 items", "candidate",
                 "saving", "95 % interval", "claimed", "items used")  # fmt: skip
        yield ""
        yield from _table(heads, rows)
        yield ""
        yield "Paired: both models' costs of the same items, in the order of the scores."


def _per_1000(usd: float | None) -> float | None:
    return None if usd is None else usd * 1000


def _share(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _interval(report: SuiteReport) -> str:
    if report.ci_low is None or report.ci_high is None:
        return "–"
    return f"{points(report.ci_low)} to {points(report.ci_high)}"


def _tags(part: SuitePart) -> Iterator[str]:
    if not part.tags:
        return
    yield from ("", f"### {part.side.plan.suite} by tag", "")
    heads = ("tag", "items", "incumbent", "candidate", "difference", "wins / losses")
    yield from _table(heads, [_tag_row(row) for row in part.tags])
    yield from ("", "An item may have several tags. No row alone is evidence: there are many.")


def _tag_row(row: TagRow) -> Sequence[str]:
    return (
        _cell(row.tag),
        str(row.items),
        f"{row.incumbent * 100:.1f}",
        f"{row.candidate * 100:.1f}",
        points(row.delta),
        f"{row.wins} / {row.losses}",
    )


def _arms(arms: Sequence[tuple[str, ArmFigures]]) -> Iterator[str]:
    heads = ("", "answers", "$ per 1,000", "95 % interval", "median", "95 % interval",
             "95th percentile", "calls that failed")  # fmt: skip
    yield from _table(heads, [_arm_row(name, figures) for name, figures in arms])
    (_, ours), (_, theirs) = arms
    if ours.cost_usd_per_1000 and theirs.cost_usd_per_1000 is not None:
        share = theirs.cost_usd_per_1000 / ours.cost_usd_per_1000
        yield from ("", f"An answer of the candidate costs {share:.2f} times the incumbent's.")


def _judging(report: Report) -> Iterator[str]:
    """What it cost to have answers judged; nothing where no suite has a judge."""
    judged = [part.side for part in report.suites if part.side.pin.judged]
    if judged:
        rows = [
            (side.plan.suite, f"{side.judging.calls:,}", _money(side.judging.usd))
            for side in judged
        ]
        yield ""
        yield from _table(("suite", "calls of its judge", "$ for judging"), rows)


def _arm_row(name: str, figures: ArmFigures) -> Sequence[str]:
    return (
        f"`{name}`",
        f"{figures.samples:,}",
        _money(figures.cost_usd_per_1000),
        _range(figures.cost_interval_usd_per_1000, _money),
        _seconds(figures.p50_s),
        _range(figures.p50_interval_s, _seconds),
        _seconds(figures.p95_s),
        f"{figures.failed:.1%}",
    )


def _range(found: tuple[float, float] | None, words: Callable[[float | None], str]) -> str:
    return "–" if found is None else f"{words(found[0])} to {words(found[1])}"


def _money(usd: float | None) -> str:
    return "unknown" if usd is None else f"{usd:,.4f}".rstrip("0").rstrip(".")


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _telling(each: Telling) -> Iterator[str]:
    change = points(each.candidate_score - each.incumbent_score)
    broken = f", broken rule: {each.rule}" if each.rule else ""
    yield f"### {each.suite}, item {_cell(each.item)}: {change} points{broken}"
    for head, text in (
        ("Asked", each.prompt),
        ("Expected", each.expected),
        (f"Incumbent, {each.incumbent_score * 100:g}", each.incumbent),
        (f"Candidate, {each.candidate_score * 100:g}", each.candidate),
    ):
        if text:
            yield from ("", f"{head}:", "", *_fenced(text))
    yield ""


def _fenced(text: str) -> Sequence[str]:
    """In a fence that is longer than any in the text; its end is cut, and that is said."""
    shown = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " […]"
    longest = max((len(found) for found in _FENCE.findall(shown)), default=2)
    fence = "`" * (longest + 1)
    return (f"{fence}text", *shown.splitlines(), fence)


def _pins(report: Report) -> Iterator[str]:
    found = report.comparison
    yield from ("", "## What was pinned", "")
    rows = [
        (
            _cell(pin.name),
            _cell(pin.version),
            f"`{pin.data_sha256[:12]}`",
            f"`{_cell(pin.scorer_alone)}`",
            f"`{pin.judge_pin}`" if pin.judge_pin else "–",
            f"`{pin.template}`",
            f"`{pin.digest[:12]}`",
        )
        for pin in (part.side.pin for part in report.suites)
    ]
    heads = ("suite", "version", "data", "scorer", "judge", "prompt and settings", "together")
    yield from _table(heads, rows)
    yield ""
    parts = [part.side.served for part in report.suites]
    for head, target, served in (
        ("Incumbent", found.incumbent, {s for each in parts for s in each.incumbent}),
        ("Candidate", found.candidate, {s for each in parts for s in each.candidate}),
    ):
        yield f"- {head} `{target.id}`; its provider reported serving {_reported(served)}."
    if judges := {s for each in parts for s in each.judge}:
        yield f"- The judge's provider reported serving {_reported(judges)}."
    for part in report.suites:
        plan = part.side.plan
        how = f"{plan.epochs} epoch(s), order seed {plan.order_seed}"
        look = spending(plan.look, plan.alpha, plan.spend)
        yield f"- {plan.suite}: {how}" + (f"; {look}" if look else "") + "."
    verdict = found.verdict
    if verdict is not None:
        yield f"- Verdict `{verdict.id}`, of {verdict.decided_at:%Y-%m-%d %H:%M} UTC,"
        yield f"  {_until(verdict, found.standing)}."
        yield from ("", "## To check it", "", "```", f"swapgate replay {verdict.id}", "```")
        yield from ("", "decides again from the stored answers, and must give the same bytes.")


def _reported(served: Iterable[ServedModel]) -> str:
    return ", ".join(f"`{_cell(each.label)}`" for each in told(served)) or "nothing"


def _until(verdict: Verdict, standing: Standing | None) -> str:
    if standing is None or standing.holds:
        return f"holds until {verdict.expires_at:%Y-%m-%d}"
    return f"proof no more: **{standing.proof.value.upper()}**, {_cell(standing.why)}"


def _name(target: Target) -> str:
    return f"`{target.name}`"


def _cell(text: str) -> str:
    """Of a table: no line breaks, no column marks, no markup."""
    return re.sub(r"([|`*_<>\[\]\\])", r"\\\1", " ".join(text.split()))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
