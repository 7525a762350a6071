"""Sets up an installation in a folder, for `swapproof init`. Never overwrites existing files.

`temporary_installation` sets up an installation for a single comparison. `secret_files` creates
the secrets, `seed` the first rows, and `gateways.litellm_import` converts LiteLLM's file.
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
from harness.app.config_entries import add_entries
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
from harness.proposals import first_route
from harness.proposals.first_route import FirstRoute
from harness.proposals.report.content import DATABASE_FILE, DATABASE_VARIABLE, database_url
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.records import Providers
from harness.providers.registry.credentials import list_key_variables
from harness.providers.target import Provider
from harness.routing.control import routes

SCHEMA_NAME = "swapproof.schema.json"
TEMPLATE = """\
# yaml-language-server: $schema=swapproof.schema.json
# Settings that are missing here have their defaults; `swapproof config show` prints all.
# Environment variables win: SWAPPROOF__ROUTER__PORT=9090, or with a value in a file
# SWAPPROOF__DATABASE_URL_FILE=/run/secrets/url.

# The folder for state: SQLite file, secret, disk snapshot.
home: .swapproof
# For production: database_url: postgresql://user@host/database

# The providers of models. Never write a key here: name its environment variable.
# providers:
#   openai:
#     kind: openai  # sets address, protocol, prices and abilities
#     api_key_env: OPENAI_API_KEY
#     prices:  # for a model that the catalogue lacks, or for a price of your own
#       gpt-6-luna: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.5}
#     models:  # abilities that a model lacks, and limits
#       gpt-6-luna: {context_window: 922000, embeddings: false}
#   anthropic: {kind: anthropic, api_key_env: ANTHROPIC_API_KEY}

# The names that clients use as `model`. `serve all` or `config apply` creates a route from here
# once; then the database applies, and proposals swap its model.
# routes:
#   triage:
#     incumbent: openai/gpt-6-luna
#     suites: [my-suite]  # your own questions: `swapproof docs open how-to/own-suites`
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
    """The result of `swapproof init`. The keys and the link are None if the database already
    had keys.
    """

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
    config_path: Path | None,
    *,
    takes: Callable[[Sequence[FoundKey]], bool] = lambda _: False,
) -> SetUpResult:
    """Creates missing files, and changes no existing file. Raises ConfigError.

    Args:
        takes: gets the providers' keys in the environment.

    Returns whether to add their providers to a file without providers.
    """
    file = config_file(config_path, os.environ) or Path.cwd() / configuration.FILE_NAME
    schema = file.with_name(SCHEMA_NAME)
    text_by_file = {
        file: TEMPLATE,
        schema: json.dumps(configuration.json_schema(), indent=2) + "\n",
    }
    created = {path: _write_new(path, text) for path, text in text_by_file.items()}
    settings = load_settings(file)
    found_keys = _find_keys(settings.providers.values())
    if found_keys and "providers" not in parse_file(file).values and takes(found_keys):
        entries = {
            key.provider: {"kind": key.provider, "api_key_env": key.variable}
            for key in found_keys
        }
        add_entries(file, {"providers": entries})
        settings = load_settings(file)
    secret_file = settings.home / secret_files.SECRET_FILE
    database = Path(settings.database_url.removeprefix("sqlite:///"))
    secret_existed = secret_file.exists()
    # Swapproof creates a SQLite database itself, but not a PostgreSQL database.
    is_sqlite = settings.database_url.startswith("sqlite:///")
    database_existed = not is_sqlite or database.exists()
    secret_files.installation_secret(settings, create=True)
    encryption_key_created = secret_files.create_encryption_file(settings)
    created_key_files = secret_files.create_keys(settings)
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
            *(() if secret_existed else (str(settings.home), str(secret_file))),
            *(() if database_existed else (str(database),)),
            *((str(secret_files.encryption_file(settings)),) if encryption_key_created else ()),
            *(str(path) for path in created_key_files),
        ),
        kept=tuple(str(path) for path, new in created.items() if not new),
        seeded=tuple(seeded),
        found_keys=_find_keys(providers.values()),
        has_providers=bool(providers),
        has_routes=bool(table.routes),
        not_warm=tuple(seed.list_cold_fallback_routes(table)),
        admin_key=admin,
        data_key=data,
        sign_in_link=link and sign_in_url(settings.ui.url, link),
    )


def _find_keys(known_providers: Iterable[Provider]) -> tuple[FoundKey, ...]:
    known_providers = list(known_providers)
    known_names = {provider.name for provider in known_providers}
    from_file = dotenv_names(os.environ)
    return tuple(
        FoundKey(
            name,
            variable,
            ".env" if variable in from_file else "the environment",
        )
        for name, variable in list_key_variables(known_providers)
        if name not in known_names and os.environ.get(variable, "").strip()
    )


def write_first_route(config: Path | None, wanted: FirstRoute, provider: Provider) -> bool:
    """Writes the first route and its provider into the configuration file. Keeps entries that
    the file has.

    Args:
        provider: as the database has it.

    Returns False, without a change, if a section has a form that Swapproof cannot edit. Raises
    ConfigError if the file would be invalid.
    """
    file = config_file(config, os.environ) or Path.cwd() / configuration.FILE_NAME
    return add_entries(
        file,
        {
            "providers": {wanted.provider: _build_provider_entry(provider)},
            "routes": {wanted.route: first_route.build_route_entry(wanted)},
        },
    )


def _build_provider_entry(provider: Provider) -> Mapping[str, object]:
    kind = PROVIDER_KINDS[provider.kind]
    entry: dict[str, object] = {"kind": provider.kind}
    if provider.api_base != kind.api_base:
        entry["api_base"] = provider.api_base
    if provider.api_key_env:
        entry["api_key_env"] = provider.api_key_env
    return entry


def _create_first_keys(installation: Installation) -> tuple[str | None, str | None, str | None]:
    """Creates an admin key, a client key and a sign-in link. All are None if the database has
    keys.
    """
    ctx = installation.context
    secret = installation.secret
    if queries.list_keys(ctx, PageRequest(1)).total:
        return None, None, None
    # The person who sets the installation up is its operator, in the dashboard, too.
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
        # Only the owner may read the file, because it may contain addresses and, against our
        # advice, keys.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}): run `swapproof init` in your own folder"
        ) from None
    return True


_IMPORT_HEADER: Final = """\
# yaml-language-server: $schema=swapproof.schema.json
# `swapproof init --from {format}` converted {name}. Its report lists the keys that it left out.
# Put keys into environment variables, or use `swapproof provider key set`. Swapproof creates a
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
    config_path: Path | None,
) -> ConfigImport:
    """Writes a configuration from another gateway's.

    Raises ConfigError if Swapproof's file exists, NothingTaken if the conversion is empty.
    """
    file = config_file(config_path, os.environ) or Path.cwd() / configuration.FILE_NAME
    read_dotenv(source.resolve().parent)
    conversion = convert_file(source, os.environ)
    if conversion.config.keys() <= {"home"}:
        reason = f"{source}: Swapproof can take over nothing of it, and wrote no file"
        raise NothingTaken(reason, conversion.notes)
    header = _IMPORT_HEADER.format(format=format_name, name=source.name)
    _write_configuration(
        file,
        header + yaml.safe_dump(dict(conversion.config), sort_keys=False, width=96),
    )
    return ConfigImport(format_name, str(source), str(file), conversion)


def convert_file(source: Path, environ: Mapping[str, str]) -> Conversion:
    """Converts LiteLLM's file and writes nothing. Raises ConfigError, InputError."""
    if not source.exists():
        raise InputError(f"{source}: no such file; give the path of LiteLLM's config.yaml")
    document = parse_file(source)
    return convert_litellm(SourceConfig(document.values, document.places, environ))


def _write_configuration(file: Path, text: str) -> None:
    """Writes a new configuration. Raises ConfigError, and removes the file again, if it is
    invalid.
    """
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
    config_path: Path | None,
    folder: Path,
    *,
    reuses_state: bool = False,
) -> Iterator[Installation]:
    """Opens an installation with its state in `folder`.

    Args:
        reuses_state: whether to continue with an earlier call's state.

    Raises InputError for a used folder otherwise.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATABASE_FILE).exists() and not reuses_state:
        raise InputError(
            f"{folder / DATABASE_FILE} exists already: give --keep an empty folder"
        )
    # Worker processes read this variable too.
    os.environ[DATABASE_VARIABLE] = database_url(folder)
    os.environ["SWAPPROOF__HOME"] = str(folder)
    os.environ["SWAPPROOF__CONTROL__QUEUE"] = RunQueueKind.EMBEDDED.value
    if not reuses_state:
        os.environ.setdefault("SWAPPROOF_SECRET", secrets.token_hex(32))
    installation = open_with_workers(config_path, create_secret=reuses_state)
    try:
        secret_files.create_keys(installation.settings)
        if any(provider.extra_headers for provider in installation.settings.providers.values()):
            secret_files.create_encryption_file(installation.settings)
        upgrade_database(installation.settings)
        yield installation
    finally:
        installation.close()
