"""`swapgate provider`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    LazyCommand,
    LazyCommandGroup,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.routing.route_options import body_fields
from harness.providers.models.catalogue import COLUMNS
from harness.registry import registered_providers
from harness.registry.registered_providers import ProviderSummary
from harness.registry.targets import ProviderChange

if TYPE_CHECKING:
    from harness.routes.matrix import MatrixModel, MatrixRow

KEY = LazyCommand(
    "harness.interfaces.cli.credentials:provider_key",
    "Keys of providers: stored encrypted, never shown.",
)


@click.command(cls=LazyCommandGroup, lazy={"key": KEY})
def provider() -> None:
    """Providers: where models are called, and their keys."""


@command(provider, "list")
def list_providers(session: Session) -> None:
    """List the providers, and the routes that use them."""
    providers = registered_providers.list_providers(session.context_with_providers)
    output.listing(
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


@command(provider, "matrix")
def show_matrix(session: Session) -> None:
    """Show each provider's health, and the abilities of its models."""
    from harness.routes.matrix import build_matrix  # noqa: PLC0415 - `--help` stays quick

    rows = build_matrix(session.context_with_providers)
    output.listing(
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


@command(provider)
def show(session: Session, name: str) -> None:
    """Show a provider, without the values of its extra headers."""
    _print_provider(
        session, registered_providers.get_provider(session.context_with_providers, name)
    )


def _print_provider(session: Session, summary: ProviderSummary) -> None:
    output.record(
        summary,
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
        ],
    )
    for entry in () if session.json else summary.outdated:
        output.note(f"waits for new proof: {entry}")


@dataclass(frozen=True, kw_only=True)
class _ProviderOptions:
    api_base: str | None = opt("API address. [default: the kind's address]", metavar="URL")
    key_env: str | None = opt("Environment variable that holds its key.", metavar="NAME")
    headers: tuple[str, ...] = opt(
        "Header of every request. May be repeated; replaces all existing headers.",
        "--extra-header",
        metavar="NAME=VALUE",
    )
    body: tuple[str, ...] = opt(
        "Field of every request body; VALUE is JSON or text. May be repeated.",
        "--extra-body",
        metavar="KEY=VALUE",
    )

    def change(self, kind: str | None = None, reason: str = "") -> ProviderChange:
        named = [header.partition("=") for header in self.headers]
        for name, equals, _ in named:
            if not (name and equals):
                # Do not show the value, which may be a secret.
                raise click.BadParameter("a header is NAME=VALUE", param_hint="--extra-header")
        if len({name for name, _, _ in named}) < len(named):
            raise click.BadParameter("a header is given twice", param_hint="--extra-header")
        headers = {name: value for name, _, value in named} if named else None
        body = body_fields("--extra-body", self.body) if self.body else None
        return ProviderChange(kind, self.api_base, self.key_env, headers, body, reason)


@command(provider)
def add(
    session: Session,
    name: str,
    *,
    kind: str | None = opt("Kind of provider, which sets the protocol. [default: NAME]"),
    options: _ProviderOptions = taken_from(_ProviderOptions),
) -> None:
    """Add a provider. Routers know it within two seconds; no route uses it yet.

    Its models are called NAME/MODEL. Store its key with `swapgate provider key set NAME`.
    """
    change = options.change(kind)
    ctx, who = session.context_with_providers, session.deciding_actor
    _print_provider(
        session, registered_providers.change_provider(ctx, who, name, change, create=True)
    )


@command(provider, "set")
def set_provider(
    session: Session,
    name: str,
    *,
    options: _ProviderOptions = taken_from(_ProviderOptions),
    reason: str = opt(
        "Reason; required to change the address or headers of a provider in use.",
        default="",
    ),
) -> None:
    """Change a provider; settings without an option stay.

    After a change of address or headers, earlier measurements no longer count as proof. Once a
    verdict exists, --extra-body cannot change: add another provider instead.
    """
    change = options.change(reason=reason)
    ctx, who = session.context_with_providers, session.deciding_actor
    _print_provider(
        session, registered_providers.change_provider(ctx, who, name, change, create=False)
    )


@command(provider)
def remove(session: Session, name: str) -> None:
    """Remove a provider. Exit code 6 if a route or a proposal uses it."""
    session.decide(registered_providers.remove_provider, name)
    if name in session.installation.settings.providers:
        output.note(
            f"{name} is also in the file: delete it there, or the next start adds it again"
        )
    output.answer({"removed": name}, f"removed {name}")
