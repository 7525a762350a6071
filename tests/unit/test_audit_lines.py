"""A table of the audit log folds what says nothing but which rows were written."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard.text import audit_text
from harness.cli.operations.audit import _line
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.state_audit import ROWS_WRITTEN, fold_writes

pytestmark = pytest.mark.req("F5")
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def event(number: int, action: str = ROWS_WRITTEN, actor: str = "swapgate") -> AuditEvent:
    return AuditEvent(number, AT, actor, action, "database", {}, "0" * 64, "1" * 64)


def test_neighbours_of_one_author_and_subject_are_one_line_and_nothing_else_is() -> None:
    events = [
        event(1),
        event(2),
        event(3, "route.create"),
        event(4, "route.create"),
        event(5),
        event(6, actor="ann"),
        replace(event(7, actor="ann"), key="k_1"),
        replace(event(8, actor="ann"), key="k_1", subject="run r_1"),
    ]
    assert [[one.number for one in group] for group in fold_writes(events)] == [
        [1, 2], [3], [4], [5], [6], [7], [8],
    ]  # fmt: skip


def test_the_command_line_and_the_page_name_how_many_they_fold() -> None:
    oldest_first = [event(11), event(12), event(13, "route.create")]
    lines = [_line(group) for group in fold_writes(oldest_first)]
    assert [line[0] for line in lines] == ["11 to 12", 13]
    assert [line[3] for line in lines] == ["rows.written (2 times)", "route.create"]

    page = audit_text.table(oldest_first[::-1], AT)
    assert "11 to 12" in page
    assert page.count("rows.written (2 times)") == 1
    assert page.count("route.create") == 1
