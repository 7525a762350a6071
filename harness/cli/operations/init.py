"""`swapgate init`: a folder becomes an installation. What is there is never overwritten."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.domain.errors import ConfigError
from harness.domain.operations.access import Role
from harness.domain.operations.principals import LOCAL_PRINCIPAL, OPERATOR

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

# The names that clients use as `model`. A route is created once from here; from then on the
# database rules, and its model is swapped by proposals.
# routes:
#   triage:
#     incumbent: openai/gpt-4o-mini
#     suites: [tickets]
"""


@dataclass(frozen=True, slots=True)
class SetUpResult:
    """What init made and what it found. Keys: None where the database had some already."""

    config: str
    home: str
    created: tuple[str, ...]
    kept: tuple[str, ...]
    seeded: tuple[str, ...]
    admin_key: str | None
    data_key: str | None


@click.command()
@pass_session
def init(session: Session) -> None:
    """Set up Swapgate in this folder.

    Writes swapgate.yaml and its schema, makes the folder for state with the secret and the
    database, and prints an admin's key and a client's key, this once. Files that are there
    are kept as they are: run it again whenever something is missing.
    """
    done = set_up(session)
    if session.json:
        output.document(done)
        return
    for name in done.created:
        click.echo(f"created {name}")
    for name in done.kept:
        click.echo(f"kept {name}: it was there, and is as it was")
    for name in done.seeded:
        click.echo(f"added {name} from {done.config}")
    _print_keys(done)
    output.note(
        "next: name a provider in swapgate.yaml, then `swapgate route create`, "
        "`swapgate serve all` and `swapgate doctor`"
    )


def _print_keys(done: SetUpResult) -> None:
    if done.admin_key is None:
        output.note("there are keys already: `swapgate key create` makes more")
        return
    output.facts([("admin key", done.admin_key), ("client key", done.data_key)])
    output.note("the keys are not shown again: keep them now")


def set_up(session: Session) -> SetUpResult:
    """Raises ConfigError for a folder that cannot be written."""
    from harness import config  # noqa: PLC0415 - `--help` stays quick
    from harness.app.database import upgrade_database  # noqa: PLC0415 - as above
    from harness.app.installation import config_file  # noqa: PLC0415 - as above
    from harness.control.operations import keys, listings  # noqa: PLC0415 - as above
    from harness.control.routing import seed  # noqa: PLC0415 - as above
    from harness.domain.pagination import PageRequest  # noqa: PLC0415 - as above
    from harness.runtime import secret_files  # noqa: PLC0415 - as above
    from harness.runtime import signing_keys as signing_files  # noqa: PLC0415 - as above

    file = config_file(session.config, os.environ) or Path.cwd() / config.FILE_NAME
    session.config = file
    schema = file.with_name(SCHEMA_NAME)
    wanted = {file: TEMPLATE, schema: json.dumps(config.json_schema(), indent=2) + "\n"}
    created = {path: _write_new(path, text) for path, text in wanted.items()}
    settings = session.settings
    secret_there = (settings.home / secret_files.SECRET_FILE).exists()
    secret = secret_files.installation_secret(settings, create=True)
    keys_made = secret_files.make_encryption_file(settings)
    signing_made = signing_files.create_keys(settings)
    upgrade_database(settings)
    ctx, admin, data = session.context, None, None
    seeded = seed.apply_seed(ctx, settings)
    if not listings.list_keys(ctx, PageRequest(1)).total:
        # Whoever sets the installation up is its operator: on the pages as on the command line.
        _, admin = keys.create_key(
            ctx,
            OPERATOR,
            "admin",
            secret=secret,
            role=Role.ADMIN,
            principal=LOCAL_PRINCIPAL.name,
        )
        _, data = keys.create_key(ctx, OPERATOR, "client", secret=secret)
    return SetUpResult(
        config=str(file),
        home=str(settings.home),
        created=(
            *(str(path) for path, new in created.items() if new),
            *(() if secret_there else (str(settings.home),)),
            *((str(secret_files.encryption_file(settings)),) if keys_made else ()),
            *(str(each) for each in signing_made),
        ),
        kept=tuple(str(path) for path, new in created.items() if not new),
        seeded=tuple(seeded),
        admin_key=admin,
        data_key=data,
    )


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
