"""Converts the result of a provider's last check to column values and back."""

from dataclasses import asdict, fields

from harness.domain.providers.probe import (
    ProbeFinding,
    ProbeStatus,
    ProbeSubject,
    ProviderCheck,
)
from harness.store.rows import JsonIn, Row, Values


def provider_check_to_row(check: ProviderCheck) -> Values:
    values = {each.name: getattr(check, each.name) for each in fields(ProviderCheck)}
    return {**values, "findings": [asdict(each) for each in check.findings]}


def provider_check_from_row(row: Row) -> ProviderCheck:
    values = {each.name: getattr(row, each.name) for each in fields(ProviderCheck)}
    return ProviderCheck(**{**values, "findings": tuple(map(_finding, row.findings))})


def _finding(found: JsonIn) -> ProbeFinding:
    return ProbeFinding(
        ProbeSubject(found["subject"]),
        ProbeStatus(found["status"]),
        found["found"],
        found["next_step"],
    )
