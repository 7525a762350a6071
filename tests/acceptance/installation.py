"""An installation of the wheel in a folder of its own, used from outside: its commands, its
addresses, its processes, and its database by raw SQL.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import psutil
import psycopg
import yaml
from psycopg.rows import dict_row

from tests.support.site.processes import free_port

# Three times as long as on a machine that has other work.
START_S: Final = 300.0
COMMAND_S: Final = 600.0
END_S: Final = 180.0
WAIT_S: Final = 300.0
REQUEST_S: Final = 120.0
ADMIN: Final = "admin"

# All that the processes see of the environment of the tests.
INHERITED: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
)
PARTS: Final = {
    "router": "/readyz",
    "control": "/readyz",
    "agents": "/readyz",
    "ui": "/_stcore/health",
}

Document = dict[str, Any]
T = TypeVar("T")


class Refused(Exception):
    """The database refused a statement; its text is the database's."""


def eventually(
    found: Callable[[], T],
    why: str = "",
    *,
    wait_s: float = WAIT_S,
) -> T:
    """What `found` returns once that is true. `found` is asked again and again."""
    deadline = time.monotonic() + wait_s
    while not (value := found()):
        assert time.monotonic() < deadline, why or f"still {value!r}"
        time.sleep(0.2)
    return value


@dataclass
class Process:
    """A child process with its log; whoever started it ends it."""

    name: str
    child: subprocess.Popen[bytes]
    log_file: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def is_up(self) -> bool:
        return self.child.poll() is None

    def descendants(self) -> list[psutil.Process]:
        """The processes that it started, theirs included, which still run."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid).children(recursive=True)
            return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
        return []

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the signal, and wait for the end. Returns the exit code."""
        self.child.send_signal(number)
        return self.child.wait(timeout=END_S)

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def end(self) -> None:
        """End it and all that it started, whatever state they are in."""
        family = self.descendants()
        if self.is_up():
            self.child.terminate()
            try:
                self.child.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Database:
    """An installation's database by raw SQL. Parameters are written `:name` on both."""

    url: str
    """SQLAlchemy's address."""

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return Path(self.url.removeprefix("sqlite:///"))

    def rows(self, statement: str, **values: object) -> list[Document]:
        with self._connected() as connection:
            return self._run(connection, statement, values)

    def write(self, statement: str, **values: object) -> int:
        """Run one statement as whoever may write rows. Returns how many rows it changed.

        Raises Refused.
        """
        with self._connected() as connection:
            return self._changed(connection, statement, values)

    def write_all(self, statements: Sequence[str], **values: object) -> None:
        """Run statements in one transaction, as above. Raises Refused if one is refused."""
        with self._connected() as connection:
            for statement in statements:
                self._changed(connection, statement, values)

    def overpower(self, statement: str, **values: object) -> int:
        """Run one statement as the owner of the database, without triggers and foreign keys.

        On SQLite the triggers are put back afterwards. Returns how many rows it changed.
        """
        if not self.is_sqlite:
            with self._connected() as connection:
                self._run(
                    connection,
                    "SET LOCAL session_replication_role = replica",
                    {},
                )
                return self._changed(connection, statement, values)
        with self._connected(checked=False) as connection:
            named = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            triggers = self._run(connection, named, {})
            for trigger in triggers:
                self._run(connection, f"DROP TRIGGER {trigger['name']}", {})
            changed = self._changed(connection, statement, values)
            for trigger in triggers:
                self._run(connection, trigger["sql"], {})
            return changed

    def all_rows(self, table: str) -> list[Document]:
        return self.rows(f"SELECT * FROM {table}")  # noqa: S608

    def insert(self, table: str, row: Mapping[str, object]) -> int:
        """As the owner."""
        columns = ", ".join(f'"{name}"' for name in row)
        values = ", ".join(f":{name}" for name in row)
        return self.overpower(f"INSERT INTO {table} ({columns}) VALUES ({values})", **row)  # noqa: S608

    def update(
        self,
        table: str,
        where: str,
        changes: Mapping[str, object],
    ) -> int:
        """As the owner."""
        values = ", ".join(f'"{name}" = :{name}' for name in changes)
        return self.overpower(f"UPDATE {table} SET {values} WHERE {where}", **changes)  # noqa: S608

    @contextmanager
    def changed(
        self,
        table: str,
        where: str,
        **changes: object,
    ) -> Iterator[None]:
        """As the owner, change one row; it is as before when the block ends.

        Args:
            where: finds the row also after the change.
        """
        (row,) = self.rows(f"SELECT * FROM {table} WHERE {where}")  # noqa: S608
        assert any(row[name] != value for name, value in changes.items())
        assert self.update(table, where, changes) == 1
        yield
        assert self.update(table, where, {name: row[name] for name in changes}) == 1

    @contextmanager
    def added(
        self,
        table: str,
        where: str,
        **changes: object,
    ) -> Iterator[None]:
        """As the owner, insert a copy of a row with changes; it goes with the block.

        Args:
            changes: a new `id`, or `version`, among them.
        """
        (row,) = self.rows(f"SELECT * FROM {table} WHERE {where}")  # noqa: S608
        new = row | changes
        assert self.insert(table, new) == 1
        yield
        columns = ("id",) if "id" in new else ("route", "version", "position")
        key = {name: new[name] for name in columns if name in new}
        found = " AND ".join(f'"{name}" = :{name}' for name in key)
        assert self.overpower(f"DELETE FROM {table} WHERE {found}", **key) == 1  # noqa: S608

    @contextmanager
    def removed(self, table: str, where: str) -> Iterator[None]:
        """As the owner, delete one row; it is there again when the block ends."""
        (row,) = self.rows(f"SELECT * FROM {table} WHERE {where}")  # noqa: S608
        assert self.overpower(f"DELETE FROM {table} WHERE {where}") == 1  # noqa: S608
        yield
        assert self.insert(table, row) == 1

    def tables(self) -> list[str]:
        named = (
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            if self.is_sqlite
            else "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
        )
        return sorted(row["name"] for row in self.rows(named))

    def columns(self, table: str) -> list[str]:
        named = (
            f"SELECT name FROM pragma_table_info('{table}')"  # noqa: S608
            if self.is_sqlite
            else "SELECT column_name AS name FROM information_schema.columns"  # noqa: S608
            f" WHERE table_schema = 'public' AND table_name = '{table}'"
        )
        return [row["name"] for row in self.rows(named)]

    @contextmanager
    def _connected(self, *, checked: bool = True) -> Iterator[Any]:
        """A connection whose work is committed at the end.

        Args:
            checked: by foreign keys.
        """
        if self.is_sqlite:
            with closing(sqlite3.connect(self.file, timeout=60)) as connection:
                connection.isolation_level = None
                connection.row_factory = sqlite3.Row
                connection.execute(f"PRAGMA foreign_keys = {int(checked)}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                self._commit(connection, sqlite3.IntegrityError)
        else:
            address = self.url.replace("postgresql+psycopg://", "postgresql://", 1)
            with psycopg.connect(address, row_factory=dict_row) as server:
                yield server
                self._commit(server, psycopg.Error)

    def _commit(self, connection: Any, refusal: type[Exception]) -> None:
        try:
            connection.commit()
        except refusal as error:
            raise Refused(str(error)) from error

    def _execute(
        self,
        connection: Any,
        statement: str,
        values: Mapping[str, object],
    ) -> Any:
        if not self.is_sqlite:
            statement = statement.replace("%", "%%") if values else statement
            statement = (
                re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", statement) if values else statement
            )
        try:
            if self.is_sqlite or values:
                written = {name: _as_written(value) for name, value in values.items()}
                return connection.execute(statement, written)
            return connection.execute(statement)
        except (
            sqlite3.IntegrityError,
            psycopg.errors.RaiseException,
        ) as error:
            raise Refused(str(error)) from error
        except psycopg.IntegrityError as error:
            raise Refused(str(error)) from error

    def _run(
        self,
        connection: Any,
        statement: str,
        values: Mapping[str, object],
    ) -> list[Document]:
        cursor = self._execute(connection, statement, values)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def _changed(
        self,
        connection: Any,
        statement: str,
        values: Mapping[str, object],
    ) -> int:
        return int(self._execute(connection, statement, values).rowcount)


def _as_written(value: object) -> object:
    """PostgreSQL's driver reads JSON columns; written they are text again."""
    return json.dumps(value) if isinstance(value, dict | list) else value


@dataclass
class Installation:
    """A folder with `swapproof.yaml`, and the processes that a test started there.

    program: `swapproof` of the environment with the wheel. settings: the configuration, to
    which `home`, ports and the database's address are added.
    """

    program: Path
    folder: Path
    settings: Mapping[str, Any]
    database_url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    admin_key: str = ""
    data_key: str = ""
    sign_in_link: str = ""

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.config = self.folder / "swapproof.yaml"
        self.ports = {part: free_port() for part in PARTS}
        self.database = Database(self.database_url or f"sqlite:///{self.home / 'swapproof.db'}")
        self.configure(self.settings)
        self.client = httpx.Client(timeout=REQUEST_S, trust_env=False)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration anew; processes that run do not see it."""
        self.settings = settings
        document: Document = {"home": str(self.home), **settings}
        if self.database_url:
            document["database_url"] = self.database_url
        for part, port in self.ports.items():
            document[part] = {**document.get(part, {}), "port": port}
        self.folder.mkdir(exist_ok=True)
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def init(self) -> None:
        """`swapproof init`; its keys are kept."""
        made = self.json("init")
        self.admin_key = made["admin_key"]
        self.data_key = made["data_key"]
        self.sign_in_link = made["sign_in_link"]

    # Commands

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of commands and processes."""
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return own | {
            "HOME": str(self.folder),
            **self.environment,
            **(more or {}),
        }

    def cli(
        self,
        *words: str,
        code: int | None = 0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Outcome:
        """Run a command to its end.

        Args:
            code: with which it has to end; None for any.
        """
        done = subprocess.run(  # noqa: S603 - the command under test
            [self.program, *words],
            cwd=cwd or self.folder,
            env=self.variables(env),
            input=stdin or "",
            capture_output=True,
            check=False,
            text=True,
            timeout=COMMAND_S,
        )
        said = Outcome(done.returncode, done.stdout, done.stderr)
        assert code is None or said.code == code, f"{words} ended with {said.code}: {said}"
        return said

    def json(
        self,
        *words: str,
        code: int | None = 0,
        **options: Any,
    ) -> Any:
        """The JSON document that a command prints."""
        return self.cli(
            *words,
            "--json",
            code=code,
            **options,
        ).document

    def acting(self, name: str, role: str) -> tuple[str, ...]:
        """Make a management key. Returns the options with which a command acts as its owner."""
        file = self.folder / f"{name}.key"
        file.write_text(self.management_key(name, role), encoding="utf-8")
        file.chmod(0o600)
        return ("--key-file", str(file))

    def management_key(self, name: str, role: str) -> str:
        """The text of a new management key."""
        made = self.json("key", "create", name, "--role", role)
        return str(made["text"])

    # Processes

    def start(
        self,
        *words: str,
        name: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command that goes on. Its log is NAME.log in the folder."""
        name = name or "-".join(words[:2])
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 - the command under test
                [self.program, *words],
                cwd=self.folder,
                env=self.variables(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        process = Process(name, child, log)
        self.processes.append(process)
        return process

    def serve(
        self,
        part: str = "all",
        *words: str,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """`swapproof serve PART`, once it answers.

        Args:
            part: router, control, agents, ui or all.
        """
        process = self.start("serve", part, *words, env=env)
        self.await_up(process, *(PARTS if part == "all" else (part,)))
        return process

    def await_up(self, process: Process, *parts: str) -> None:
        for part in parts:
            address = self.url(part) + PARTS[part]

            def answers(address: str = address) -> bool:
                assert process.is_up(), f"{process.name} has ended:\n{process.log[-4000:]}"
                with suppress(httpx.TransportError):
                    return self.client.get(address).status_code == httpx.codes.OK
                return False

            eventually(answers, f"{address} does not answer", wait_s=START_S)

    def close(self) -> None:
        """End every process that was started here."""
        for process in reversed(self.processes):
            process.end()
        self.client.close()

    # Addresses

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self.ports[part]}"

    def api(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A request of the management API.

        Args:
            path: below /api/v1.
            token: else the admin's.
        """
        sent = {"authorization": f"Bearer {self.admin_key if token is None else token}"}
        return self.client.request(
            method,
            f"{self.url('control')}/api/v1{path}",
            json=json,
            headers={**sent, **(headers or {})},
        )

    def router(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A request of the router.

        Args:
            path: such as /v1/models.
            key: by default `data_key`.
        """
        sent = {"authorization": f"Bearer {self.data_key if key is None else key}"}
        return self.client.request(
            method,
            self.url("router") + path,
            json=json,
            headers={**sent, **(headers or {})},
        )

    def chat(
        self,
        route: str,
        text: str = "Where is my parcel?",
        *,
        user: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **body: object,
    ) -> httpx.Response:
        """A chat completion.

        Args:
            user: the end user in whose name it is asked.
        """
        named: Document = {} if user is None else {"user": user}
        question = {
            "model": route,
            "messages": [{"role": "user", "content": text}],
        }
        return self.router(
            "POST",
            "/v1/chat/completions",
            question | named | body,
            key=key,
            headers=headers,
        )

    def model_of(self, route: str, *, user: str | None = None) -> str:
        """PROVIDER/MODEL of the target that answers a request of the route."""
        answer = self.chat(route, user=user)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.headers["x-swapproof-target"]
