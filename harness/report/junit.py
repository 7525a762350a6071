"""A report as JUnit XML: one test case per suite, as CI systems show them."""

from xml.etree import ElementTree as ET

from harness.report.contents import Report, SuitePart

PROBLEMS = {
    "failed": "failure",
    "harness_mismatch": "failure",
    "inconclusive": "failure",
    "infra_error": "error",
    "open": "error",
}


def junit(report: Report) -> str:
    """Counts and messages; times are the sums of the answers' times."""
    found = report.comparison
    suite = ET.Element(
        "testsuite",
        name=f"swapgate: {found.candidate.name} against {found.incumbent.name}",
        tests=str(len(report.suites)),
        failures=str(_count(report, "failure")),
        errors=str(_count(report, "error")),
        timestamp=f"{report.made_at:%Y-%m-%dT%H:%M:%S}",
    )
    for part in report.suites:
        _case(suite, part)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def outcome_of(part: SuitePart) -> str:
    return part.report.outcome if part.report else "open"


def _count(report: Report, problem: str) -> int:
    return sum(PROBLEMS.get(outcome_of(part)) == problem for part in report.suites)


def _case(suite: ET.Element, part: SuitePart) -> None:
    answers = [*part.side.incumbent, *part.side.candidate]
    case = ET.SubElement(
        suite,
        "testcase",
        classname="swapgate.gate",
        name=f"{part.side.plan.suite} ({part.side.plan.role.value})",
        time=f"{sum(each.duration_s for each in answers):.3f}",
    )
    outcome = outcome_of(part)
    problem = PROBLEMS.get(outcome)
    reason = part.report.reason if part.report else "the gate is still open"
    if problem:
        ET.SubElement(case, problem, type=outcome, message=_text(reason))
    else:
        ET.SubElement(case, "system-out").text = _text(reason)


def _text(words: str) -> str:
    """XML has no control characters, not even as references."""
    return "".join(each for each in words if each >= " " or each in "\t\n")
