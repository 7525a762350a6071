"""`swapproof provider` manages providers, `swapproof provider key` their keys."""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.frame.configuration.setting_values import describe_settings
from harness.frame.errors import InputError
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    EXISTING_FILE,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.setting_options import given_options, options_of
from harness.interfaces.cli.routing.route_options import body_fields
from harness.providers.models.catalogue import COLUMNS
from harness.providers.oauth import DeviceCode
from harness.providers.registry import credentials, registered_providers, sign_in
from harness.providers.registry.credentials import DEFAULT_KEY_NAME, CredentialChange
from harness.providers.registry.operations import PROVIDER_KEYS, PROVIDERS
from harness.providers.registry.registered_providers import ProviderSummary
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import ProviderSettings

if TYPE_CHECKING:
    from harness.routing.reports.matrix import MatrixModel, MatrixRow


provider = operation_group(PROVIDERS)


@command(provider, "matrix", example="swapproof provider matrix")
def show_matrix(session: Session) -> None:
    """Show each provider's health, and the abilities of its models."""
    from harness.routing.reports.matrix import build_matrix  # noqa: PLC0415 - `--help` stays quick

    rows = build_matrix(session.context_with_providers)
    output.listing(
        [(row, model) for row in rows for model in (row.models or (None,))],
        lambda pair: _build_matrix_cells(*pair),
        empty="no provider is known",
        as_document=lambda _: rows,
    )


def _build_matrix_cells(row: "MatrixRow", model: "MatrixModel | None") -> dict[str, object]:
    return {
        "PROVIDER": row.provider,
        "CONFIGURED": "yes" if row.configured else "no",
        "HEALTH": row.health,
        "MODEL": model.model if model else "",
        **{column.upper(): model.abilities[column] if model else "" for column in COLUMNS},
    }


@command(provider, example="swapproof provider show openai")
def show(session: Session, name: str) -> None:
    """Show a provider, without the values of its extra headers."""
    _print_provider(
        session,
        registered_providers.get_provider(session.context_with_providers, name),
    )


def _print_provider(session: Session, summary: ProviderSummary) -> None:
    keys = filter(None, (summary.api_key_env, *summary.more_api_key_envs))
    output.record(
        summary,
        [
            ("provider", summary.name),
            ("kind", f"{summary.kind} ({summary.group})"),
            *{**describe_settings(summary), "key from": ", ".join(keys)}.items(),
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
    plain: object = taken_from(options_of(ProviderSettings, new="New providers"))
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
        pairs = [header.partition("=") for header in self.headers]
        for name, equals, _ in pairs:
            if not (name and equals):
                # Do not show the value, which may be a secret.
                raise click.BadParameter("a header is NAME=VALUE", param_hint="--extra-header")
        if len({name for name, _, _ in pairs}) < len(pairs):
            raise click.BadParameter("a header is given twice", param_hint="--extra-header")
        headers = {name: value for name, _, value in pairs} if pairs else None
        body = body_fields("--extra-body", self.body) if self.body else None
        return ProviderChange(kind, given_options(self.plain), headers, body, reason)


@command(provider, example="swapproof provider add mistral --key-env MISTRAL_API_KEY")
def add(
    session: Session,
    name: str,
    *,
    kind: str | None = opt("Kind of provider, which sets the protocol. [default: NAME]"),
    options: _ProviderOptions = taken_from(_ProviderOptions),
) -> None:
    """Add a provider. Routers know it within two seconds; no route uses it yet.

    Its models are called NAME/MODEL. Store its key with `swapproof provider key set NAME`.
    """
    change = options.change(kind)
    ctx = session.context_with_providers
    actor = session.deciding_actor
    _print_provider(
        session,
        registered_providers.change_provider(ctx, actor, name, change, create=True),
    )


@command(
    provider, "set", example="swapproof provider set openai --key-env OPENAI_PRODUCTION_KEY"
)
def set_provider(
    session: Session,
    name: str,
    *,
    kind: str | None = opt("Kind of provider, which sets the protocol. [default: unchanged]"),
    options: _ProviderOptions = taken_from(_ProviderOptions),
    reason: str = opt(
        "Reason; required to change the kind, address or headers of a provider in use.",
        default="",
    ),
) -> None:
    """Change a provider; settings without an option stay.

    After a change of kind, address or headers, earlier measurements no longer count as proof.
    Once results depend on --extra-body, it cannot change: add another provider instead.
    """
    change = options.change(kind, reason=reason)
    ctx = session.context_with_providers
    actor = session.deciding_actor
    _print_provider(
        session,
        registered_providers.change_provider(ctx, actor, name, change, create=False),
    )


@command(provider, example="swapproof provider remove mistral")
def remove(session: Session, name: str) -> None:
    """Remove a provider. Exit code 6 if a route or a proposal uses it."""
    session.decide(registered_providers.remove_provider, name)
    if name in session.installation.settings.providers:
        output.note(
            f"{name} is also in the file: delete it there, or the next start adds it again"
        )
    output.answer({"removed": name}, f"removed {name}")


@command(example="swapproof provider key login github_copilot")
def login(session: Session, provider: str) -> None:
    """Sign in to github_copilot or openai_codex, by a code on the vendor's page.

    Needs `oauth.PROVIDER.client_id` in the file. The control process renews the tokens.
    """
    tokens = sign_in.sign_in(
        session.context_with_providers,
        session.deciding_actor,
        provider,
        show=_print_code,
        pause=time.sleep,
    )
    until = f"; the token in use lasts until {timestamp(tokens.access_ends)}"
    text = f"{provider}: signed in{until if tokens.access_ends else ''}"
    output.answer(tokens, text)


def _print_code(code: DeviceCode) -> None:
    output.note(
        f"open {code.verification_url} and type {code.user_code}\n"
        f"(within {code.expires_in_s / 60:.0f} minutes; keep the code secret)"
    )


provider_key = operation_group(PROVIDER_KEYS)
provider.add_command(provider_key)
provider_key.add_command(login)


@command(provider_key, "set", example="swapproof provider key set openai < openai.key")
def set_credential(
    session: Session,
    provider: str,
    *,
    key: str = opt("Name of the stored key.", default=DEFAULT_KEY_NAME),
    first: bool = opt("Use this key before the provider's other keys."),
    overlap: timedelta | None = opt(
        "Time to keep the replaced key as second choice: 30m, 2h, 1d. [default: delete it]"
    ),
    api_base: str | None = opt(
        "The provider's API address. [default: unchanged]", metavar="URL"
    ),
    kind: str | None = opt("Kind of a new provider. [default: its name]"),
    reason: str = opt(
        "Reason; required to change the address of a provider in use.",
        default="",
    ),
) -> None:
    """Store a provider's key. The command prompts for the key, or reads it from stdin.

    If PROVIDER is a known kind, such as groq, the command adds a missing provider. Stored keys
    take precedence over environment variables.
    """
    credentials.check_provider(session.context, provider, kind)
    value = _read_key(provider)
    change = CredentialChange(
        kind,
        {} if api_base is None else {"api_base": api_base},
        reason=reason,
        value=value,
        key=key,
        first=first,
        overlap=overlap,
    )
    stored_key = credentials.put_credential(
        session.context_with_providers,
        session.deciding_actor,
        provider,
        change,
    )
    output.answer(stored_key, f"{provider}: key {key!r} is stored")
    for entry in () if session.json else stored_key.outdated:
        output.note(f"waits for new proof: {entry}")
    if stored_key.listing:
        output.note(stored_key.listing)


def _read_key(provider: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Key of {provider}", hide_input=True, err=True))
    return sys.stdin.read()


@command(provider_key, "import", example="swapproof provider key import --from .env")
def import_credentials(
    session: Session,
    *,
    file: Path | None = opt(
        "A .env file. [default: the environment]",
        "--from",
        type=EXISTING_FILE,
        metavar="FILE",
    ),
    replace: bool = opt("Replace keys that are already stored."),
) -> None:
    """Store keys from environment variables or a .env file, such as OPENAI_API_KEY."""
    ctx = session.context_with_providers
    imported_keys = credentials.import_credentials(
        ctx,
        session.deciding_actor,
        _read_env_file(file) if file else os.environ,
        replace_known=replace,
    )
    output.listing(
        imported_keys,
        lambda row: {
            "PROVIDER": row.provider,
            "FROM": row.variable,
            "": "kept its key" if row.kept else "stored",
        },
        empty="no key was found: no provider's variable is set",
    )


def _read_env_file(file: Path) -> Mapping[str, str]:
    from dotenv import dotenv_values  # noqa: PLC0415 - `--help` stays quick

    try:
        variables = dotenv_values(file, interpolate=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not a .env file: {type(error).__name__}") from None
    return {name: value for name, value in variables.items() if value}


@command(
    provider_key,
    "rotate-encryption",
    example="swapproof provider key rotate-encryption --new-key",
)
def rotate_encryption(
    session: Session,
    *,
    new_key: bool = opt("First add a new encryption key to the key file."),
) -> None:
    """Re-encrypt every stored key with the first encryption key.

    The other keys still decrypt until you remove them.
    """
    from harness.app.database import add_encryption_key  # noqa: PLC0415 - `--help` stays quick

    if new_key:
        add_encryption_key(session.installation.settings)
    rotation = session.decide(credentials.rotate_encryption)
    output.answer(rotation, f"{rotation.values} values are encrypted with the newest key")
