"""Renders a report as JUnit XML for CI systems: one test case per suite, with the verdict's
reason, and a failure or an error where the suite was not passed.
"""

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.evals.verdict import SuiteReport
from harness.report.content import Report, SuiteSection

PROBLEMS = {
    "failed": "failure",
    "harness_mismatch": "failure",
    "inconclusive": "failure",
    "infra_error": "error",
    "open": "error",
}


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    duration_s: float
    outcome: str
    reason: str
    decides: bool = True


def render_junit(report: Report) -> str:
    """Counts and messages; times are the sums of the answers' times."""
    comparison = report.comparison
    cases = [
        *map(_of_part, report.suites),
        # Of several suites as one: their answers' times stand at the suites.
        *(_Case(_title(r), 0.0, r.outcome, r.reason) for r in report.together),
    ]
    # A suite that decided nothing by itself has not failed a candidate.
    passed = comparison.verdict is not None and comparison.verdict.outcome == "passed"
    problems = [
        PROBLEMS.get(case.outcome, "") if case.decides and not passed else "" for case in cases
    ]
    suite = ET.Element(
        "testsuite",
        name=f"swapgate: {comparison.candidate.name} against {comparison.incumbent.name}",
        tests=str(len(cases)),
        failures=str(problems.count("failure")),
        errors=str(problems.count("error")),
        timestamp=f"{report.made_at:%Y-%m-%dT%H:%M:%S}",
    )
    for case, problem in zip(cases, problems, strict=True):
        _write(suite, case, problem)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _of_part(part: SuiteSection) -> _Case:
    plan, report = part.side.plan, part.report
    answers = [*part.side.incumbent, *part.side.candidate]
    return _Case(
        name=_title(plan),
        duration_s=sum(answer.duration_s for answer in answers),
        outcome=report.outcome if report else "open",
        reason=report.reason if report else "the gate is still open",
        decides=part.decides,
    )


def _title(of: SuitePlan | SuiteReport) -> str:
    return f"{of.suite} ({of.role.value})"


def _write(suite: ET.Element, found: _Case, problem: str) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname="swapgate.gate",
        name=found.name,
        time=f"{found.duration_s:.3f}",
    )
    if problem:
        ET.SubElement(case, problem, type=found.outcome, message=_text(found.reason))
    else:
        ET.SubElement(case, "system-out").text = _text(found.reason)


def _text(words: str) -> str:
    """XML has no control characters, not even as references."""
    return "".join(word for word in words if word >= " " or word in "\t\n")
