"""`swapgate credential login` and `logout`: for providers that people have an account with."""

import time

import click

from harness.cli.frame import formatting, output
from harness.cli.frame.session import Session, pass_session
from harness.control.providers import sign_in
from harness.domain.providers.device_flow import DeviceCode


@click.command()
@click.argument("provider")
@pass_session
def login(session: Session, provider: str) -> None:
    """Sign in for github_copilot or openai_codex: type a code on the vendor's page.

    The tokens are stored encrypted, never shown, and renewed by the control process. Needs
    `oauth.PROVIDER.client_id` in the file.
    """
    done = sign_in.sign_in(
        session.context_with_providers,
        session.actor,
        provider,
        show=_show,
        pause=time.sleep,
    )
    if session.json:
        output.document(done)
        return
    until = f"; the token in use lasts until {formatting.timestamp(done.access_ends)}"
    click.echo(f"{provider}: signed in{until if done.access_ends else ''}")


def _show(code: DeviceCode) -> None:
    output.note(
        f"open {code.verification_url} and type {code.user_code}\n"
        f"(within {code.expires_in_s / 60:.0f} minutes; give the code to nobody)"
    )


@click.command()
@click.argument("provider")
@pass_session
def logout(session: Session, provider: str) -> None:
    """Take the tokens of `login` away. Without another key, its targets get no requests.

    The vendor goes on knowing the application: revoke it there, too.
    """
    sign_in.sign_out(session.context, session.actor, provider)
    if session.json:
        output.document({"provider": provider, "signed_in": False})
    else:
        click.echo(f"{provider}: signed out")
