"""Sets up an installation in a folder, for `swapgate init`. Never overwrites existing files.

`temporary_installation` sets up one for a single comparison. The secrets are in `secret_files`,
the first rows in `seed`, the conversion of LiteLLM's file in `gateways.litellm_import`.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from harness.app import secret_files, seed
from harness.app.configuration import configuration
from harness.app.configuration.model import RunQueueKind
from harness.app.database import upgrade_database
from harness.app.eval_workers.run import open_with_workers
from harness.app.gateways.litellm_import import convert_litellm
from harness.app.installation import (
    Installation,
    config_file,
    load_settings,
    open_installation,
    read_dotenv,
)
from harness.frame import package_data
from harness.frame.configuration.config_conversion import Conversion, NothingTaken, SourceConfig
from harness.frame.configuration.dotenv import dotenv_names
from harness.frame.configuration.source_locations import parse_file
from harness.frame.errors import ConfigError, InputError
from harness.frame.pagination import PageRequest
from harness.frame.people.access import (
    FIRST_LINK_LASTS,
    LOCAL_PRINCIPAL,
    OPERATOR,
    Role,
    sign_in_url,
)
from harness.operations import dashboard_sessions, keys, queries
from harness.proposals.report.content import DATABASE_FILE, DATABASE_VARIABLE, database_url
from harness.providers.records import Providers
from harness.providers.registry.credentials import list_key_variables
from harness.providers.target import Provider
from harness.routing.control import routes

SCHEMA_NAME = "swapgate.schema.json"
TEMPLATE = """\
# yaml-language-server: $schema=swapgate.schema.json
# Settings that are missing here have their defaults; `swapgate config show` prints all.
# Environment variables win: SWAPGATE__ROUTER__PORT=9090, or with a value in a file
# SWAPGATE__DATABASE_URL_FILE=/run/secrets/url.

# The folder for state: SQLite file, secret, disk snapshot.
home: .swapgate
# For production: database_url: postgresql://user@host/database

# The providers of models. Never write a key here: name its environment variable.
# providers:
#   openai:
#     api_base: https://api.openai.com/v1
#     api_key_env: OPENAI_API_KEY
#     prices:
#       gpt-4o-mini: {input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}
#     models:  # abilities that a model lacks, and limits
#       gpt-4o-mini: {context_window: 128000, embeddings: false}
#   anthropic: {kind: anthropic, api_key_env: ANTHROPIC_API_KEY}

# The names that clients use as `model`. `serve all` or `config apply` creates a route from here
# once; then the database applies, and proposals swap its model.
# routes:
#   triage:
#     incumbent: openai/gpt-4o-mini
#     suites: [tickets]
"""


@dataclass(frozen=True, slots=True)
class FoundKey:
    """An environment variable that holds a provider's key. place: where the variable
    was set.
    """

    provider: str
    variable: str
    place: str  # `.env` or `the environment`

    @property
    def text(self) -> str:
        return f"{self.variable} in {self.place}"


@dataclass(frozen=True, slots=True)
class SetUpResult:
    """The result of `swapgate init`. The keys are None if the database already had keys."""

    config: str
    home: str
    created: tuple[str, ...]
    kept: tuple[str, ...]
    seeded: tuple[str, ...]
    found_keys: tuple[FoundKey, ...]  # keys whose providers the database lacks
    has_providers: bool
    has_routes: bool
    not_warm: tuple[str, ...]  # routes whose fallbacks at another provider get no requests
    admin_key: str | None
    data_key: str | None
    sign_in_link: str | None  # opens the dashboard as its admin, once


def set_up(
    given: Path | None,
    *,
    takes: Callable[[Sequence[FoundKey]], bool] = lambda _: False,
) -> SetUpResult:
    """Creates missing files, and changes no existing file. Raises ConfigError.

    takes: gets the provider keys in the environment, and returns whether to add their providers
    to a file that has no providers.
    """
    file = config_file(given, os.environ) or Path.cwd() / configuration.FILE_NAME
    schema = file.with_name(SCHEMA_NAME)
    wanted = {
        file: TEMPLATE,
        schema: json.dumps(configuration.json_schema(), indent=2) + "\n",
    }
    created = {path: _write_new(path, text) for path, text in wanted.items()}
    settings = load_settings(file)
    found = _find_keys(settings.providers.values())
    if found and "providers" not in parse_file(file).values and takes(found):
        _append_providers(file, found)
        settings = load_settings(file)
    secret_file = settings.home / secret_files.SECRET_FILE
    database = Path(settings.database_url.removeprefix("sqlite:///"))
    secret_there = secret_file.exists()
    # Swapgate creates a SQLite database itself, but no other.
    on_sqlite = settings.database_url.startswith("sqlite:///")
    database_there = not on_sqlite or database.exists()
    secret_files.installation_secret(settings, create=True)
    keys_made = secret_files.make_encryption_file(settings)
    signing_made = secret_files.create_keys(settings)
    upgrade_database(settings)
    installation = open_installation(file)
    try:
        seeded = seed.apply_seed(installation.context, settings)
        admin, data, link = _create_first_keys(installation)
        table = routes.load_table(installation.context)
        with installation.context.store.read() as tx:
            providers = Providers(tx).all()
    finally:
        installation.close()
    return SetUpResult(
        config=str(file),
        home=str(settings.home),
        created=(
            *(str(path) for path, new in created.items() if new),
            *(() if secret_there else (str(settings.home), str(secret_file))),
            *(() if database_there else (str(database),)),
            *((str(secret_files.encryption_file(settings)),) if keys_made else ()),
            *(str(path) for path in signing_made),
        ),
        kept=tuple(str(path) for path, new in created.items() if not new),
        seeded=tuple(seeded),
        found_keys=_find_keys(providers.values()),
        has_providers=bool(providers),
        has_routes=bool(table.routes),
        not_warm=tuple(seed.list_not_warm(table)),
        admin_key=admin,
        data_key=data,
        sign_in_link=link and sign_in_url(settings.ui.url, link),
    )


def _find_keys(known: Iterable[Provider]) -> tuple[FoundKey, ...]:
    known = list(known)
    there = {provider.name for provider in known}
    from_file = dotenv_names(os.environ)
    return tuple(
        FoundKey(
            name,
            variable,
            ".env" if variable in from_file else "the environment",
        )
        for name, variable in list_key_variables(known)
        if name not in there and os.environ.get(variable, "").strip()
    )


def _append_providers(file: Path, found: Iterable[FoundKey]) -> None:
    """Appends a `providers:` section to a file that has none. Raises ConfigError."""
    rows = [
        f"  {key.provider}: {{kind: {key.provider}, api_key_env: {key.variable}}}"
        for key in found
    ]
    try:
        with file.open("a", encoding="utf-8") as written:
            written.write("\n".join(("", "providers:", *rows, "")))
    except OSError as error:
        raise ConfigError(f"cannot write {file} ({error.strerror})") from None


def _create_first_keys(installation: Installation) -> tuple[str | None, str | None, str | None]:
    """Creates an admin key, a client key and a sign-in link. All are None if the database has
    keys.
    """
    ctx = installation.context
    secret = installation.secret
    if queries.list_keys(ctx, PageRequest(1)).total:
        return None, None, None
    # The person who sets the installation up is its operator, in the dashboard too.
    admin_key, admin = keys.create_key(
        ctx,
        OPERATOR,
        "admin",
        secret=secret,
        role=Role.ADMIN,
        principal=LOCAL_PRINCIPAL.name,
    )
    _, data = keys.create_key(
        ctx,
        OPERATOR,
        "client",
        secret=secret,
    )
    _, link = dashboard_sessions.create_link(
        ctx,
        OPERATOR,
        admin_key.id,
        secret=secret,
        lasts=FIRST_LINK_LASTS,
    )
    return admin, data, link


def _write_new(path: Path, text: str) -> bool:
    try:
        # The file may contain addresses and, against our advice, keys.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}): run `swapgate init` in your own folder"
        ) from None
    return True


_HEAD: Final = """\
# yaml-language-server: $schema=swapgate.schema.json
# `swapgate init --from {format}` converted {name}. Its report lists the keys that it left out.
# Put keys into environment variables, or use `swapgate provider key set`. Swapgate creates a
# route from here once; then the database applies, and proposals swap its model.
"""


@dataclass(frozen=True, slots=True)
class ConfigImport:
    """The result of an import. config: the path of the written file."""

    format: str
    source: str
    config: str
    conversion: Conversion


def import_config(
    format_name: str,
    source: Path,
    given: Path | None,
) -> ConfigImport:
    """Writes a configuration from another gateway's.

    Raises ConfigError if Swapgate's file exists, NothingTaken if the conversion is empty.
    """
    file = config_file(given, os.environ) or Path.cwd() / configuration.FILE_NAME
    read_dotenv(source.resolve().parent)
    conversion = convert_file(source, os.environ)
    if conversion.config.keys() <= {"home"}:
        reason = f"{source}: Swapgate can take over nothing of it, and wrote no file"
        raise NothingTaken(reason, conversion.notes)
    head = _HEAD.format(format=format_name, name=source.name)
    _write(
        file,
        head + yaml.safe_dump(dict(conversion.config), sort_keys=False, width=96),
    )
    return ConfigImport(format_name, str(source), str(file), conversion)


def convert_file(source: Path, environ: Mapping[str, str]) -> Conversion:
    """Converts LiteLLM's file and writes nothing. Raises ConfigError, InputError."""
    if not source.exists():
        raise InputError(f"{source}: no such file; give the path of LiteLLM's config.yaml")
    document = parse_file(source)
    return convert_litellm(SourceConfig(document.values, document.places, environ))


def _write(file: Path, text: str) -> None:
    """Writes a new configuration, and removes it again if it is invalid. Raises ConfigError."""
    if not _write_new(file, text):
        text = f"{file} exists and is unchanged: move it elsewhere, or use --config"
        raise ConfigError(text)
    try:
        defaults = package_data.path("config/default.yaml")
        configuration.load_settings(file, os.environ, defaults=defaults)
    except ConfigError as error:
        file.unlink()
        text = f"the converted configuration is invalid, and was not written: {error}"
        raise ConfigError(text) from None


@contextmanager
def temporary_installation(
    given: Path | None,
    folder: Path,
    *,
    goes_on: bool = False,
) -> Iterator[Installation]:
    """Uses `folder` for state. goes_on: whether to reuse an earlier call's state. Raises
    InputError.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATABASE_FILE).exists() and not goes_on:
        raise InputError(
            f"{folder / DATABASE_FILE} exists already: give --keep an empty folder"
        )
    # Worker processes read this variable too.
    os.environ[DATABASE_VARIABLE] = database_url(folder)
    os.environ["SWAPGATE__HOME"] = str(folder)
    os.environ["SWAPGATE__CONTROL__QUEUE"] = RunQueueKind.EMBEDDED.value
    if not goes_on:
        os.environ.setdefault("SWAPGATE_SECRET", secrets.token_hex(32))
    installation = open_with_workers(given, create_secret=goes_on)
    try:
        secret_files.create_keys(installation.settings)
        if any(provider.extra_headers for provider in installation.settings.providers.values()):
            secret_files.make_encryption_file(installation.settings)
        upgrade_database(installation.settings)
        yield installation
    finally:
        installation.close()
