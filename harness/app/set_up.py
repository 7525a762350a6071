"""Makes a folder an installation, for `swapgate init`: configuration file with its schema,
secrets and keys, database with the file's providers and routes, and a first key for an admin
and for a client. What is there is never overwritten.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.app.database import upgrade_database
from harness.app.installation import (
    Installation,
    config_file,
    load_settings,
    open_installation,
)
from harness.control.operations import dashboard_sessions, keys, queries
from harness.control.routing import routes, seed
from harness.domain.errors import ConfigError
from harness.domain.operations.access import FIRST_LINK_LASTS, Role, sign_in_url
from harness.domain.operations.principals import LOCAL_PRINCIPAL, OPERATOR
from harness.domain.pagination import PageRequest
from harness.runtime import secret_files, signing_keys

SCHEMA_NAME = "swapgate.schema.json"
TEMPLATE = """\
# yaml-language-server: $schema=swapgate.schema.json
# What is not set here is as shipped; `swapgate config show` prints what is in force.
# Environment variables win: SWAPGATE__ROUTER__PORT=9090, or with a value in a file
# SWAPGATE__DATABASE_URL_FILE=/run/secrets/url.

# The folder for state: SQLite file, secret, disk snapshot.
home: .swapgate
# For production: database_url: postgresql://user@host/database

# Where models are called. A key is never written here: name its environment variable.
# providers:
#   openai:
#     api_base: https://api.openai.com/v1
#     api_key_env: OPENAI_API_KEY
#     prices:
#       gpt-4o-mini: {input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}
#     models:  # what is not said, a model can do
#       gpt-4o-mini: {context_window: 128000, embeddings: false}
#   anthropic: {kind: anthropic, api_key_env: ANTHROPIC_API_KEY}

# The names that clients use as `model`. A route is created once from here, by `serve all` or
# `config apply`; from then on the database rules, and its model is swapped by proposals.
# routes:
#   triage:
#     incumbent: openai/gpt-4o-mini
#     suites: [tickets]
"""


@dataclass(frozen=True, slots=True)
class SetUpResult:
    """Lists what `swapgate init` made and what it found. Keys: None where the database had some
    already.
    """

    config: str
    home: str
    created: tuple[str, ...]
    kept: tuple[str, ...]
    seeded: tuple[str, ...]
    has_routes: bool
    admin_key: str | None
    data_key: str | None
    sign_in_link: str | None  # opens the dashboard as its admin, once


def set_up(given: Path | None) -> SetUpResult:
    """Make what an installation needs and does not have yet; change nothing that is there.

    given: the configuration file, if one was named. Raises ConfigError for a folder that cannot
    be written.
    """
    file = config_file(given, os.environ) or Path.cwd() / config.FILE_NAME
    schema = file.with_name(SCHEMA_NAME)
    wanted = {file: TEMPLATE, schema: json.dumps(config.json_schema(), indent=2) + "\n"}
    created = {path: _write_new(path, text) for path, text in wanted.items()}
    settings = load_settings(file)
    secret_file = settings.home / secret_files.SECRET_FILE
    database = Path(settings.database_url.removeprefix("sqlite:///"))
    secret_there = secret_file.exists()
    # Of another kind of database nothing is made here.
    on_sqlite = settings.database_url.startswith("sqlite:///")
    database_there = not on_sqlite or database.exists()
    secret_files.installation_secret(settings, create=True)
    keys_made = secret_files.make_encryption_file(settings)
    signing_made = signing_keys.create_keys(settings)
    upgrade_database(settings)
    installation = open_installation(file)
    try:
        seeded = seed.apply_seed(installation.context, settings)
        admin, data, link = _create_first_keys(installation)
        has_routes = bool(routes.load_table(installation.context).routes)
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
        has_routes=has_routes,
        admin_key=admin,
        data_key=data,
        sign_in_link=link and sign_in_url(settings.ui.url, link),
    )


def _create_first_keys(
    installation: Installation,
) -> tuple[str | None, str | None, str | None]:
    """An admin's key, a client's, and a link that signs the admin in; where the database has
    no keys.
    """
    ctx, secret = installation.context, installation.secret
    if queries.list_keys(ctx, PageRequest(1)).total:
        return None, None, None
    # Whoever sets the installation up is its operator: on the pages as on the command line.
    admin_key, admin = keys.create_key(
        ctx, OPERATOR, "admin", secret=secret, role=Role.ADMIN, principal=LOCAL_PRINCIPAL.name
    )
    _, data = keys.create_key(ctx, OPERATOR, "client", secret=secret)
    _, link = dashboard_sessions.create_link(
        ctx, OPERATOR, admin_key.id, secret=secret, lasts=FIRST_LINK_LASTS
    )
    return admin, data, link


def _write_new(path: Path, text: str) -> bool:
    """Whether it was written; a file that is there is left alone."""
    try:
        # People write addresses and, against all advice, keys into it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}): run `swapgate init` in a folder of yours"
        ) from None
    return True
