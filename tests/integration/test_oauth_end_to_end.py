"""Signed in by the command line, served by router workers: tokens end, and no request fails."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from harness.control.operations import queries
from harness.domain.operations.alerts import AlertKind
from harness.runtime import secret_files
from harness.runtime.clock import SystemClock
from tests.support.providers.oauth_server import CLIENT, MemoryOAuth, OAuthSite, oauth_site
from tests.support.router.router_process import ROUTE, Routed, eventually, routed

pytestmark = pytest.mark.req("D2", "D3", "D7")


@dataclass
class Caller:
    """One who never rests and never tries again. served: provider and attempts, in order."""

    world: Routed
    served: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        with self.world.client() as client:
            while not self.stopping.wait(0.02):
                try:
                    raw = client.chat.completions.with_raw_response.create(
                        model=ROUTE, messages=[{"role": "user", "content": "Colour?"}]
                    )
                    assert raw.parse().choices[0].message.content
                except (openai.APIError, AssertionError) as error:
                    self.errors.append(repr(error))
                    return
                target = raw.headers["x-swapgate-target"].partition("/")[0]
                self.served.append((target, raw.headers["x-swapgate-attempts"]))

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.call)
        thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            thread.join(120)


@contextmanager
def installed(folder: Path, site: OAuthSite, *, open_s: float) -> Iterator[Routed]:
    place = site.place
    given = ("device_url", "token_url", "exchange_url", "scope")
    with routed(
        folder,
        "",
        router={"flush_interval_s": 0.2, "workers": 2, "breaker": {"open_s": open_s}},
        providers={
            "copilot": {"kind": "github_copilot", "api_base": f"{site.url}/v1"},
            "spare": {"kind": "custom", "api_base": f"{site.url}/spare/v1"},
        },
        oauth={"copilot": {"client_id": CLIENT, **{n: getattr(place, n) for n in given}}},
        routes={
            ROUTE: {
                "incumbent": "copilot/gpt-4o",
                "fallbacks": ["spare/any"],
                "suites": ["colours"],
            }
        },
    ) as world:
        secret_files.make_encryption_file(world.installation.settings)
        world.place.start("control", "serve", "control", wait_for="/readyz")
        world.start()
        yield world


def log_in(world: Routed, site: OAuthSite) -> str:
    command = world.place.command("provider", "key", "login", "copilot")
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    # The first line says as whom the command acts.
    said = process.stderr.readline() + process.stderr.readline()
    found = re.search(r"type (USER-\d+)", said)
    if not found:
        process.kill()
    assert found, said + process.stderr.read()
    site.accounts.say(found[1], None)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return said + out + err


def taken(site: OAuthSite) -> set[str]:
    return {token for token, accepted in site.asked if accepted}


def has_alert(world: Routed, kind: AlertKind) -> bool:
    alerts = queries.list_alerts(world.installation.context, open_only=True)
    return any(caller.kind is kind for caller in alerts)


def leaks(world: Routed, site: OAuthSite, said: str) -> bool:
    written = said + world.place.log("router") + world.place.log("control")
    files = [path for path in world.place.folder.rglob("*") if path.is_file()]
    held = written.encode() + b"".join(file.read_bytes() for file in files)
    return any(token.encode() in held for token in site.accounts.all)


@pytest.mark.verify
def test_tokens_are_renewed_while_requests_go_on_and_none_fails(tmp_path: Path) -> None:
    clock = SystemClock()
    accounts = MemoryOAuth(clock, life_s=20.0)
    # Vendors allow for clocks that differ; this one, for a machine that has other work.
    accounts.leeway_s = 10.0
    accounts.interval_s = 1.0
    with oauth_site(accounts, clock) as site, installed(tmp_path, site, open_s=1) as world:
        caller = Caller(world)
        with caller.running():
            # Nobody is signed in yet: it is left out of every plan, and nobody waits for a 401.
            eventually(lambda: len(caller.served) > 5 or bool(caller.errors))
            assert not caller.errors
            assert set(caller.served) == {("spare", "1")}

            said = log_in(world, site)
            eventually(lambda: len(taken(site)) >= 3 or bool(caller.errors), timeout_s=240)
            assert not [token for token, accepted in site.asked if not accepted]

            accounts.revoke()
            eventually(
                lambda: has_alert(world, AlertKind.SIGN_IN_ENDED) or bool(caller.errors),
                timeout_s=240,
            )
            world.place.run("provider", "key", "logout", "copilot")
            assert not has_alert(world, AlertKind.SIGN_IN_ENDED)

        assert not caller.errors
        who = [provider for provider, _ in caller.served]
        assert (who[0], who[-1], "copilot" in who) == ("spare", "spare", True)
        assert not leaks(world, site, said)


@pytest.mark.verify
def test_a_provider_that_takes_the_newest_token_alone_costs_no_request(tmp_path: Path) -> None:
    clock = SystemClock()
    accounts = MemoryOAuth(clock, life_s=10.0)
    accounts.interval_s = 1.0
    with oauth_site(accounts, clock) as site, installed(tmp_path, site, open_s=0.5) as world:
        site.strict = True
        log_in(world, site)
        caller = Caller(world)
        with caller.running():
            eventually(lambda: len(taken(site)) >= 3 or bool(caller.errors), timeout_s=240)

    assert not caller.errors
    assert {provider for provider, _ in caller.served} <= {"copilot", "spare"}
