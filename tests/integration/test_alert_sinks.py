import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.app.alert_sinks import ConfiguredSinks
from harness.app.store.store import Store
from harness.frame.alerts.alert import AlertKind, Severity
from harness.frame.alerts.alert_record import (
    AlertMessage,
    AlertSettings,
    AlertSink,
    Notified,
)
from harness.frame.errors import DeliveryFailed
from harness.frame.people.access import SYSTEM
from harness.operations import alert_delivery, queries
from harness.proposals import decisions
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.manual_clock import ManualClock
from tests.support.control.short_policies import approved
from tests.support.router.router_process import eventually
from tests.support.site.alert_receiver import Receiver
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("B9")

VARIABLE = "HOOK_SECRET"
ENVIRON = {VARIABLE: "s3cret-of-the-hook"}
NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
MESSAGE = AlertMessage(
    id="al_1.1",
    alert="al_1",
    kind=AlertKind.BREAKER_OPEN,
    severity=Severity.WARNING,
    state=Notified.RAISED,
    subject="target a/b",
    title="a/b gets no requests: it doesn’t answer in time",
    text="Route chat: c/d carries its load now.",
    next_step="look",
    first_seen=NOW,
    last_seen=NOW,
    count=2,
    page="http://127.0.0.1:8501/traffic",
    runbook="http://127.0.0.1:8501/docs/runbook.html#breaker_open",
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().up() as made:
        yield made


def webhook(receiver: Receiver, **more: Any) -> AlertSink:
    url = f"http://127.0.0.1:{receiver.port}/hook?token=in-the-url"
    return replace(AlertSink("hook", webhook=url, secret_env=VARIABLE), **more)


def by_apprise(receiver: Receiver, **more: Any) -> AlertSink:
    url = f"json://ann:passw0rd@127.0.0.1:{receiver.port}/notify"
    return replace(AlertSink("chat", url=url), **more)


def sinks(*made: AlertSink, environ: dict[str, str] | None = None) -> ConfiguredSinks:
    found = ENVIRON if environ is None else environ
    return ConfiguredSinks(AlertSettings(sinks=made, timeout_s=60.0), found)


def documented() -> Callable[..., bool]:
    """`verify` as docs/how-to/alerts.md has it."""
    text = (Path(__file__).parents[2] / "docs/how-to/alerts.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102 - our own document
    verify: Callable[..., bool] = names["verify"]
    return verify


@pytest.mark.spine
def test_a_webhook_is_signed_as_the_documentation_verifies_it(receiver: Receiver) -> None:
    sinks(webhook(receiver)).send("hook", MESSAGE)

    (got,) = receiver.got
    signature = got.headers["x-swapproof-signature"]
    secret = ENVIRON["HOOK_SECRET"].encode()
    verify = documented()
    assert verify(got.body, signature, secret)
    assert not verify(got.body + b" ", signature, secret)
    assert not verify(got.body, signature, b"another secret")
    old = re.sub(r"t=\d+", f"t={int(time.time()) - 1000}", signature)  # noqa: TID251 - as there
    assert not verify(got.body, old, secret)
    assert got.headers["x-swapproof-delivery"] == "al_1.1"
    told = json.loads(got.body)
    assert (
        told["kind"],
        told["state"],
        told["severity"],
    ) == (
        "breaker_open",
        "raised",
        "warning",
    )
    assert (told["title"], told["count"]) == (MESSAGE.title, 2)
    assert told["first_seen"] == NOW.isoformat()
    assert told["page"] == MESSAGE.page
    assert told["runbook"] == MESSAGE.runbook


def test_a_user_in_a_webhooks_url_goes_into_a_header(receiver: Receiver) -> None:
    plain = webhook(receiver)
    named = replace(plain, webhook=plain.webhook.replace("http://", "http://ann:p%40ss@"))
    sinks(plain).send("hook", MESSAGE)
    sinks(named).send("hook", MESSAGE)

    without, with_user = (got.headers for got in receiver.got)
    assert (without["user-agent"], without.get("authorization")) == (
        "swapproof",
        None,
    )
    assert with_user["authorization"] == "Basic YW5uOnBAc3M="


def test_apprise_delivers_title_text_and_next_step(receiver: Receiver) -> None:
    sinks(by_apprise(receiver)).send("chat", MESSAGE)

    (got,) = receiver.got
    told = json.loads(got.body)
    assert told["title"] == f"Swapproof: {MESSAGE.title}"
    assert MESSAGE.text in told["message"]
    assert "Next: look" in told["message"]
    assert told["message"].endswith(MESSAGE.page)
    assert told["type"] == "warning"


@pytest.mark.parametrize("made", [webhook, by_apprise])
@pytest.mark.parametrize("status", [500, 302, 307, 401])
def test_another_answer_is_no_delivery_and_no_secret_is_in_what_is_said(
    receiver: Receiver,
    made: Callable[[Receiver], AlertSink],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.status = status
    sink = made(receiver)
    caplog.set_level(logging.DEBUG)

    with pytest.raises(DeliveryFailed) as raised:
        sinks(sink).send(sink.name, MESSAGE)

    said = f"{raised.value} {raised.value.__cause__!r} {sink!r} {caplog.text}"
    assert not [word for word in ("passw0rd", "s3cret") if word in said]
    assert "in-the-url" not in f"{raised.value}"
    assert "/elsewhere" not in [got.path for got in receiver.got]


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        (
            AlertSink("x", webhook="http://127.0.0.1:9/hook", secret_env=VARIABLE),
            "reached",
        ),
        (
            AlertSink("x", "", "", "http://127.0.0.1:9/", "NOWHERE"),
            "NOWHERE is not",
        ),
        (AlertSink("x", url="json://127.0.0.1:9/"), "no connection"),
        (AlertSink("x", url="nothing://like/that"), "does not support"),
        (AlertSink("x", url_env="NOT_SET"), "NOT_SET is not set"),
        (AlertSink("other", url="json://127.0.0.1:9/"), "no sink 'x'"),
    ],
)
def test_what_cannot_be_delivered_says_why(sink: AlertSink, why: str) -> None:
    with pytest.raises(DeliveryFailed, match=why):
        sinks(sink).send("x", MESSAGE)


def test_a_url_may_stand_in_the_environment_or_in_a_file(
    receiver: Receiver, tmp_path: Path
) -> None:
    url = by_apprise(receiver).url
    file = tmp_path / "url"
    file.write_text(f"{url}\n", encoding="utf-8")
    for environ in ({"CHAT": url}, {"CHAT_FILE": str(file)}):
        sinks(AlertSink("chat", url_env="CHAT"), environ=environ).send("chat", MESSAGE)
    with pytest.raises(DeliveryFailed, match="CHAT_FILE cannot be read"):
        sinks(
            AlertSink("chat", url_env="CHAT"),
            environ={"CHAT_FILE": "/nowhere"},
        ).send("chat", MESSAGE)

    assert len(receiver.got) == 2


def test_a_webhook_that_was_down_gets_its_alert_once_it_is_back(
    tmp_path: Path, database_url: str
) -> None:
    """Fault 35: decisions go on meanwhile."""
    receiver = Receiver()
    with receiver.up():
        pass  # its port is known, and nobody listens there now
    clock = ManualClock()
    store = Store(
        database_url,
        secret=b"s",
        clock=clock,
        signatures=CONTROL,
    )
    made = SmallInstallation(tmp_path, store, clock)
    made.policy = approved()
    made.chance = CountingRandomIds()
    made.sinks = sinks(webhook(receiver), by_apprise(receiver))  # type: ignore[assignment]
    try:
        made.set_up()
        proposal = made.decided("sim/better")
        for _ in range(3):
            alert_delivery.run_once(made.context())
            made.clock.advance(60)
        decisions.refuse_proposal(made.context(), SYSTEM, proposal.id, "not now")
        (listed,) = queries.list_alerts(made.context())
        assert (listed.waiting, listed.delivered) == (2, 0)
        assert listed.last_error

        with receiver.up():

            def came() -> bool:
                made.clock.advance(16 * 60)
                alert_delivery.run_once(made.context())
                return len(receiver.got) >= 4

            eventually(came)
            alert_delivery.run_once(made.context())
    finally:
        made.store.close()

    hooks = [json.loads(got.body) for got in receiver.got if got.path.startswith("/hook")]
    assert [hook["state"] for hook in hooks] == ["raised", "resolved"]
    assert len(receiver.got) == 4
    assert {hook["kind"] for hook in hooks} == {"awaiting_approval"}
