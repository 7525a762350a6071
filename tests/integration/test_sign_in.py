import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import openai
import pytest

from harness.app import secret_files
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    ConfigError,
    InputError,
    NotAllowed,
    NotFound,
    SignInRefused,
    SignInUnreachable,
)
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.frame.signing.audit_log import AuditLog
from harness.operations import queries
from harness.operations.context import Context
from harness.providers.calls.oauth_http import HttpOAuthServer
from harness.providers.credential import Credential
from harness.providers.models.name_resolution import ResolutionRule
from harness.providers.oauth import (
    TOKEN_KEY_NAME,
    DeviceCode,
    OAuthEndpoints,
    OAuthOverrides,
    OAuthTokens,
    PollAnswer,
)
from harness.providers.records import Credentials, Providers, SignIns
from harness.providers.registry import (
    credentials,
    named_models,
    provider_secrets,
    registered_providers,
    sign_in,
)
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.targets import ProviderChange
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.people import ANN
from tests.support.providers.oauth_server import (
    CLIENT,
    OAuthSite,
    oauth_site,
)
from tests.support.router.router_process import (
    ROUTE,
    Routed,
    eventually,
    routed,
)

pytestmark = pytest.mark.req("D2", "D3", "D4", "D7")
COPILOT = "github_copilot"
CODEX = "openai_codex"


@dataclass
class Desk:
    name: str
    world: BareInstallation
    ctx: Context
    site: OAuthSite
    then: PollAnswer | None = None
    waited_s: float = 0.0
    code: DeviceCode | None = None

    def log_in(self) -> sign_in.SignedIn:
        return sign_in.sign_in(
            self.ctx,
            SYSTEM,
            self.name,
            show=self.show,
            pause=self.pause,
        )

    def show(self, code: DeviceCode) -> None:
        self.code = code
        if self.then is not PollAnswer.PENDING:
            self.site.say(code.user_code, self.then)

    def pause(self, seconds: float) -> None:
        self.waited_s += seconds
        self.world.clock.advance(seconds)

    def token(self) -> str:
        with self.ctx.store.read() as tx:
            provider = Providers(tx).all()[self.name]
        keys = provider_secrets.keys_of_provider(self.ctx, provider)
        return keys[0].secret if keys else ""

    def after(self, seconds: float) -> int:
        self.world.clock.advance(seconds)
        return sign_in.renew_tokens(self.ctx)

    def open_alerts(self, kind: AlertKind) -> list[alerts.AlertView]:
        return [
            alert
            for alert in queries.list_alerts(self.ctx, open_only=True)
            if alert.kind is kind
        ]


@pytest.fixture(params=[COPILOT, CODEX])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    world = BareInstallation(tmp_path)
    key = new_key()
    with oauth_site(world.clock, github=request.param == COPILOT) as site:
        place = site.place
        change = OAuthOverrides(
            **{
                name: getattr(place, name)
                for name in OAuthOverrides.__dataclass_fields__
                if getattr(place, name)
            }
        )
        ctx = replace(
            world.context(),
            cipher=FernetCipher(lambda: [key]),
            oauth=HttpOAuthServer(world.clock),
            oauth_changes={request.param: change},
        )
        yield Desk(request.param, world, ctx, site)


@pytest.mark.spine
def test_who_signs_in_gets_a_provider_whose_requests_carry_the_token(desk: Desk) -> None:
    done = desk.log_in()

    assert (done.provider, done.access_ends is not None) == (desk.name, True)
    assert desk.site.accepts(desk.token())
    assert desk.code is not None
    assert desk.waited_s == 5.0
    (shown,) = credentials.list_credentials(desk.ctx)
    assert (
        shown.kind,
        [credential.name for credential in shown.stored],
    ) == (
        desk.name,
        ["oauth"],
    )


def test_no_token_is_in_the_database_the_audit_log_or_a_snapshot(desk: Desk) -> None:
    desk.log_in()
    desk.after(500)
    sign_in.sign_out(desk.ctx, SYSTEM, desk.name)
    desk.log_in()

    with desk.ctx.store.read() as tx:
        audit = list(AuditLog(tx).all())
        rows = (SignIns(tx).all(), Credentials(tx).all())
    hidden = [row.ciphertext for row in rows[0]] + [row.ciphertext for row in rows[1]]
    written = repr((rows, audit, hidden, desk.ctx.store.snapshot(), desk.ctx))
    assert len(desk.site.all) > 6
    assert not any(token in written for token in desk.site.all)
    done = [event.action for event in audit if "log" in event.action]
    assert sorted(done) == [
        "credential.login",
        "credential.login",
        "credential.logout",
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [(PollAnswer.DENIED, "refused"), (PollAnswer.PENDING, "code expired")],
)
def test_a_no_and_too_long_a_wait_store_nothing(
    desk: Desk,
    said: PollAnswer,
    why: str,
) -> None:
    desk.then = said
    with pytest.raises(SignInRefused, match=why):
        desk.log_in()

    with desk.ctx.store.read() as tx:
        assert (SignIns(tx).all(), Credentials(tx).all()) == ([], [])


def test_a_server_that_is_away_is_asked_until_the_code_ends(desk: Desk) -> None:
    class Away(HttpOAuthServer):
        def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer:
            del place, code
            return PollAnswer.UNREACHABLE

    desk.then = PollAnswer.PENDING
    desk.ctx = replace(desk.ctx, oauth=Away(desk.world.clock))
    with pytest.raises(SignInRefused, match="code expired"):
        desk.log_in()
    assert desk.code is not None
    assert desk.waited_s == desk.code.expires_in_s


def test_tokens_are_renewed_before_they_end_and_the_old_one_is_replaced(desk: Desk) -> None:
    desk.log_in()
    first = desk.token()

    assert (desk.after(479), desk.token()) == (0, first)
    assert desk.after(1) == 1
    assert desk.token() == desk.site.newest != first
    for _ in range(5):
        assert desk.after(480) == 1
        assert desk.site.accepts(desk.token())
    assert not desk.open_alerts(AlertKind.SIGN_IN_ENDED)


def test_a_server_that_is_away_is_asked_again_and_people_are_told(desk: Desk) -> None:
    desk.log_in()
    first = desk.token()
    desk.site.down = True
    for seconds in (480, 2, 4):
        assert desk.after(seconds) == 0
    (alert,) = desk.open_alerts(AlertKind.TOKEN_NOT_RENEWED)
    assert "Tried 3 times" in alert.text
    assert desk.token() == first

    # Its token ended meanwhile: none is better than one that is refused.
    desk.after(200)
    assert desk.token() == ""
    desk.site.down = False
    assert desk.after(60) == 1
    assert desk.site.accepts(desk.token())
    assert not desk.open_alerts(AlertKind.TOKEN_NOT_RENEWED)


def test_a_refused_renewal_says_who_has_to_do_what_until_they_sign_in_anew(desk: Desk) -> None:
    desk.log_in()
    desk.site.revoke()
    asked = len(desk.site.all)

    assert desk.after(480) == 0
    (alert,) = desk.open_alerts(AlertKind.SIGN_IN_ENDED)
    assert f"`swapproof provider key login {desk.name}`" in alert.text
    assert "Requests carry the present token until" in alert.text
    desk.after(120)
    assert (desk.token(), len(desk.site.all)) == ("", asked)

    desk.log_in()
    assert desk.site.accepts(desk.token())
    assert not desk.open_alerts(AlertKind.SIGN_IN_ENDED)


def test_a_token_that_the_provider_refuses_in_its_life_is_renewed_at_once(desk: Desk) -> None:
    desk.log_in()
    first = desk.token()
    desk.world.clock.advance(90)
    kind = AlertKind.OUR_KEY
    now = desk.world.clock.now()
    key = f"our_key:{desk.name}"
    with desk.ctx.store.write() as tx:
        Alerts(tx).fold([Alert(kind, f"provider {desk.name}", key, "401", "", now, "w1")])

    assert (desk.after(1), desk.after(1)) == (1, 0)
    assert desk.token() == desk.site.newest != first


def test_who_signed_out_is_signed_out_for_good(desk: Desk) -> None:
    desk.log_in()
    sign_in.sign_out(desk.ctx, SYSTEM, desk.name)

    assert desk.after(480) == 0
    assert desk.token() == ""
    with pytest.raises(NotFound, match="has no sign-in"):
        sign_in.sign_out(desk.ctx, SYSTEM, desk.name)


@pytest.mark.parametrize("removed", ["keys", "provider"])
def test_nobody_is_told_any_more_of_a_sign_in_that_was_taken_away(
    desk: Desk, removed: str
) -> None:
    desk.log_in()
    desk.site.revoke()
    desk.after(480)
    assert desk.open_alerts(AlertKind.SIGN_IN_ENDED)

    if removed == "keys":
        credentials.remove_credential(desk.ctx, SYSTEM, desk.name)
        assert (desk.after(480), desk.token()) == (0, "")
    else:
        registered_providers.remove_provider(desk.ctx, SYSTEM, desk.name)

    assert not desk.open_alerts(AlertKind.SIGN_IN_ENDED)


def test_encryption_keys_rotate_under_a_sign_in(desk: Desk) -> None:
    desk.log_in()
    old = new_key()
    new = new_key()
    keys = [old]
    desk.ctx = replace(desk.ctx, cipher=FernetCipher(lambda: keys))
    desk.log_in()
    keys[:] = [new, old]
    desk.ctx = replace(desk.ctx, cipher=FernetCipher(lambda: keys))
    assert credentials.rotate_encryption(desk.ctx, SYSTEM).values == 2
    keys[:] = [new]
    desk.ctx = replace(desk.ctx, cipher=FernetCipher(lambda: keys))

    assert desk.after(480) == 1
    assert desk.site.accepts(desk.token())


@pytest.mark.spine
def test_only_its_own_prefix_leads_there_and_only_while_somebody_is_signed_in(
    desk: Desk,
) -> None:
    name = f"{desk.name}/gpt-5"
    desk.log_in()
    chosen = named_models.explain_name(desk.ctx, name)
    guessed = named_models.explain_name(desk.ctx, "gpt-5")
    sign_in.sign_out(desk.ctx, SYSTEM, desk.name)
    without = named_models.explain_name(desk.ctx, name)

    assert (
        chosen.found and chosen.found.name,
        guessed.found,
        without.found,
    ) == (
        name,
        None,
        None,
    )
    (why,) = (rule.reason for rule in without.rules if rule.rule is ResolutionRule.OAUTH)
    assert f"`swapproof provider key login {desk.name}`" in why


def test_a_key_is_no_sign_in(desk: Desk) -> None:
    """Whichever way it comes; also one that is stored."""
    way = f"`swapproof provider key login {desk.name}`"
    for change in (
        CredentialChange(value="sk-1"),
        CredentialChange(value="sk-1", key=TOKEN_KEY_NAME, first=True),
    ):
        with pytest.raises(InputError, match=way):
            credentials.put_credential(desk.ctx, SYSTEM, desk.name, change)
    credentials.put_credential(desk.ctx, SYSTEM, desk.name, CredentialChange())
    registered_providers.change_provider(
        desk.ctx, SYSTEM, desk.name, ProviderChange(settings={"api_key_env": "ACCOUNT"})
    )
    environ = {"GROQ_API_KEY": "gsk-1", "ACCOUNT": "sk-1"}
    with pytest.raises(InputError, match=way):
        credentials.import_credentials(desk.ctx, SYSTEM, environ)
    now = desk.ctx.clock.now()
    with desk.ctx.store.write() as tx:
        assert Credentials(tx).all() == []
        for name in ("default", TOKEN_KEY_NAME):
            value = desk.ctx.cipher.encrypt("sk-1")
            Credentials(tx).put(Credential(desk.name, name, value, 0, now, now, "ann"))

    assert named_models.explain_name(desk.ctx, f"{desk.name}/gpt-5").found is None


def test_who_may_not_and_what_cannot_be_signed_in_for_is_refused(desk: Desk) -> None:
    with pytest.raises(NotAllowed):
        sign_in.sign_in(
            desk.ctx,
            ANN,
            desk.name,
            show=desk.show,
            pause=desk.pause,
        )
    with pytest.raises(InputError, match="`swapproof provider key set groq`"):
        sign_in.sign_in(
            desk.ctx,
            SYSTEM,
            "groq",
            show=desk.show,
            pause=desk.pause,
        )
    desk.ctx = replace(desk.ctx, oauth_changes={})
    with pytest.raises(ConfigError, match=rf"oauth\.{desk.name}\.client_id"):
        desk.log_in()


def test_a_server_that_is_away_at_the_start_is_named(desk: Desk) -> None:
    desk.site.down = True
    with pytest.raises(SignInUnreachable, match=r"127\.0\.0\.1") as failed:
        desk.log_in()

    assert json.dumps(str(failed.value)).count("http") == 0


def test_who_asks_too_soon_is_told_to_slow_down_and_an_outage_is_no_answer(desk: Desk) -> None:
    place = desk.site.place
    server = desk.ctx.oauth
    assert server is not None
    code = server.device_code(place)

    def poll(after_s: float) -> PollAnswer | OAuthTokens:
        desk.world.clock.advance(after_s)
        return server.poll(place, code)

    assert [poll(after_s) for after_s in (1.0, 6.0, 20.0)] == [
        PollAnswer.SLOW_DOWN,
        PollAnswer.SLOW_DOWN,
        PollAnswer.PENDING,
    ]
    desk.site.down = True
    assert poll(20.0) is PollAnswer.UNREACHABLE
    desk.site.down = False
    assert poll(900.0) is PollAnswer.EXPIRED
    with pytest.raises(SignInRefused, match="invalid_client"):
        server.device_code(replace(place, client_id=""))


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
                        model=ROUTE,
                        messages=[{"role": "user", "content": "Colour?"}],
                    )
                    assert raw.parse().choices[0].message.content
                except (openai.APIError, AssertionError) as error:
                    self.errors.append(repr(error))
                    return
                target = raw.headers["x-swapproof-target"].partition("/")[0]
                self.served.append((target, raw.headers["x-swapproof-attempts"]))

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
def installed(
    folder: Path,
    site: OAuthSite,
    *,
    open_s: float,
) -> Iterator[Routed]:
    place = site.place
    given = ("device_url", "token_url", "exchange_url", "scope")
    with routed(
        folder,
        "",
        router={
            "flush_interval_s": 0.2,
            "workers": 2,
            "breaker": {"open_s": open_s},
        },
        providers={
            "copilot": {
                "kind": "github_copilot",
                "api_base": f"{site.url}/v1",
            },
            "spare": {"kind": "custom", "api_base": f"{site.url}/spare/v1"},
        },
        oauth={
            "copilot": {
                "client_id": CLIENT,
                **{n: getattr(place, n) for n in given},
            }
        },
        routes={
            ROUTE: {
                "incumbent": "copilot/gpt-4o",
                "fallbacks": ["spare/any"],
                "suites": ["colours"],
            }
        },
    ) as world:
        secret_files.create_encryption_file(world.installation.settings)
        world.place.start("control", "serve", "control", wait_for="/readyz")
        world.start()
        yield world


def log_in(world: Routed, site: OAuthSite) -> str:
    command = world.place.command("provider", "key", "login", "copilot")
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    # The first line says as whom the command acts.
    said = process.stderr.readline() + process.stderr.readline()
    found = re.search(r"type (USER-\d+)", said)
    if not found:
        process.kill()
    assert found, said + process.stderr.read()
    site.say(found[1], None)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return said + out + err


def taken(site: OAuthSite) -> set[str]:
    return {token for token, accepted in site.asked if accepted}


def has_alert(world: Routed, kind: AlertKind) -> bool:
    alerts = queries.list_alerts(world.installation.context, open_only=True)
    return any(caller.kind is kind for caller in alerts)


def leaks(
    world: Routed,
    site: OAuthSite,
    said: str,
) -> bool:
    written = said + world.place.log("router") + world.place.log("control")
    files = [path for path in world.place.folder.rglob("*") if path.is_file()]
    held = written.encode() + b"".join(file.read_bytes() for file in files)
    return any(token.encode() in held for token in site.all)


@pytest.mark.verify
def test_tokens_are_renewed_while_requests_go_on_and_none_fails(tmp_path: Path) -> None:
    clock = SystemClock()
    with (
        oauth_site(clock, life_s=20.0) as site,
        installed(tmp_path, site, open_s=1) as world,
    ):
        # Vendors allow for clocks that differ; this one, for a machine that has other work.
        site.leeway_s = 10.0
        site.interval_s = 1.0
        caller = Caller(world)
        with caller.running():
            # Without a sign-in it is left out of every plan, so no client waits for a 401.
            eventually(lambda: len(caller.served) > 5 or bool(caller.errors))
            assert not caller.errors
            assert set(caller.served) == {("spare", "1")}

            said = log_in(world, site)
            eventually(
                lambda: len(taken(site)) >= 3 or bool(caller.errors),
                timeout_s=240,
            )
            assert not [token for token, accepted in site.asked if not accepted]

            site.revoke()
            eventually(
                lambda: has_alert(world, AlertKind.SIGN_IN_ENDED) or bool(caller.errors),
                timeout_s=240,
            )
            world.place.run("provider", "key", "logout", "copilot")
            assert not has_alert(world, AlertKind.SIGN_IN_ENDED)

        assert not caller.errors
        who = [provider for provider, _ in caller.served]
        assert (
            who[0],
            who[-1],
            "copilot" in who,
        ) == ("spare", "spare", True)
        assert not leaks(world, site, said)
