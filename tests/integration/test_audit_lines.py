"""The audit log leaves the database as lines on stdout, and a printed head shows a cut tail."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.control.operations.audit_export import (
    HEAD_EVERY,
    PROMOTION,
    AuditLines,
    head_line,
    read_heads,
)
from harness.domain.errors import InputError, SignatureInvalid
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.audit import AuditPosition
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import installed
from tests.support.site.signing_keys import CONTROL
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5")


class Printed:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.write = AuditLines(CONTROL, self.lines.append)

    @property
    def heads(self) -> list[int]:
        found = [json.loads(line) for line in self.lines]
        return [line["audit_head"] for line in found if "audit_head" in line]

    @property
    def events(self) -> list[dict[str, object]]:
        found = [json.loads(line) for line in self.lines]
        return [line["audit"] for line in found if "audit" in line]


def record(world: SmallInstallation, action: str = "route.describe") -> int:
    with world.store.write() as tx:
        return tx.audit.append(SYSTEM, action, "route chat", {}).number


def test_each_new_event_is_a_line_and_a_head_follows_each_hour_and_each_promotion(
    world: SmallInstallation,
) -> None:
    printed, ctx = Printed(), world.context()
    first = record(world)
    assert printed.write(ctx)
    assert (printed.events, printed.heads) == ([], [first])

    record(world)
    assert not printed.write(ctx)
    assert printed.write(ctx)
    assert [event["number"] for event in printed.events] == [first + 1]
    assert printed.heads == [first]
    promoted = record(world, PROMOTION)
    printed.write(ctx)
    assert printed.heads == [first, promoted]
    world.clock.jump(HEAD_EVERY.total_seconds())
    printed.write(ctx)
    assert printed.heads == [first, promoted, promoted]


def test_a_head_that_the_control_plane_did_not_sign_is_refused(
    world: SmallInstallation,
) -> None:
    line = head_line(AuditPosition(3, "a" * 64), world.clock.now(), CONTROL)
    with pytest.raises(SignatureInvalid):
        read_heads(line.replace('"audit_head":3', '"audit_head":4'), CONTROL)
    with pytest.raises(InputError, match="no printed head"):
        read_heads("nothing", CONTROL)


def test_audit_verify_takes_a_printed_head_and_a_file_of_lines(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        cli.run("config", "apply")
        with cli.world.store.read() as tx:
            (event,) = tx.audit.tail(1)
        line = head_line(AuditPosition(event.number, event.mac), event.at, CONTROL)
        file = tmp_path / "collected.log"
        file.write_text(f"started\n{line}\n", "utf-8")
        cli.run("audit", "verify", "--head", str(file))
        cli.run("audit", "verify", "--head", line)
        gone = head_line(AuditPosition(event.number + 5, event.mac), event.at, CONTROL)
        cli.run("audit", "verify", "--head", gone, exits=1)
        with owned(cli.world.store) as db:
            db.execute(sa.text("DELETE FROM audit_event WHERE number > 1"))
        said = cli.run("audit", "verify", exits=1).output
        assert "of the audit log, and the log lacks this event" in " ".join(said.split())
