import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from tests.support.browser.agent_sessions import create_key, opened
from tests.support.browser.dashboard_data import configured
from tests.support.browser.dashboard_server import (
    Listener,
    assert_accessible,
    assert_no_sideways_scroll,
    await_answer,
    dashboard,
    sign_in,
)
from tests.support.site.processes import free_port

PEOPLE = {
    "u-dora": ("dora@example.com", ["leads", "golf"]),
    "u-eve": ("eve@example.com", ["golf"]),
    "u-gus": ("gus@example.com", ["pay-leads", "find-team"]),
}


@pytest.mark.verify
def test_a_form_leads_from_an_empty_installation_to_a_first_proposal(
    page: Page, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    key = create_key(config, "ada")
    with dashboard(config) as address:
        listener = Listener(page)
        page.goto(address)
        expect(page.locator("h1")).to_have_text("No route yet")
        make = page.get_by_role("button", name="Make the route")
        expect(make).to_be_disabled()
        sign_in(page, key)
        page.set_viewport_size({"width": 390, "height": 844})
        assert_no_sideways_scroll(page)
        assert_accessible(page)
        make.click()

        expect(page.get_by_text("Route support is made.")).to_be_visible()
        expect(page.get_by_text("Connection refused")).to_be_visible()
        page.get_by_role("link", name="Proposals: what is being evaluated").click()
        expect(page.locator(".stMain")).to_contain_text("sim/sim-better")
        listener.assert_quiet()


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    people = [
        json.dumps(
            {
                "sub": sub,
                "email": email,
                "email_verified": True,
                "groups": groups,
            }
        )
        for sub, (email, groups) in PEOPLE.items()
    ]
    words = [word for person in people for word in ("--user-claims", person)]
    log = tmp_path / "issuer.log"
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603 - our own words
            [
                sys.executable,
                "-m",
                "oidc_provider_mock",
                "--port",
                str(port),
                *words,
            ],
            stdout=output,
            stderr=output,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        await_answer(f"{address}/.well-known/openid-configuration", server, log)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.mark.req("F5")
def test_single_sign_on_gives_the_role_of_the_group_until_the_sign_out(
    page: Page,
    issuer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWAPPROOF_OIDC_SECRET", "a-client-secret")
    config = configured(tmp_path)
    port = free_port()
    with config.open("a", encoding="utf-8") as file:
        file.write(SECTION.format(issuer=issuer, port=port))
    # The server's pages ask for a style sheet from elsewhere.
    page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
    with dashboard(config, port) as address:
        page.goto(f"{address}/routes")
        expect(page.locator("h1")).to_have_text("Sign in to Swapproof")
        expect(page.get_by_text("Copy as CLI")).to_have_count(0)
        assert_accessible(page)

        sign_on(page, "u-eve")
        expect(page.get_by_text("eve@example.com is in none of the groups")).to_be_visible()
        expect(page.get_by_text("Copy as CLI")).to_have_count(0)
        page.get_by_role("button", name="Sign out there").click()
        page.get_by_role("button", name="End session").click()

        page.goto(f"{address}/audit?actor=dora")
        sign_on(page, "u-dora")
        expect(page.get_by_text("dora@example.com · approver")).to_be_visible()
        expect(page).to_have_url(f"{address}/audit?actor=dora")
        page.goto(f"{address}/overview")
        expect(page.get_by_role("button", name="Make the route")).to_be_disabled()
        expect(page.get_by_text("has the role approver; this needs admin.")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="End session").click()
        expect(page.locator("h1")).to_have_text("Sign in to Swapproof")

    assert [(e.actor, e.action) for e in audited(config, "dashboard.")] == [
        ("dora@example.com", "dashboard.sign_in"),
        ("dora@example.com", "dashboard.sign_out"),
    ]


SECTION = """
ui:
  oidc:
    issuer: {issuer}
    client_id: swapproof
    client_secret_env: SWAPPROOF_OIDC_SECRET
    public_url: http://127.0.0.1:{port}
    roles: {{leads: approver, staff: viewer}}
"""


def sign_on(page: Page, subject: str) -> None:
    """As a person does: here, at the server, and back."""
    page.get_by_role("link", name="Sign in with single sign-on").click()
    page.get_by_role("button", name=subject).click()


def audited(config: Path, kind: str) -> list[AuditEvent]:
    with opened(config) as installation, installation.store.read() as tx:
        return [e for e in reversed(AuditLog(tx).tail(50)) if e.action.startswith(kind)]
