"""Renders a report as JUnit XML: a test case for each suite, with the reason as message."""

from typing import Final
from xml.etree import ElementTree as ET

from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import SuiteReport
from harness.proposals.report.content import Report, SuiteSection

ELEMENTS_BY_OUTCOME: Final = {
    "failed": "failure",
    "harness_mismatch": "failure",
    "inconclusive": "failure",
    "infra_error": "error",
    "open": "error",
}


Case = tuple[str, float, str, str]  # (name, seconds, outcome, reason)


def render_junit(report: Report) -> str:
    """Renders counts and messages; times are the sums of the answers' times.

    A missing verdict, or NOT MEASURED, is an error. Any other verdict except a pass is a
    failure. A suite fails only if it decides alone and the verdict did not pass.
    """
    comparison = report.comparison
    passed = comparison.verdict is not None and comparison.verdict.outcome == "passed"
    # A suite that does not decide alone is no failure of the candidate.
    cases = [(_build_case(part), part.decides and not passed) for part in report.suites]
    # The joint claim of several suites has no time, because each suite reports its own.
    cases += [
        ((_title(report_), 0.0, report_.outcome, report_.reason), not passed)
        for report_ in report.together
    ]
    problems = [
        ELEMENTS_BY_OUTCOME.get(case[2], "") if counts else "" for case, counts in cases
    ]
    suite = ET.Element(
        "testsuite",
        name=f"swapproof: {comparison.candidate.name} against {comparison.incumbent.name}",
        tests=str(len(cases)),
        failures=str(problems.count("failure")),
        errors=str(problems.count("error")),
        timestamp=f"{report.made_at:%Y-%m-%dT%H:%M:%S}",
    )
    for ((name, duration_s, outcome, reason), _), problem in zip(cases, problems, strict=True):
        case = ET.SubElement(
            suite,
            "testcase",
            classname="swapproof.gate",
            name=name,
            time=f"{duration_s:.3f}",
        )
        if problem:
            ET.SubElement(
                case,
                problem,
                type=outcome,
                message=_remove_controls(reason),
            )
        else:
            ET.SubElement(case, "system-out").text = _remove_controls(reason)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _build_case(part: SuiteSection) -> Case:
    """Builds the test case of one suite."""
    report = part.report
    answers = [*part.side.incumbent, *part.side.candidate]
    duration_s = sum(answer.duration_s for answer in answers)
    if report is None:
        return (
            _title(part.side.plan),
            duration_s,
            "open",
            "the gate is still open",
        )
    return _title(part.side.plan), duration_s, report.outcome, report.reason


def _title(plan_or_report: SuitePlan | SuiteReport) -> str:
    return f"{plan_or_report.suite} ({plan_or_report.role.value})"


def _remove_controls(text: str) -> str:
    """Removes control characters, which XML does not allow even as references."""
    return "".join(character for character in text if character >= " " or character in "\t\n")
