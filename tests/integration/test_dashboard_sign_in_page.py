"""What `/sign-in` takes and answers, as a stranger's page or a thief would send it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import streamlit
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dashboard import page_frame, serve, sign_in_page
from harness.app.installation import CONFIG_VARIABLE, Installation
from harness.frame.people.access import OPERATOR, Role
from harness.operations import dashboard_sessions, keys
from harness.routing.settings import OidcSettings
from tests.support.browser.dashboard_data import configured

pytestmark = pytest.mark.req("F5")
ORIGIN = "http://127.0.0.1:8501"
BEHIND_A_PROXY = """
ui:
  oidc:
    issuer: https://login.example.com
    client_id: swapproof
    client_secret_env: SWAPPROOF_OIDC_SECRET
    public_url: https://swapproof.example.com
    roles: {leads: approver}
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setenv(CONFIG_VARIABLE, str(configured(tmp_path)))
    page_frame.installation.cache_clear()
    yield page_frame.installation()
    page_frame.installation().close()
    page_frame.installation.cache_clear()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's, as `serve` gives them."""
    given = {
        "server.allowedHosts": ["127.0.0.1", "localhost"],
        "server.port": 8501,
    }
    monkeypatch.setattr(streamlit, "get_option", given.__getitem__)


def browser(cookie: str = "") -> httpx.AsyncClient:
    app = Starlette(routes=sign_in_page.routes())
    cookies = {sign_in_page.cookie_name(): cookie} if cookie else {}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN, cookies=cookies)


def key_of(house: Installation, name: str = "ben") -> tuple[str, str]:
    key, text = keys.create_key(
        house.context,
        OPERATOR,
        name,
        secret=house.secret,
        role=Role.APPROVER,
    )
    return key.id, text


def link_of(house: Installation, key: str | None = None) -> str:
    return dashboard_sessions.create_link(house.context, OPERATOR, key, secret=house.secret)[1]


@pytest.mark.usefixtures("options")
async def test_a_key_signs_in_by_a_new_cookie_that_no_script_reads(house: Installation) -> None:
    _, text = key_of(house)
    async with browser("planted") as client:
        form = await client.get("/sign-in?next=/proposals%3Fstate%3Dall")
        answer = await client.post(
            "/sign-in",
            data={"key": text, "next": "/proposals?state=all"},
            headers={"origin": ORIGIN},
        )

    assert 'name="next" value="/proposals?state=all"' in form.text
    assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
    assert form.headers["cache-control"] == answer.headers["cache-control"] == "no-store"
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/proposals?state=all",
    )
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    value = re.match(r"swapproof-session-8501=([^;]+)", cookie)
    assert value is not None
    assert value[1] != "planted"
    assert sign_in_page.resume(value[1]).actor.name == "ben"


@pytest.fixture
def proxied(house: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    with Path(os.environ[CONFIG_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(BEHIND_A_PROXY)
    house.close()
    page_frame.installation.cache_clear()
    names = {
        "server.allowedHosts": ["swapproof.example.com", "127.0.0.1"],
        "server.port": 8501,
    }
    monkeypatch.setattr(streamlit, "get_option", names.__getitem__)
    return page_frame.installation()


async def test_the_cookie_goes_by_tls_alone_where_a_proxy_ends_it(
    proxied: Installation,
) -> None:
    _, text = key_of(proxied)
    cookies = []
    for origin, host in (
        ("https://swapproof.example.com", "swapproof.example.com"),
        (ORIGIN, "127.0.0.1:8501"),
    ):
        async with browser() as client:
            headers = {"origin": origin, "host": host}
            answer = await client.post("/sign-in", data={"key": text}, headers=headers)
            cookies.append(answer.headers["set-cookie"])

    assert ["Secure" in cookie for cookie in cookies] == [True, False]


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8501.evil.example"},
        {"origin": "http://evil.example", "host": "evil.example"},
    ],
)
async def test_no_page_of_another_site_signs_a_browser_in(
    house: Installation, headers: dict[str, str]
) -> None:
    link = link_of(house)
    async with browser() as client:
        answer = await client.post(
            "/sign-in",
            data={"link": link, "confirm": "yes"},
            headers=headers,
        )

    assert answer.status_code in (403, 421)
    assert "set-cookie" not in answer.headers
    # The link is as good as before.
    assert dashboard_sessions.preview_link(house.context, link, secret=house.secret)


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "/a\r\nset-cookie: x=1",
        "javascript:alert(1)",
        '/"><script>',
        "/../x",
    ],
)
async def test_a_sign_in_leads_to_a_page_of_the_dashboard_alone(
    house: Installation, place: str
) -> None:
    async with browser() as client:
        form = await client.get("/sign-in", params={"next": place})
        answer = await client.post(
            "/sign-in",
            data={"key": key_of(house)[1], "next": place},
            headers={"origin": ORIGIN},
        )

    assert 'name="next" value="/"' in form.text
    assert answer.headers["location"] == "/"


def server_returns(place: str) -> Starlette:
    """Our routes, and Streamlit's answer to who comes back from the server."""

    async def answer(_request: Request) -> Response:
        back = RedirectResponse(place, 302)
        back.set_cookie("_streamlit_user", "signed", httponly=True)
        return back

    oidc = OidcSettings("https://l.example", "swapproof", "S", "https://s.example", {})
    routes = [Route("/oauth2callback", answer), serve.SIGN_ON_ROUTE]
    return Starlette(routes=routes, middleware=serve.sign_on_middleware(oidc))


@pytest.mark.parametrize(
    ("asked", "landed"),
    [
        (
            "/compare?proposal=p_17&slice=a%2Fb",
            "/compare?proposal=p_17&slice=a%2Fb",
        ),
        ("//evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/a; Domain=evil.example", "/"),
        ("/a\r\nset-cookie: x=1", "/"),
    ],
)
async def test_single_sign_on_lands_on_the_own_page_that_was_asked_for(
    asked: str,
    landed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"server.allowedHosts": ["s.example"], "server.port": 8501}
    monkeypatch.setattr(streamlit, "get_option", names.__getitem__)
    monkeypatch.setattr(serve, "generate_login_redirect_url", "/auth/{}".format)
    transport = httpx.ASGITransport(server_returns("/"))
    async with httpx.AsyncClient(transport=transport, base_url="https://s.example") as client:
        begun = await client.get(sign_in_page.SIGN_ON_PATH, params={"next": asked})
        back = await client.get("/oauth2callback")
        again = await client.get("/oauth2callback")
        # Another server of this host may write cookies.
        planted = {"cookie": f"{serve.next_page_cookie()}=%2F%2Fevil.example"}
        led = await client.get("/oauth2callback", headers=planted)

    assert begun.headers["location"] == "/auth/default"
    for part in ("HttpOnly", "SameSite=lax", "Secure"):
        assert part in begun.headers["set-cookie"]
    assert back.headers["location"] == landed
    assert all("; Secure" in cookie for cookie in back.headers.get_list("set-cookie"))
    assert (again.headers["location"], led.headers["location"]) == ("/", "/")


@pytest.mark.usefixtures("options")
async def test_a_link_asks_before_it_signs_in_and_says_who_is_signed_in_now(
    house: Installation,
) -> None:
    key, text = key_of(house)
    ann = key_of(house, "ann")[1]
    headers = {"origin": ORIGIN}
    async with browser() as client:
        await client.post("/sign-in", data={"key": ann}, headers=headers)
        link = link_of(house, key)
        asked = await client.post("/sign-in", data={"link": link}, headers=headers)
        assert "This link signs you in as <b>ben</b> (approver)" in asked.text
        assert "You are signed in as <b>ann</b>; that session ends then." in asked.text
        assert "set-cookie" not in asked.headers

        opened = await client.post(
            "/sign-in",
            data={"link": link, "confirm": "yes"},
            headers=headers,
        )
        again = await client.post("/sign-in", data={"link": link}, headers=headers)
    assert opened.status_code == 303
    assert again.status_code == 403
    assert "only once" in again.text

    async with browser() as thief:
        stolen = await thief.post("/sign-in", data={"link": link}, headers=headers)
    assert "another person may have it" in stolen.text
    assert text not in stolen.text


@pytest.mark.usefixtures("options", "house")
async def test_what_is_no_key_and_no_form_is_refused_in_words() -> None:
    headers = {"origin": ORIGIN}
    async with browser() as client:
        wrong = await client.post("/sign-in", data={"key": "sg-mgmt-<b>"}, headers=headers)
        huge = await client.post("/sign-in", content=b"key=" + b"x" * 9_000, headers=headers)
        many = await client.post("/sign-in", content=b"&a=1" * 99, headers=headers)
        empty = await client.post("/sign-in", headers=headers)

    assert wrong.status_code == 403
    assert "this management key is unknown or revoked" in wrong.text
    for answer in (huge, many, empty):
        assert answer.status_code == 403
        assert "Not signed in" in answer.text


@pytest.mark.usefixtures("options")
async def test_who_guesses_is_logged_and_slowed_down_and_the_right_key_opens_at_once(
    house: Installation,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = key_of(house)[1]
    link = link_of(house)
    headers = {"origin": ORIGIN}
    async with browser() as client:
        with monkeypatch.context() as reading:
            reading.setattr(house.context.store, "write", None)
            guesses = [
                await client.post(
                    "/sign-in",
                    data={"link": f"{link}x", "confirm": "yes"},
                    headers=headers,
                )
                for _ in range(13)
            ]
        right = await client.post("/sign-in", data={"key": text}, headers=headers)

    assert {answer.status_code for answer in guesses[:10]} == {403}
    slowed = guesses[-1]
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "1")
    assert "too many wrong keys or links" in slowed.text
    assert right.status_code == 303
    lines = [line for line in caplog.messages if line.startswith("sign_in_refused")]
    assert 10 <= len(lines) < 13
    assert lines[0].startswith("sign_in_refused: by a link, from 127.0.0.1: this link is not")
    assert link not in caplog.text
