import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import ConfigError, InputError
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.oauth import (
    OAUTH_ENDPOINTS,
    DeviceCode,
    OAuthOverrides,
    OAuthTokens,
    PollAnswer,
    Renewal,
    SignIn,
    SignInSecrets,
    apply_access_tokens,
    apply_account_tokens,
    check_oauth_url,
    due_renewal,
    is_expired,
    lifetime_s,
    merge_secrets,
    next_interval_s,
    oauth_endpoints,
    record_failed_renewal,
    renew_sooner,
    renewal_due_at,
)
from harness.providers.target import Provider

pytestmark = pytest.mark.req("D2", "D7")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = SignIn("copilot", "si-1", "c", NOW, "ada", renewed_at=NOW)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def jwt(**claims: object) -> str:
    part = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.sig"


@pytest.mark.parametrize(
    ("answer", "before_s", "after_s"),
    [
        (PollAnswer.PENDING, 5.0, 5.0),
        (PollAnswer.SLOW_DOWN, 60.0, 65.0),
        (PollAnswer.UNREACHABLE, 5.0, 10.0),
        (PollAnswer.UNREACHABLE, 40.0, 60.0),
        (PollAnswer.UNREACHABLE, 65.0, 65.0),
    ],
)
def test_the_server_is_asked_at_its_interval_and_less_often_once_it_is_slow_or_away(
    answer: PollAnswer,
    before_s: float,
    after_s: float,
) -> None:
    assert next_interval_s(before_s, answer) == after_s


def test_nothing_shows_a_secret_of_a_sign_in() -> None:
    code = DeviceCode("secret-code", "WDJB-MJHT", "https://vendor.example/device", 900.0)
    said = repr((code, OAuthTokens("secret-access", "secret-refresh")))

    assert "secret" not in said
    assert "WDJB-MJHT" in said


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [
        (OAuthTokens("a", expires_in_s=1500), 1200),
        (OAuthTokens("a", expires_in_s=8 * 3600), 7 * 3600),
        (OAuthTokens("a", expires_in_s=1800, refresh_in_s=1000), 1000),
        (OAuthTokens("a", expires_in_s=1800, refresh_in_s=1790), 1440),
    ],
)
def test_a_token_is_renewed_with_a_fifth_of_its_life_left_and_at_most_an_hour(
    tokens: OAuthTokens, seconds: float
) -> None:
    assert renewal_due_at(tokens, NOW) == later(seconds)


@given(st.floats(0, 1e8), st.none() | st.floats(0, 1e8))
def test_a_token_is_never_renewed_after_its_end(life: float, told: float | None) -> None:
    found = renewal_due_at(OAuthTokens("a", expires_in_s=life, refresh_in_s=told), NOW)

    assert found is not None
    assert NOW <= found <= later(life)


def test_the_account_s_token_comes_first_and_buys_the_next_one_at_once() -> None:
    known = apply_account_tokens(NEW, OAuthTokens("a", "r", 100), NOW, exchanged=True)
    bought = apply_access_tokens(known, OAuthTokens("b", expires_in_s=50), NOW)

    assert due_renewal(known, NOW) is Renewal.ACCESS
    assert due_renewal(bought, later(39)) is None
    assert due_renewal(bought, later(40)) is Renewal.ACCESS
    assert due_renewal(bought, later(80)) is Renewal.ACCOUNT


def test_a_token_without_refresh_lasts_until_it_is_refused() -> None:
    known = apply_account_tokens(NEW, OAuthTokens("a", expires_in_s=100), NOW, exchanged=False)

    assert due_renewal(known, later(99)) is None
    assert not is_expired(known, later(99))
    assert is_expired(known, later(100))


def test_what_is_tried_in_vain_is_tried_later_and_never_less_than_once_a_minute() -> None:
    known = apply_account_tokens(NEW, OAuthTokens("a", "r", 100), NOW, exchanged=False)
    now = later(80)
    for _ in range(20):
        assert due_renewal(known, now) is Renewal.ACCOUNT
        known = record_failed_renewal(known, now)
        assert due_renewal(known, now) is None
        assert known.retry_at is not None
        assert known.retry_at - now <= timedelta(minutes=1)
        now = known.retry_at
    assert not apply_account_tokens(
        known, OAuthTokens("b", "r", 100), now, exchanged=False
    ).attempts


def test_a_refusal_in_the_midst_of_a_token_s_life_renews_it_once_a_minute() -> None:
    known = apply_access_tokens(NEW, OAuthTokens("b", expires_in_s=1500), NOW)

    assert due_renewal(renew_sooner(known, later(90), later(91)), later(91)) is Renewal.ACCESS
    # The one before may still be on its way; and once a minute is enough.
    assert renew_sooner(known, later(3), later(91)) == known
    assert renew_sooner(known, later(40), later(41)) == known


def test_a_server_that_sends_no_new_refresh_token_means_the_old_one() -> None:
    before = SignInSecrets("a", "r")

    assert merge_secrets(before, OAuthTokens("b")) == SignInSecrets("b", "r")
    assert merge_secrets(before, OAuthTokens("b", "s")) == SignInSecrets("b", "s")
    assert "'" not in repr(before)


def test_every_oauth_kind_has_its_place_over_https_and_no_client_id_of_others() -> None:
    kinds = {name for name, kind in PROVIDER_KINDS.items() if kind.group is ProviderGroup.OAUTH}
    assert kinds == set(OAUTH_ENDPOINTS)
    for name, place in OAUTH_ENDPOINTS.items():
        assert check_oauth_url(place.device_url)
        assert check_oauth_url(place.token_url)
        with pytest.raises(ConfigError, match=rf"oauth\.{name}\.client_id"):
            oauth_endpoints(name, name, None)


def test_the_file_changes_what_it_names_and_nothing_else() -> None:
    overrides = OAuthOverrides(client_id="mine", exchange_url="")
    place = oauth_endpoints("mine", "github_copilot", overrides)

    assert (place.client_id, place.exchange_url) == ("mine", "")
    assert place.device_url == OAUTH_ENDPOINTS["github_copilot"].device_url
    with pytest.raises(InputError, match="`swapproof provider key set groq`"):
        oauth_endpoints("groq", "groq", overrides)


@pytest.mark.parametrize(
    "url",
    [
        "http://vendor.example/x",
        "ftp://x/y",
        "https://u:p@x/y",
        "x",
        "http://127.evil.example",
    ],
)
def test_tokens_never_go_over_plain_http_to_another_machine(url: str) -> None:
    with pytest.raises(InputError):
        check_oauth_url(url)


def test_http_is_for_this_machine() -> None:
    for url in (
        "http://127.0.0.1:9/x",
        "http://localhost/x",
        "http://[::1]/x",
    ):
        assert check_oauth_url(url) == url


def test_codex_repeats_the_account_that_its_token_names() -> None:
    codex = Provider("codex", "openai_codex", "https://chatgpt.com/backend-api/codex")
    token = jwt(**{"https://api.openai.com/auth": {"chatgpt_account_id": "acc-1"}})

    assert codex.key_headers(token) == {
        "authorization": f"Bearer {token}",
        "chatgpt-account-id": "acc-1",
    }
    for odd in ("opaque", "a.%%%.c", "a.bnVsbA.c", jwt(x=1)):
        assert codex.key_headers(odd) == {"authorization": f"Bearer {odd}"}


def test_a_jwt_tells_how_long_it_lives() -> None:
    assert lifetime_s(jwt(iat=100, exp=400)) == 300.0
    assert lifetime_s(jwt(iat=100)) is None
    assert lifetime_s("opaque") is None
