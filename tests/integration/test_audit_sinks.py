"""Copies of the audit log outside the database: to a collector over HTTP, to syslog over TCP
and TLS, to a file; and the log compared with the checkpoints that these have kept.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.cli.program import program
from harness.control.operations import alerts, keys, queries
from harness.control.operations.audit_sinks import (
    AuditSinkState,
    list_audit_sinks,
    resend,
    send_new_events,
)
from harness.domain.errors import ConfigError
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import (
    GENESIS,
    AuditEvent,
    AuditPosition,
    event_mac,
)
from tests.integration.test_audit_anchor import cut
from tests.support.site.alert_receiver import Receiver
from tests.support.site.syslog_server import SyslogServer
from tests.support.store.raw_rows import Database

pytestmark = pytest.mark.req("G7")


class House:
    """An installation whose audit log goes to `url`, opened anew for every turn, as after a
    restart.
    """

    def __init__(self, folder: Path, database: str, **sink: object) -> None:
        self.config = folder / "swapgate.yaml"
        settings = {
            "home": str(folder / "home"),
            "database_url": database,
            "audit": {"timeout_s": 30, "sinks": [{"name": "siem", **sink}]},
        }
        self.config.write_text(yaml.safe_dump(settings))
        with closing(self.open()) as installation:
            upgrade_database(installation.settings)

    def open(self) -> Installation:
        return open_installation(self.config, create_secret=True)

    def act(self, name: str) -> None:
        """Does something that the log notes."""
        with closing(self.open()) as installation:
            keys.create_key(installation.context, SYSTEM, name, secret=installation.secret)

    def send(self) -> None:
        with closing(self.open()) as installation:
            send_new_events(installation.context)

    def state(self) -> AuditSinkState:
        with closing(self.open()) as installation:
            (state,) = list_audit_sinks(installation.context)
        return state

    def is_alerted(self) -> bool:
        with closing(self.open()) as installation:
            return alerts.is_open(installation.context, AlertKind.AUDIT_EXPORT, "siem")


def numbers(lines: list[str]) -> list[int]:
    return [event["number"] for event in map(json.loads, lines) if "number" in event]


def posted(receiver: Receiver) -> list[str]:
    return [line for got in receiver.got for line in got.body.decode().splitlines()]


def test_a_collector_gets_every_event_in_order_over_outages_and_restarts(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEM_TOKEN", "the token")
    receiver = Receiver()
    with receiver.up():
        url = f"http://127.0.0.1:{receiver.port}/collect"
        house = House(tmp_path, database_url, url=url, token_env="SIEM_TOKEN")  # noqa: S106
        house.act("first")
        house.send()
        house.send()
        sent = posted(receiver)
    assert numbers(sent) == list(range(1, house.state().number + 1))
    assert json.loads(sent[-1])["checkpoint"] == house.state().number
    assert receiver.got[0].headers["authorization"] == "Bearer the token"

    house.act("second")
    for _ in range(3):
        house.send()
    assert house.is_alerted()
    assert "cannot be reached" in house.state().error
    receiver.status = 503
    with receiver.up():
        house.send()
        assert "it answered 503" in house.state().error
        receiver.got.clear()
        receiver.status = 200
        house.send()

        assert numbers(sent + posted(receiver)) == list(range(1, house.state().number + 1))

        receiver.got.clear()
        command = ["audit", "resend", "siem", "--after", "1", "--reason", "its disk was lost"]
        done = CliRunner().invoke(program, ["--config", str(house.config), *command])
        assert done.exit_code == 0, done.output
        house.send()
        assert numbers(posted(receiver)) == list(range(2, house.state().number + 1))

    assert (house.state().waiting, house.state().error) == (0, "")
    assert not house.is_alerted()


def test_the_alert_of_a_sink_ends_once_it_goes_on_from_another_event(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Its receiver has what the log lacks, and a person lets it go on, as the runbook says."""
    receiver = Receiver()
    with receiver.up():
        house = House(tmp_path, sqlite_url, url=f"http://127.0.0.1:{receiver.port}/collect")
        house.act("first")
        house.send()
        with closing(house.open()) as installation, installation.store.write() as tx:
            (known,) = tx.audit_exports.all()
            lost = AuditPosition(known.position.number, "f" * 64)
            tx.audit_exports.save(replace(known, position=lost))
        for _ in range(3):
            house.send()
        assert house.is_alerted()

        with closing(house.open()) as installation:
            end = known.position.number
            resend(installation.context, SYSTEM, "siem", after=end, reason="a restore")
        house.send()

    assert (house.state().waiting, house.state().error) == (0, "")
    assert not house.is_alerted()


@pytest.mark.parametrize("left", [[], ["other"]])
def test_the_alert_of_a_sink_ends_when_the_configuration_drops_it(
    left: list[str], sqlite_url: str, tmp_path: Path
) -> None:
    house = House(tmp_path, sqlite_url, url="http://127.0.0.1:1/collect")
    house.act("first")
    for _ in range(3):
        house.send()
    assert house.is_alerted()

    settings = yaml.safe_load(house.config.read_text())
    settings["audit"]["sinks"] = [
        {"name": name, "url": f"file://{tmp_path}/{name}.jsonl"} for name in left
    ]
    house.config.write_text(yaml.safe_dump(settings))
    house.send()

    assert not house.is_alerted()


class GoesBack:
    """Sinks that somebody lets go back once, while a receiver takes a batch."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._done = False

    def names(self) -> Sequence[str]:
        return ["siem"]

    def takes_events(self, sink: str) -> bool:
        return sink == "siem"

    def send(self, sink: str, events: Sequence[AuditEvent], end: AuditPosition) -> None:
        with closing(self._house.open()) as installation:
            if not self._done:
                resend(installation.context, SYSTEM, sink, after=1, reason="its disk was lost")
                self._done = True
            assert installation.context.audit_sinks is not None
            installation.context.audit_sinks.send(sink, events, end)


@pytest.mark.parametrize("status", [200, 503])
def test_what_is_to_be_sent_again_while_a_batch_is_under_way_is_not_forgotten(
    status: int, database_url: str, tmp_path: Path
) -> None:
    receiver = Receiver()
    with receiver.up():
        house = House(tmp_path, database_url, url=f"http://127.0.0.1:{receiver.port}/collect")
        house.act("first")
        house.act("second")
        house.send()
        house.act("third")
        receiver.status = status
        with closing(house.open()) as installation:
            send_new_events(replace(installation.context, audit_sinks=GoesBack(house)))
        receiver.status = 200
        house.send()

    last = receiver.got[-1].body.decode().splitlines()
    assert numbers(last) == list(range(2, house.state().number + 1))
    assert house.state().waiting == 0


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A new one for localhost, which this machine's clients trust meanwhile."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(  # noqa: S603 - a certificate for this test
        ["openssl", *words.split(), *names, *files],  # noqa: S607
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    return key, cert


@pytest.fixture(params=["tcp", "tls"])
def syslog(request: pytest.FixtureRequest) -> Iterator[SyslogServer]:
    secure = request.param == "tls"
    with SyslogServer(
        request.getfixturevalue("certificate") if secure else None
    ).up() as server:
        yield server


def test_syslog_has_taken_only_what_it_has_read(
    syslog: SyslogServer, sqlite_url: str, tmp_path: Path
) -> None:
    house = House(tmp_path, sqlite_url, url=f"{syslog.scheme}://localhost:{syslog.port}")
    house.act("first")
    syslog.reads = False
    house.send()
    assert house.state().number == 0

    syslog.reads = True
    house.send()

    assert (house.state().waiting, house.state().error) == (0, "")
    assert all(message.startswith("<110>1 ") for message in syslog.messages)
    bodies = [message.split(" - ", 1)[1] for message in syslog.messages]
    assert numbers(bodies) == list(range(1, house.state().number + 1))
    kept = tmp_path / "syslog"
    kept.write_text("\n".join(syslog.messages))
    assert "the events of all 1 checkpoint" in verify(house, kept).stdout


def verify(house: House, anchor: Path, *words: str) -> Result:
    given = ["--config", str(house.config), "audit", "verify", "--anchor", str(anchor)]
    return CliRunner().invoke(program, [*given, *words])


def test_a_log_that_lacks_what_a_checkpoint_outside_names_is_found(
    database_url: str, tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere.jsonl"
    house = House(tmp_path, database_url, url=anchor.as_uri(), events=False)
    for name in ("first", "second"):
        house.act(name)
        house.send()
    whole = verify(house, anchor)
    assert (whole.exit_code, "the events of all 2 checkpoints" in whole.stdout) == (0, True)
    with closing(house.open()) as installation:
        (last,) = queries.list_audit_events(installation.context).items[:1]

    cut(database_url, 1)
    (tmp_path / "home" / "audit.checkpoint").unlink(missing_ok=True)

    shortened = verify(house, anchor, "--json")
    report = json.loads(shortened.stdout)
    assert (shortened.exit_code, report["whole"]) == (1, True)
    assert report["anchor"]["first_missing"] == last.number
    house.send()
    assert "the log was cut" in house.state().error


def write_anew(house: House, url: str) -> None:
    """Writes another actor into the first event, and the chain anew, as who has the secret."""
    with closing(house.open()) as installation:
        with installation.store.read() as tx:
            events = tx.audit.after(0, 1000)
        secret = installation.secret
    database, previous = Database(url), GENESIS
    if database.dialect == "postgresql":
        database.run("ALTER TABLE audit_event DISABLE TRIGGER ALL")
    else:
        database.run("DROP TRIGGER audit_event_no_update")
    for event in events:
        actor = "nobody" if event.number == 1 else event.actor
        other = replace(event, actor=actor, previous=previous)
        previous = event_mac(other, secret)
        row = {"n": event.number, "actor": actor, "before": other.previous, "mac": previous}
        database.run(
            "UPDATE audit_event SET actor = :actor, previous = :before, mac = :mac"
            " WHERE number = :n",
            row,
        )
    database.engine.dispose()


def test_a_log_that_was_written_anew_with_a_chain_that_holds_is_found(
    database_url: str, tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere.jsonl"
    house = House(tmp_path, database_url, url=anchor.as_uri(), events=False)
    house.act("first")
    house.send()
    write_anew(house, database_url)
    (tmp_path / "home" / "audit.checkpoint").unlink(missing_ok=True)

    found = verify(house, anchor, "--json")
    report = json.loads(found.stdout)

    assert (found.exit_code, report["whole"]) == (1, True)
    assert report["anchor"]["first_missing"] == report["anchor"]["newest"]["number"]


def test_a_checkpoint_that_control_did_not_sign_is_refused(
    sqlite_url: str, tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere.jsonl"
    house = House(tmp_path, sqlite_url, url=anchor.as_uri(), events=False)
    house.act("first")
    house.send()
    forged = json.loads(anchor.read_text()) | {"checkpoint": 9}
    anchor.write_text(json.dumps(forged))

    refused = verify(house, anchor)

    assert (refused.exit_code, "line 1" in refused.stderr) == (7, True)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("udp://collector:514", "begins with one of"),
        ("syslog+tls://collector", "needs its port"),
        ("https://user:secret@collector/", "token_env"),
        ("http://169.254.169.254/", "link-local"),
        ("file://relative/path", "whole path"),
    ],
)
def test_an_address_that_cannot_hold_a_copy_is_refused_with_its_place(
    tmp_path: Path, url: str, complaint: str
) -> None:
    config = tmp_path / "swapgate.yaml"
    config.write_text(yaml.safe_dump({"audit": {"sinks": [{"url": url}]}}))

    with pytest.raises(ConfigError, match=rf"audit\.sinks\.0.*{complaint}"):
        open_installation(config, create_secret=True)
