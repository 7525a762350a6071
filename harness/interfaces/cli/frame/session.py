"""`Session` is one call of the command line. This module also defines the global options."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from harness.frame.errors import InputError, NotAllowed
from harness.frame.people.access import OPERATOR

if TYPE_CHECKING:
    from harness.app.configuration.model import Settings
    from harness.app.installation import FileVersion, Installation
    from harness.frame.people.access import Actor
    from harness.operations.context import Context

P = ParamSpec("P")
R = TypeVar("R")
KEY_VARIABLE = "SWAPPROOF_MANAGEMENT_KEY"
# These commands set up or repair this machine's installation, or need no installation. They
# must work without a database, so they check a management key only when they use it.
LOCAL_COMMANDS: Final = frozenset(
    {
        "init",
        "serve",
        "doctor",
        "demo",
        "sim",
        "try",
        "mcp",
        "worker",
        "db",
        "config",
        "eval-worker",
        "eval-worker-template",
        "router-worker",
        "completion",
        "docs",
        "status",
        "gate decide",
        "canary decide",
        "proof verify",
    }
)


@dataclass
class Session:
    """Holds one call's options and opens the installation on first use."""

    config: Path | None = None
    json: bool = False
    key_file: Path | None = None
    debug: bool = False

    @cached_property
    def actor(self) -> "Actor":
        """The management key's principal. Without a key, it is the operator of this machine,
        who can read the database and the secret anyway.

        Raises NotAllowed for an unknown key.
        """
        text = self.key_text()
        if text is None:
            return OPERATOR
        from harness.operations import keys  # noqa: PLC0415 - pydantic and YAML are slow to import

        ctx = self.installation.context
        try:
            return keys.authenticate(ctx.store, text, secret=self.installation.secret)
        except NotAllowed as error:
            source = self.key_file or KEY_VARIABLE
            raise NotAllowed(
                f"{source}: {error}. Give a key that `swapproof key create NAME --role ROLE` "
                "printed, or no key, to act as the operator of this machine"
            ) from None

    @cached_property
    def deciding_actor(self) -> "Actor":
        """The actor of a command that decides. If another could act, the first use prints the
        actor on stderr. Raises as `actor`.
        """
        actor = self.actor
        if actor is not OPERATOR or self.knows_other_principals:
            click.echo(f"acting as {self._describe(actor)}", err=True)
        return actor

    @cached_property
    def knows_other_principals(self) -> bool:
        """Whether a person or service other than this machine's operator could act, too."""
        from harness.frame.people.records import Principals  # noqa: PLC0415 - `--help` stays quick

        with self.context.store.read() as tx:
            stored = Principals(tx).all()
        return any(principal.id != OPERATOR.principal for principal in stored)

    def decide(
        self,
        use_case: "Callable[Concatenate[Context, Actor, P], R]",
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> R:
        """Calls a use case as `deciding_actor`. Raises as `actor` and the use case do."""
        return use_case(self.context, self.deciding_actor, *arguments, **keywords)

    def _describe(self, actor: "Actor") -> str:
        if actor is OPERATOR:
            return f"{actor.name}, the operator of this machine (admin)"
        source = self.key_file or KEY_VARIABLE
        return f"{actor.name} ({actor.role.name.lower()}), by the key in {source}"

    def key_text(self) -> str | None:
        """Reads the management key from the file, else the environment. Raises InputError."""
        if self.key_file is None:
            return os.environ.get(KEY_VARIABLE) or None
        try:
            text = self.key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = error.strerror
            raise InputError(f"the key in {self.key_file} cannot be read: {reason}") from None
        except UnicodeDecodeError:
            raise InputError(f"{self.key_file} is not text: it must hold a key") from None
        if not text:
            raise InputError(f"{self.key_file} is empty: it must hold a management key")
        return text

    @cached_property
    def _settings_and_version(self) -> "tuple[Settings, FileVersion | None]":
        from harness.app.installation import read_settings  # noqa: PLC0415 - pydantic and YAML are slow to import

        return read_settings(self.config)

    @property
    def settings(self) -> "Settings":
        return self._settings_and_version[0]

    @cached_property
    def installation(self) -> "Installation":
        from harness.app.installation import open_installation  # noqa: PLC0415 - pydantic and YAML are slow to import

        return open_installation(self.config, read=self._settings_and_version)

    @property
    def context(self) -> "Context":
        """The context for use cases. Raises ConfigError, StoreUnavailable."""
        return self.installation.context

    @property
    def context_with_providers(self) -> "Context":
        """The context, after storing the file's providers that the database lacks."""
        from harness.providers.records import Providers  # noqa: PLC0415 - pydantic and YAML are slow to import
        from harness.providers.registry import targets  # noqa: PLC0415

        ctx = self.context
        settings = self.installation.settings
        with ctx.store.read() as tx:
            stored_providers = Providers(tx).all()
        for name, provider in settings.providers.items():
            if name not in stored_providers:
                targets.put_provider(ctx, self.actor, provider)
        return ctx

    def close(self) -> None:
        if "installation" in self.__dict__:
            self.installation.close()


def _store_option(
    ctx: click.Context,
    param: click.Parameter,
    value: object,
) -> object:
    session = ctx.ensure_object(Session)
    name = param.opts[0].lstrip("-").replace("-", "_")
    if value:
        setattr(session, name, value)
        # Reads the file now, so that even a command that needs no key reports a bad file.
        session.key_text()
    return getattr(session, name)


def global_options(*, root: bool) -> list[click.Option]:
    """Builds the global options. The help of subcommands hides all but --json."""
    file = {
        "type": click.Path(dir_okay=False, path_type=Path),
        "metavar": "FILE",
    }
    flag = {"is_flag": True}
    key_help = (
        "Act with the management key in FILE, as its principal and with its role. "
        f"[default: {KEY_VARIABLE}, else the operator of this machine, an admin]"
    )
    config_help = "Configuration file. [default: SWAPPROOF_CONFIG, else ./swapproof.yaml]"
    options: dict[str, tuple[dict[str, Any], str]] = {
        "--config": (file, config_help),
        "--json": (flag, "Print one JSON document on stdout."),
        "--key-file": (file, key_help),
        "--debug": (flag, "Show the traceback of an unexpected error."),
    }
    return [
        click.Option(
            [name],
            help=text,
            callback=_store_option,
            expose_value=False,
            hidden=not root and name != "--json",
            **attributes,
        )
        for name, (attributes, text) in options.items()
    ]


def _is_local(path: str) -> bool:
    return path in LOCAL_COMMANDS or path.partition(" ")[0] in LOCAL_COMMANDS


def _check_key_first(command: click.Command) -> None:
    """Makes the command check a given management key before it runs."""
    callback = command.callback
    if callback is None or getattr(callback, "checks_key", False):
        return

    @wraps(callback)
    def check_and_run(*args: object, **kwargs: object) -> object:
        context = click.get_current_context()
        session = context.ensure_object(Session)
        path = context.command_path.partition(" ")[2]
        if session.key_text() is not None and not _is_local(path):
            _ = session.actor
        return callback(*args, **kwargs)

    check_and_run.checks_key = True  # type: ignore[attr-defined]  # a command may be adopted several times
    command.callback = check_and_run


def adopt_options(command: click.Command) -> click.Command:
    """Adds the missing global options to the command and its subcommands."""
    # Otherwise click cuts the help at the terminal's width.
    command.short_help = command.short_help or command.get_short_help_str(200)
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            adopt_options(subcommand)
    else:
        _check_key_first(command)
    own_flags = {name for param in command.params for name in param.opts}
    for param in command.params:
        # A --json before the verb must also set the command's own --json.
        if "--json" in param.opts and param.callback is None:
            param.callback = _store_option
    missing_options = [
        o for o in global_options(root=False) if not own_flags.intersection(o.opts)
    ]
    command.params.extend(missing_options)
    return command
