"""`swapgate provider` lists, shows, adds, changes and removes providers, where models are
called, while routers serve; `matrix` says what their models can do.
"""

from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session, pass_session
from harness.cli.routing.target_options import body_fields
from harness.control.providers import registry
from harness.control.providers.registry import ProviderChange, ProviderSummary
from harness.domain.providers.catalogue import COLUMNS

if TYPE_CHECKING:
    from harness.control.providers.matrix import MatrixModel, MatrixRow

Pairs = tuple[str, ...]
KEY = LazyCommand(
    "harness.cli.credentials:provider_key", "Keys of providers: stored encrypted, never shown."
)


@click.command(cls=LazyCommandGroup, lazy={"key": KEY})
def provider() -> None:
    """Providers: where models are called, and their keys."""


@provider.command("list")
@pass_session
def list_providers(session: Session) -> None:
    """List the providers, and the routes that use them."""
    providers = registry.list_providers(session.context_with_providers)
    output.listing(
        session,
        providers,
        lambda row: {
            "PROVIDER": row.name,
            "KIND": row.kind,
            "GROUP": row.group,
            "API BASE": row.api_base,
            "ROUTES": ", ".join(row.routes),
        },
        empty="no provider yet: `swapgate provider add openai` adds one",
    )


@provider.command("matrix")
@pass_session
def show_matrix(session: Session) -> None:
    """What each provider's models can do, configured or not, healthy or not."""
    from harness.control.providers.matrix import build_matrix  # noqa: PLC0415 - `--help` stays quick

    rows = build_matrix(session.context_with_providers)
    output.listing(
        session,
        [(row, model) for row in rows for model in (row.models or (None,))],
        lambda pair: _matrix_cells(*pair),
        empty="no provider is known",
        as_document=lambda _: rows,
    )


def _matrix_cells(row: "MatrixRow", model: "MatrixModel | None") -> dict[str, object]:
    return {
        "PROVIDER": row.provider,
        "CONFIGURED": "yes" if row.configured else "no",
        "HEALTH": row.health,
        "MODEL": model.model if model else "",
        **{column.upper(): model.abilities[column] if model else "" for column in COLUMNS},
    }


@provider.command()
@click.argument("name")
@pass_session
def show(session: Session, name: str) -> None:
    """Show one provider; of its extra headers the names alone."""
    _print_provider(session, registry.get_provider(session.context_with_providers, name))


def _print_provider(session: Session, summary: ProviderSummary) -> None:
    if session.json:
        output.document(summary)
        return
    output.facts(
        [
            ("provider", summary.name),
            ("kind", f"{summary.kind} ({summary.group})"),
            ("api base", summary.api_base),
            (
                "key from",
                ", ".join(filter(None, (summary.api_key_env, *summary.more_api_key_envs))),
            ),
            ("extra headers", ", ".join(summary.extra_headers)),
            ("extra body", ", ".join(summary.extra_body)),
            ("routes", ", ".join(summary.routes)),
            (
                "answers since",
                timestamp(summary.answers_since) if summary.answers_since else None,
            ),
        ]
    )
    for entry in summary.outdated:
        output.note(f"waits for new proof: {entry}")


def _settings(function: click.decorators.FC) -> click.decorators.FC:
    for option in (
        click.option(
            "--extra-body",
            "body",
            multiple=True,
            metavar="KEY=VALUE",
            help="Field added to every request body; VALUE is JSON or text. May be repeated.",
        ),
        click.option(
            "--extra-header",
            "headers",
            multiple=True,
            metavar="NAME=VALUE",
            help="Header sent with every request. May be repeated; replaces all existing ones.",
        ),
        click.option(
            "--key-env", metavar="NAME", help="Environment variable that holds its key."
        ),
        click.option(
            "--api-base", metavar="URL", help="API address. [default: that of its kind]"
        ),
    ):
        function = option(function)
    return function


def _provider_change(
    kind: str | None,
    base: str | None,
    env: str | None,
    headers: Pairs,
    body: Pairs,
    reason: str = "",
) -> ProviderChange:
    named = [header.partition("=") for header in headers]
    for name, equals, _ in named:
        if not (name and equals):
            # Not the value, which may be a secret.
            raise click.BadParameter("a header is NAME=VALUE", param_hint="--extra-header")
    if len({name for name, _, _ in named}) < len(named):
        raise click.BadParameter("a header is given twice", param_hint="--extra-header")
    return ProviderChange(
        kind,
        base,
        env,
        {name: value for name, _, value in named} if headers else None,
        body_fields("--extra-body", body) if body else None,
        reason,
    )


@provider.command()
@click.argument("name")
@click.option("--kind", help="Kind of provider, which sets the protocol. [default: NAME]")
@_settings
@pass_session
def add(
    session: Session,
    name: str,
    kind: str | None,
    api_base: str | None,
    key_env: str | None,
    headers: Pairs,
    body: Pairs,
) -> None:
    """Add a provider. Routers know it within two seconds; no route uses it yet.

    NAME stands before its models, as in NAME/MODEL. Its key: `swapgate provider key set NAME`.
    """
    change = _provider_change(kind, api_base, key_env, headers, body)
    ctx, who = session.context_with_providers, session.deciding_actor
    _print_provider(session, registry.change_provider(ctx, who, name, change, create=True))


@provider.command("set")
@click.argument("name")
@_settings
@click.option(
    "--reason",
    default="",
    help="Reason; required to change the address or headers of a provider that a route uses.",
)
@pass_session
def set_provider(
    session: Session,
    name: str,
    api_base: str | None,
    key_env: str | None,
    headers: Pairs,
    body: Pairs,
    reason: str,
) -> None:
    """Change a provider; what is not named stays as it is.

    With another address or other headers, routes keep using the provider, and what was
    measured before is no longer proof. --extra-body is refused once something was proven
    with the provider: add another provider instead.
    """
    change = _provider_change(None, api_base, key_env, headers, body, reason)
    ctx, who = session.context_with_providers, session.deciding_actor
    _print_provider(session, registry.change_provider(ctx, who, name, change, create=False))


@provider.command()
@click.argument("name")
@pass_session
def remove(session: Session, name: str) -> None:
    """Remove a provider; refused, exit code 6, while a route or a proposal uses it."""
    session.decide(registry.remove_provider, name)
    if name in session.installation.settings.providers:
        output.note(f"{name} stands in the file, too: take it out, lest a start brings it back")
    output.answer(session, {"removed": name}, f"removed {name}")
