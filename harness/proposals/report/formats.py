"""Renders a report as one HTML file, which is its Markdown with drawings of the intervals, and
as JUnit XML. Models' texts are text in both, never markup.

No content is chosen here: `content` selects it, and `markdown` has the sentences.
"""

from collections.abc import Iterator
from html import escape
from typing import Final
from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

from harness.frame.formatting import format_points, format_points_interval
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import SuiteReport
from harness.proposals.report.content import Report, SuiteSection
from harness.proposals.report.markdown import render_markdown

_STYLE: Final = """
body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto;font-size:.9rem}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid #d5dbe3;white-space:nowrap}
pre{background:#f3f5f8;padding:.7rem;overflow-x:auto;white-space:pre-wrap}
code{font-size:.9em}figure{margin:1rem 0}figcaption{font-size:.9rem;color:#4a5666}
@media(prefers-color-scheme:dark){body{background:#12171f;color:#e4e9f0}
pre{background:#1c2430}th,td{border-color:#36404e}figcaption{color:#a9b4c2}}
"""
_WIDTH: Final = 640
_MIDDLE: Final = _WIDTH / 2


def render_page(report: Report) -> str:
    """Renders the whole document, which loads no other file."""
    comparison = report.comparison
    title = f"{comparison.candidate.name} instead of {comparison.incumbent.name}"
    head, _, rest = render_markdown(report).partition("\n")
    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    verdict = comparison.verdict
    drawings = "".join(map(_drawing, verdict.suites)) if verdict else ""
    return "".join(_document(title, render(head) + drawings + render(rest)))


def _document(title: str, body: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
    yield f"<body>{body}</body></html>\n"


def _drawing(suite: SuiteReport) -> str:
    """Draws the difference with its interval, between 100 points worse and 100 better."""
    if suite.ci_low is None or suite.ci_high is None:
        return ""
    low, at, high = (_x(share) for share in (suite.ci_low, suite.delta, suite.ci_high))
    words = (
        f"{escape(suite.suite)}: {format_points(suite.delta)} points (95 % interval "
        f"{format_points_interval(suite.ci_low, suite.ci_high)}); left of the line the "
        "candidate is worse"
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} 40" width="100%" role="img" '
        f'stroke="currentColor" aria-label="{words}">'
        f'<line x1="{_MIDDLE}" x2="{_MIDDLE}" y1="0" y2="40" stroke-dasharray="3 3"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="20" y2="20" stroke-width="3"/>'
        f'<circle cx="{at:.1f}" cy="20" r="6" fill="currentColor"/></svg>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _x(share: float) -> float:
    """Returns the x coordinate of a difference, in units of the drawing; 0 is in the middle."""
    return _MIDDLE * (1.0 + max(-1.0, min(share, 1.0)))


PROBLEMS = {
    "failed": "failure",
    "harness_mismatch": "failure",
    "inconclusive": "failure",
    "infra_error": "error",
    "open": "error",
}


Case = tuple[str, float, str, str]  # (name, seconds, outcome, reason)


def render_junit(report: Report) -> str:
    """Renders counts and messages; times are the sums of the answers' times.

    A verdict that is not measured, or still open, is an error; any other verdict but a pass is
    a failure. A suite fails only if it decides alone and the verdict did not pass.
    """
    comparison = report.comparison
    passed = comparison.verdict is not None and comparison.verdict.outcome == "passed"
    # A suite without an own decision is not a failure of the candidate.
    cases = [(_case(part), part.decides and not passed) for part in report.suites]
    # The joint claim of several suites has no time, because each suite reports its own.
    cases += [((_title(r), 0.0, r.outcome, r.reason), not passed) for r in report.together]
    problems = [PROBLEMS.get(case[2], "") if counts else "" for case, counts in cases]
    suite = ET.Element(
        "testsuite",
        name=f"swapgate: {comparison.candidate.name} against {comparison.incumbent.name}",
        tests=str(len(cases)),
        failures=str(problems.count("failure")),
        errors=str(problems.count("error")),
        timestamp=f"{report.made_at:%Y-%m-%dT%H:%M:%S}",
    )
    for ((name, duration_s, outcome, reason), _), problem in zip(cases, problems, strict=True):
        case = ET.SubElement(
            suite,
            "testcase",
            classname="swapgate.gate",
            name=name,
            time=f"{duration_s:.3f}",
        )
        if problem:
            ET.SubElement(case, problem, type=outcome, message=_text(reason))
        else:
            ET.SubElement(case, "system-out").text = _text(reason)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(part: SuiteSection) -> Case:
    """Builds the test case of one suite."""
    report = part.report
    answers = [*part.side.incumbent, *part.side.candidate]
    duration_s = sum(answer.duration_s for answer in answers)
    if report is None:
        return _title(part.side.plan), duration_s, "open", "the gate is still open"
    return _title(part.side.plan), duration_s, report.outcome, report.reason


def _title(of: SuitePlan | SuiteReport) -> str:
    return f"{of.suite} ({of.role.value})"


def _text(words: str) -> str:
    """Removes control characters, which XML does not allow even as references."""
    return "".join(word for word in words if word >= " " or word in "\t\n")
