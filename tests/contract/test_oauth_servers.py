"""What every way to an OAuth server promises: over HTTP in both protocols, and in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from harness.domain.errors import SignInRefused, SignInUnreachable
from harness.domain.providers.oauth_kinds import OAUTH_ENDPOINTS, OAuthEndpoints
from harness.domain.providers.oauth_tokens import DeviceCode, OAuthTokens, PollAnswer
from harness.ports import OAuthServer
from harness.runtime.outbound.oauth_http import HttpOAuthServer
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.memory_oauth import MemoryOAuth
from tests.support.providers.oauth_server import CLIENT, oauth_site

pytestmark = pytest.mark.req("D2", "D7")


@dataclass
class Vendor:
    server: OAuthServer
    place: OAuthEndpoints
    accounts: MemoryOAuth
    clock: ManualClock

    def begun(self) -> DeviceCode:
        return self.server.device_code(self.place)

    def poll(self, code: DeviceCode, after_s: float = 5.0) -> PollAnswer | OAuthTokens:
        self.clock.advance(after_s)
        return self.server.poll(self.place, code)

    def granted(self) -> OAuthTokens:
        code = self.begun()
        self.accounts.say(code.user_code, None)
        found = self.poll(code)
        assert isinstance(found, OAuthTokens)
        return found


@pytest.fixture(params=["github", "openai", "memory"])
def vendor(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    clock = ManualClock()
    accounts = MemoryOAuth(clock)
    if request.param == "memory":
        place = replace(OAUTH_ENDPOINTS["github_copilot"], client_id=CLIENT)
        yield Vendor(accounts, place, accounts, clock)
        return
    with oauth_site(accounts, clock, github=request.param == "github") as site:
        yield Vendor(HttpOAuthServer(clock), site.place, accounts, clock)


def test_a_person_is_waited_for_and_their_consent_gives_tokens(vendor: Vendor) -> None:
    code = vendor.begun()
    pending = vendor.poll(code)
    vendor.accounts.say(code.user_code, None)
    tokens = vendor.poll(code)

    assert (code.interval_s, pending) == (5.0, PollAnswer.PENDING)
    assert code.verification_url.startswith("http")
    assert isinstance(tokens, OAuthTokens)
    assert tokens.refresh_token
    assert code.secret not in repr(code)
    assert tokens.access_token not in repr(tokens)


def test_who_asks_too_soon_is_told_to_slow_down(vendor: Vendor) -> None:
    code = vendor.begun()

    assert vendor.poll(code, 1.0) is PollAnswer.SLOW_DOWN
    assert vendor.poll(code, 6.0) is PollAnswer.SLOW_DOWN
    assert vendor.poll(code, 20.0) is PollAnswer.PENDING


def test_a_no_and_an_expired_code_are_told_apart(vendor: Vendor) -> None:
    denied, late = vendor.begun(), vendor.begun()
    vendor.accounts.say(denied.user_code, PollAnswer.DENIED)

    assert vendor.poll(denied) is PollAnswer.DENIED
    assert vendor.poll(late, 900.0) is PollAnswer.EXPIRED


def test_a_refresh_token_is_used_once_and_a_second_use_ends_it_all(vendor: Vendor) -> None:
    first = vendor.granted()
    second = vendor.server.refresh(vendor.place, first.refresh_token)

    assert second.access_token != first.access_token
    with pytest.raises(SignInRefused, match="refuses: invalid_grant"):
        vendor.server.refresh(vendor.place, first.refresh_token)
    with pytest.raises(SignInRefused):
        vendor.server.refresh(vendor.place, second.refresh_token)


@pytest.mark.parametrize("vendor", ["github", "memory"], indirect=True)
def test_the_account_s_token_buys_one_that_ends(vendor: Vendor) -> None:
    account = vendor.granted().access_token
    bought = vendor.server.exchange(vendor.place, account)

    assert vendor.accounts.accepts(bought.access_token)
    assert bought.expires_in_s == 600.0
    vendor.accounts.revoke()
    with pytest.raises(SignInRefused, match="status 401"):
        vendor.server.exchange(vendor.place, account)


def test_an_unknown_client_is_refused(vendor: Vendor) -> None:
    with pytest.raises(SignInRefused, match="invalid_client"):
        vendor.server.device_code(replace(vendor.place, client_id=""))


def test_who_does_not_answer_may_do_so_later(vendor: Vendor) -> None:
    code, tokens = vendor.begun(), vendor.granted()
    vendor.accounts.down = True

    assert vendor.poll(code) is PollAnswer.UNREACHABLE
    with pytest.raises(SignInUnreachable):
        vendor.begun()
    with pytest.raises(SignInUnreachable):
        vendor.server.refresh(vendor.place, tokens.refresh_token)
    vendor.accounts.down = False
    assert vendor.server.refresh(vendor.place, tokens.refresh_token)
