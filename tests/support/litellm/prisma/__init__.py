"""Stands in for the PyPI package `prisma`, whose query engine no registry carries.

LiteLLM's proxy runs unchanged on it. Statements run on a real PostgreSQL that has LiteLLM's own
tables; types, defaults and unique keys come from LiteLLM's `schema.prisma`. A model, field or
operator that the schema or this module does not know is an error, as it is for Prisma.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Self
from urllib.parse import parse_qs

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from prisma import errors
from prisma.schema import Field, Model, read_models


class Json:
    def __init__(self, data: object) -> None:
        self.data = data


class Row(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Where:
    """A condition as SQL, with its parameters."""

    def __init__(self, model: Model, first: int = 1) -> None:
        self.model = model
        self.first = first
        self.params = list[object]()

    def param(self, field: Field, value: object) -> str:
        self.params.append(encode(field, value))
        return f"${self.first + len(self.params) - 1}"

    def sql(self, where: Mapping[str, Any] | None) -> str:
        return " AND ".join(self._terms(where or {})) or "TRUE"

    def _terms(self, where: Mapping[str, Any]) -> Iterator[str]:
        for name, wanted in where.items():
            if name in ("AND", "OR", "NOT"):
                parts = wanted if isinstance(wanted, list) else [wanted]
                joined = (" OR " if name == "OR" else " AND ").join(
                    f"({self.sql(part)})" for part in parts
                )
                yield (f"NOT ({joined})" if name == "NOT" else f"({joined or 'FALSE'})")
            elif name in self.model.keys:
                yield self.sql(wanted)
            else:
                yield self._compared(self.model.field(name), wanted)

    def _compared(self, field: Field, wanted: Any) -> str:
        if not isinstance(wanted, dict):
            wanted = {"equals": wanted}
        return " AND ".join(self._operator(field, op, of) for op, of in wanted.items())

    def _operator(
        self,
        field: Field,
        op: str,
        of: Any,
    ) -> str:
        column = f'"{field.column}"'
        if op in ("equals", "not") and of is None:
            return f"{column} IS {'NOT ' if op == 'not' else ''}NULL"
        if op == "not" and isinstance(of, dict):
            return f"NOT ({self._compared(field, of)})"
        if op in ("in", "not_in"):
            marks = ", ".join(self.param(field, one) for one in of)
            found = f"{column} IN ({marks})" if marks else "FALSE"
            return found if op == "in" else f"NOT ({found})"
        signs = {
            "equals": "=",
            "not": "<>",
            "gt": ">",
            "gte": ">=",
            "lt": "<",
            "lte": "<=",
        }
        if op in signs:
            return f"{column} {signs[op]} {self.param(field, of)}"
        likes = {
            "contains": "%{}%",
            "startswith": "{}%",
            "endswith": "%{}",
        }
        if op in likes:
            return f"{column} LIKE {self.param(field, likes[op].format(of))}"
        raise errors.DataError({"user_facing_error": {"message": f"operator {op!r}"}})


def encode(field: Field, value: object) -> object:
    if isinstance(value, Json):
        return Jsonb(value.data)
    if value is None or field.is_list:
        return value
    if field.type == "Json":
        return Jsonb(json.loads(value) if isinstance(value, str) else value)
    if field.type == "DateTime":
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        assert isinstance(at, datetime)
        return (
            (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
        )
    return value


class Table:
    def __init__(self, client: "Prisma", model: Model) -> None:
        self.client = client
        self.model = model

    def _row(self, found: Mapping[str, Any]) -> Row:
        named = {self.model.names.get(column, column): value for column, value in found.items()}
        return Row(
            **{
                name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
                for name, value in named.items()
            }
        )

    async def _run(self, statement: str, params: list[Any]) -> list[Row]:
        return [self._row(found) for found in await self.client.fetch(statement, params)]

    def _order(self, order: Any) -> str:
        pairs = [
            p for one in (order if isinstance(order, list) else [order]) for p in one.items()
        ]
        return ", ".join(f'"{self.model.field(name).column}" {way}' for name, way in pairs)

    async def find_many(
        self,
        take: int | None = None,
        skip: int | None = None,
        where: Mapping[str, Any] | None = None,
        order: Any = None,
        include: Any = None,
        distinct: Any = None,
        cursor: Any = None,
    ) -> list[Row]:
        if distinct or cursor:
            raise NotImplementedError("the stand-in for Prisma has no distinct and no cursor")
        found = Where(self.model)
        text = f'SELECT * FROM "{self.model.name}" WHERE {found.sql(where)}'
        text += f" ORDER BY {self._order(order)}" if order else ""
        text += f" LIMIT {int(take)}" if take is not None else ""
        text += f" OFFSET {int(skip)}" if skip is not None else ""
        return await self._run(text, found.params)

    async def find_first(
        self,
        where: Any = None,
        order: Any = None,
        include: Any = None,
    ) -> Any:
        return next(iter(await self.find_many(1, where=where, order=order)), None)

    async def find_unique(self, where: Mapping[str, Any], include: Any = None) -> Any:
        return await self.find_first(where)

    async def find_unique_or_raise(self, where: Any, include: Any = None) -> Any:
        if (row := await self.find_unique(where)) is None:
            raise errors.RecordNotFoundError({"user_facing_error": {}}, message="no such row")
        return row

    async def count(self, where: Any = None, **_: Any) -> int:
        found = Where(self.model)
        text = f'SELECT count(*) AS n FROM "{self.model.name}" WHERE {found.sql(where)}'
        return int((await self.client.fetch(text, found.params))[0]["n"])

    async def create(self, data: Mapping[str, Any], include: Any = None) -> Row:
        return (await self._insert([data]))[0]

    async def create_many(self, data: list[Any], skip_duplicates: bool | None = None) -> int:
        ending = "ON CONFLICT DO NOTHING" if skip_duplicates else ""
        alike = groupby(data, key=tuple)
        return sum([len(await self._insert(list(rows), ending)) for _, rows in alike])

    async def _insert(self, rows: list[Mapping[str, Any]], ending: str = "") -> list[Row]:
        """Inserts rows.

        Args:
            rows: with the same fields, in the same order.
        """
        found = Where(self.model)
        values = [{**self.model.defaults(), **row} for row in rows]
        fields = [self.model.field(name) for name in values[0]]
        tuples = [
            ", ".join(found.param(f, v) for f, v in zip(fields, row.values(), strict=True))
            for row in values
        ]
        columns = ", ".join(f'"{field.column}"' for field in fields)
        text = f'INSERT INTO "{self.model.name}" ({columns}) VALUES ({"), (".join(tuples)}) '
        return await self._run(f"{text}{ending} RETURNING *", found.params)

    def _assignments(self, data: Mapping[str, Any], where: Where) -> str:
        parts = []
        for name, value in {**self.model.touched(), **data}.items():
            field = self.model.field(name)
            if isinstance(value, dict) and field.type != "Json":
                ((op, by),) = value.items()
                signs = {"increment": "+", "decrement": "-"}
                if op == "set":
                    parts.append(f'"{field.column}" = {where.param(field, by)}')
                    continue
                old = f'"{self.model.name}"."{field.column}"'
                parts.append(f'"{field.column}" = {old} {signs[op]} {where.param(field, by)}')
                continue
            parts.append(f'"{field.column}" = {where.param(field, value)}')
        return ", ".join(parts)

    async def update_many(self, data: Mapping[str, Any], where: Any) -> int:
        return len(await self._update(data, where))

    async def _update(self, data: Mapping[str, Any], where: Any) -> list[Row]:
        found = Where(self.model)
        text = f'UPDATE "{self.model.name}" SET {self._assignments(data, found)} '
        return await self._run(f"{text} WHERE {found.sql(where)} RETURNING *", found.params)

    async def update(
        self,
        data: Mapping[str, Any],
        where: Any,
        include: Any = None,
    ) -> Any:
        return next(iter(await self._update(data, where)), None)

    async def upsert(
        self,
        where: Any,
        data: Mapping[str, Any],
        include: Any = None,
    ) -> Row:
        updated: Row | None = await self.update(data["update"], where)
        return await self.create(data["create"]) if updated is None else updated

    async def delete(self, where: Any, include: Any = None) -> Any:
        return next(iter(await self._delete(where)), None)

    async def delete_many(self, where: Any = None) -> int:
        return len(await self._delete(where))

    async def _delete(self, where: Any) -> list[Row]:
        found = Where(self.model)
        text = f'DELETE FROM "{self.model.name}" WHERE {found.sql(where)} RETURNING *'
        return await self._run(text, found.params)


class Prisma:
    models = read_models()

    def __init__(self, **_: Any) -> None:
        self._db: psycopg.Connection[dict[str, Any]] | None = None
        for name, model in self.models.items():
            setattr(self, name.lower(), Table(self, model))

    async def connect(self, timeout: Any = None) -> None:
        url, _, more = os.environ["DATABASE_URL"].partition("?")
        # LiteLLM adds settings of Prisma's pool, which PostgreSQL does not know.
        host = parse_qs(more).get("host", [])
        self._db = psycopg.connect(
            url,
            **({"host": host[0]} if host else {}),
            autocommit=True,
            row_factory=dict_row,
            cursor_factory=psycopg.RawCursor,
        )

    async def disconnect(self, timeout: Any = None) -> None:
        if self._db is not None:
            self._db.close()

    def is_connected(self) -> bool:
        return self._db is not None and not self._db.closed

    async def fetch(self, statement: str, params: Any) -> list[dict[str, Any]]:
        found, _ = await asyncio.to_thread(
            self._execute,
            statement,
            params,
        )
        return found

    def _execute(self, statement: str, params: Any) -> tuple[list[dict[str, Any]], int]:
        """Runs in a thread, as Prisma's engine is a process of its own."""
        if self._db is None:
            raise errors.ClientNotConnectedError
        try:
            with self._db.cursor() as cursor:
                cursor.execute(statement.encode(), params)
                return (
                    cursor.fetchall() if cursor.description else [],
                    cursor.rowcount,
                )
        except psycopg.Error as error:
            twice = isinstance(error, psycopg.errors.UniqueViolation)
            kind = errors.UniqueViolationError if twice else errors.DataError
            raise kind({"user_facing_error": {}}, message=str(error)) from error

    async def query_raw(
        self,
        query: str,
        *params: Any,
        model: Any = None,
    ) -> list[Any]:
        found = await self.fetch(query, [plain_param(one) for one in params])
        return [
            {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in row.items()
            }
            for row in found
        ]

    async def query_first(
        self,
        query: str,
        *params: Any,
        model: Any = None,
    ) -> Any:
        return next(iter(await self.query_raw(query, *params)), None)

    async def execute_raw(self, query: str, *params: Any) -> int:
        params_ = [plain_param(one) for one in params]
        _, changed = await asyncio.to_thread(
            self._execute,
            query,
            params_,
        )
        return changed

    @asynccontextmanager
    async def tx(self, **_: Any) -> AsyncIterator["Prisma"]:
        inner = Prisma()
        await inner.connect()
        assert inner._db is not None
        try:
            with inner._db.transaction():
                yield inner
        finally:
            await inner.disconnect()

    def batch_(self) -> "Batch":
        return Batch(self)


def plain_param(value: object) -> object:
    if isinstance(value, Json):
        return Jsonb(value.data)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


class Batch:
    """Collects writes, and runs them in one transaction at `commit`."""

    def __init__(self, client: Prisma, path: tuple[str, ...] = ()) -> None:
        self._client = client
        self._path = path
        self._calls: list[tuple[tuple[str, ...], tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> "Batch":
        found = Batch(self._client, (*self._path, name))
        found._calls = self._calls
        return found

    def __call__(self, *args: Any, **more: Any) -> None:
        self._calls.append((self._path, args, more))

    async def commit(self) -> None:
        async with self._client.tx() as inner:
            for path, args, more in self._calls:
                await attrgetter(".".join(path))(inner)(*args, **more)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.commit()
