"""Records of targets and providers, with keys, sign-ins, checks and models.

Rows of targets, providers and keys are signed, and routers load them with the store's snapshot.
The classes only read and write: use cases in `harness.providers.registry` check roles and write
audit events. The dataclasses stand in the modules of their rules, such as `target` and
`credential`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import InputError, NotFound, SnapshotInvalid, StaleWrite
from harness.frame.records.columns import (
    Row,
    Values,
    not_blank,
    storable,
    text,
    time,
)
from harness.frame.records.record import record, record_of
from harness.frame.records.repository import Query, Records, row_key
from harness.frame.records.signed_tables import sign_rows_of
from harness.frame.records.transaction import Transaction
from harness.gate.pins import ServedModel, Sighting, newest_sightings
from harness.providers.calls.probe import ProviderCheck
from harness.providers.credential import Credential
from harness.providers.models.model_ends import EndSource, EndStatement
from harness.providers.models.model_match import DiscoveredModel, merge_lists
from harness.providers.oauth import SignIn
from harness.providers.target import Provider, ProviderMove, Target

# Append-only (trigger): the id is the hash of the content.
TARGET: Final = record(
    Target,
    "target",
    text("id"),
    signed=True,
    also=lambda new: {"id": new.id},
)

target = TARGET.table
SELECT_TARGETS: Final = sa.select(target)


def _move_to_row(provider: Provider) -> Values:
    """Returns the columns of a provider's last move. Storing a removed provider brings it
    back.
    """
    move = provider.moved
    return {
        "removed_at": None,
        "answers_since": move.at if move else None,
        "moved_by": move.by if move else None,
        "moved_because": move.reason if move else None,
    }


def provider_from_row(row: Row) -> Provider:
    """Builds a provider with its last move from a row."""
    moved_at = row.answers_since
    moved = (
        ProviderMove(moved_at, row.moved_by or "", row.moved_because or "")
        if moved_at
        else None
    )
    return record_of(Provider, row, provider, moved=moved)


# A removed provider keeps its row, because its keys' rows refer to it.
PROVIDER: Final = record(
    Provider,
    "provider",
    time("updated_at"),
    time("removed_at", nullable=True),
    time("answers_since", nullable=True),
    text("moved_by", nullable=True),
    text("moved_because", nullable=True),
    key="name",
    signed=True,
    without="moved",
    read=provider_from_row,
    also=_move_to_row,
)

provider = sign_rows_of(PROVIDER.table, live=PROVIDER.table.c.removed_at.is_(None))

# The only place of a key's value. Swapproof never deletes a row. Triggers announce changes to
# routers.
CREDENTIAL: Final = record(
    Credential,
    "credential",
    not_blank("name"),
    key="provider name",
    refers={"provider": provider},
    signed=True,
)

credential = sign_rows_of(CREDENTIAL.table, live=sa.true())

# Routers do not read it.
SIGN_IN: Final = record(
    SignIn,
    "sign_in",
    not_blank("ciphertext"),
    key="provider",
    refers={"provider": provider},
)

sign_in = SIGN_IN.table

# One row for each provider; routers do not read it.
PROVIDER_CHECK: Final = record(
    ProviderCheck,
    "provider_check",
    key="provider",
    refers={"provider": provider},
)

provider_check = PROVIDER_CHECK.table

# A few rows for each target; Swapproof deletes the oldest. There is no foreign key: judges'
# targets are not registered, and a router may write before the control plane stores a target's
# row.
SIGHTING: Final = record(
    Sighting,
    "served_model",
    sa.CheckConstraint("first_at <= last_at", name="in_order"),
    key="target model build",
    flat="served",
)

served_model = SIGHTING.table

# Each provider's last list of models; routers do not read it.
DISCOVERED_MODEL: Final = record(
    DiscoveredModel,
    "discovered_model",
    not_blank("model"),
    key="provider model",
    refers={"provider": provider},
    flat="ends",
)

discovered_model = DISCOVERED_MODEL.table

# The statements about ends of targets' models. The control plane writes the catalogue's and the
# lists' statements, so that routers know them; routers write the headers'. There is no foreign
# key: a router may write before the control plane stores a target's row.
END_STATEMENT: Final = record(
    EndStatement,
    "end_statement",
    sa.CheckConstraint("seen_at <= checked_at", name="in_order"),
    key="target kind",
    flat="dates",
)

end_statement = END_STATEMENT.table

LONGEST_NAME: Final = 200  # characters of a served model's name


def _has_row(tx: Transaction, name: str) -> bool:
    """Tells whether a provider has a row. A removed provider still has one."""
    query = sa.select(provider.c.name).where(provider.c.name == name)
    return tx.read(query).first() is not None


def _require_provider(tx: Transaction, name: str) -> None:
    """Raises InputError for a provider without a row."""
    if not _has_row(tx, name):
        raise InputError(f"there is no provider {name!r}: add it before its key")


def _unknown_provider(name: str) -> InputError:
    return InputError(f"there is no provider {name!r}, so it has no check or list of models")


class Targets:
    """Stores targets. A target never changes: its id is the hash of its content."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def all(self) -> Mapping[str, Target]:
        """Returns all stored targets by id, also those that no route uses."""
        return self._tx.once((target.name,), lambda: self._read(SELECT_TARGETS))

    def among(self, ids: Iterable[str]) -> Mapping[str, Target]:
        """Returns the stored targets among the ids, by id."""
        return self._read(SELECT_TARGETS.where(target.c.id.in_(sorted(ids))))

    def get(self, id_: str) -> Target | None:
        """Returns a target by id; None if it is not stored."""

        def read() -> Target | None:
            return self._read(SELECT_TARGETS.where(target.c.id == id_)).get(id_)

        return self._tx.once(row_key(target, id_), read)

    def add(self, new: Target) -> str:
        """Adds a target unless it is stored, and returns its id."""
        self._tx.write_new(target, TARGET.write(new))
        return new.id

    def _read(self, query: Query) -> dict[str, Target]:
        """Reads targets by id.

        Raises SnapshotInvalid if a target's content does not give its id.
        """
        valid_rows = self._tx.checked(target, self._tx.read(query))
        targets = {row.id: TARGET.read(row) for row in valid_rows}
        for id_, stored in targets.items():
            if stored.id != id_:
                raise SnapshotInvalid(
                    f"somebody edited target {id_} in the database: its content "
                    f"is that of {stored.id}. "
                    "Restore the row from a backup"
                )
        return targets


class Credentials(Records[Credential]):
    """Keys of providers, which the caller encrypts. A key's row is never deleted."""

    record = CREDENTIAL
    order = (credential.c.provider, credential.c.position, credential.c.name)

    def put(self, new: Credential) -> None:
        """Adds or replaces a key. Raises InputError for an unknown provider."""
        self._tx.serialize()
        _require_provider(self._tx, new.provider)
        values = self._tx.signed(credential, self.record.write(new))
        self._tx.upsert(credential, values, put=tuple(values))


class SignIns(Records[SignIn]):
    """Sign-ins at providers, one for each provider.

    A renewal runs outside a transaction, so `replace` compares before it writes.
    """

    record = SIGN_IN
    order = (sign_in.c.provider,)

    def start(self, new: SignIn) -> None:
        """Replaces the last sign-in. Raises InputError for an unknown provider."""
        self._tx.serialize()
        _require_provider(self._tx, new.provider)
        values = self.record.write(new)
        self._tx.upsert(sign_in, values, put=tuple(values))

    def save(self, changed: SignIn) -> None:
        """Saves a changed sign-in. Raises StaleWrite if a person signed in or out meanwhile."""
        self._save(changed, sign_in.c.id == changed.id)

    def replace(self, before: SignIn, after: SignIn) -> None:
        """Saves `after` if the stored sign-in equals `before`. Raises StaleWrite."""
        self._save(
            after,
            sign_in.c.id == before.id,
            sign_in.c.ciphertext == before.ciphertext,
            sign_in.c.renewed_at == before.renewed_at,
            sign_in.c.attempts == before.attempts,
            sign_in.c.retry_at.is_not_distinct_from(before.retry_at),
        )

    def _save(self, after: SignIn, *same: sa.ColumnElement[bool]) -> None:
        values = self.record.write(after)
        if not self._change(sign_in.c.provider == after.provider, *same, **values):
            raise StaleWrite(
                f"a person signed in or out for provider {after.provider!r} meanwhile: the "
                "tokens of the earlier sign-in are dropped"
            )

    def end(self, provider: str) -> bool:
        """Deletes a provider's sign-in. Returns whether there was one."""
        return self._delete(sign_in.c.provider == provider) > 0


class Providers(Records[Provider]):
    """Providers by name. A removed provider keeps its row without its headers."""

    record = PROVIDER
    order = (provider.c.name,)

    def put(self, new: Provider) -> None:
        """Adds or changes a provider. Writes no row that is unchanged."""
        self._tx.serialize()
        values = self.record.write(new) | {"updated_at": self._tx.now()}
        if not _has_row(self._tx, new.name):
            self._tx.insert(provider, values)
        elif self.all().get(new.name) != new:
            # Writes only a changed provider, because routers load it again after each write.
            self._change(self._is(new.name), **self._tx.signed(provider, values))

    def remove(self, name: str) -> None:
        """Removes a provider. Raises NotFound."""
        self._tx.serialize()
        is_present = sa.and_(provider.c.name == name, provider.c.removed_at.is_(None))
        removed = {
            "removed_at": self._tx.now(),
            "extra_headers": {},
            "sealed_headers": {},
        }
        if not self._tx.amend(provider, is_present, removed):
            raise NotFound(f"there is no provider {name!r}")

    def all(self) -> Mapping[str, Provider]:  # type: ignore[override]  # by name
        """Loads the providers that are not removed, by name. A reading transaction loads them
        once.
        """

        def read() -> Mapping[str, Provider]:
            providers = self._all(self._select(provider.c.removed_at.is_(None)))
            return {stored.name: stored for stored in providers}

        return self._tx.once((provider.name,), read)


class ProviderChecks(Records[ProviderCheck]):
    """The last check of each provider."""

    record = PROVIDER_CHECK
    order = (provider_check.c.provider,)

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        """Replaces each provider's older check. Raises InputError for an unknown provider."""
        known = set(self._tx.read(sa.select(provider.c.name)).scalars())
        # All writers use one order, so that no two writers wait for each other.
        for check in sorted(checks, key=lambda row: row.provider):
            if check.provider not in known:
                raise _unknown_provider(check.provider)
            values = self.record.write(check)
            if not self._tx.write_new(provider_check, values):
                is_older = provider_check.c.at <= check.at
                self._change(self._is(check.provider), is_older, **values)


class DiscoveredModels(Records[DiscoveredModel]):
    """The models that each provider listed last, and models that it no longer lists."""

    record = DISCOVERED_MODEL
    order = (discovered_model.c.provider, discovered_model.c.model)

    def all(self) -> Sequence[DiscoveredModel]:
        """Lists the models by provider and name, without those of a removed provider."""
        return self._all(self._of_providers(discovered_model.c.gone_at.is_(None)))

    def gone(self) -> Sequence[DiscoveredModel]:
        """Lists the models that their provider no longer lists."""
        return self._all(self._of_providers(discovered_model.c.gone_at.is_not(None)))

    def _of_providers(self, condition: sa.ColumnElement[bool]) -> Query:
        same_provider = provider.c.name == discovered_model.c.provider
        query = self._select(condition, provider.c.removed_at.is_(None))
        return query.join_from(discovered_model, provider, same_provider)

    def of_providers(self, names: Iterable[str]) -> Mapping[tuple[str, str], DiscoveredModel]:
        """Returns these providers' models by provider and name, also formerly listed ones.

        An alias ends with its snapshots. So a listed snapshot without an end is needed, too.
        """
        query = self._select(discovered_model.c.provider.in_(sorted(set(names))))
        return {(listed.provider, listed.model): listed for listed in self._all(query)}

    def find(self, provider_name: str, model: str) -> DiscoveredModel | None:
        """Returns a model that a provider lists or has listed; None if it never did."""
        columns = discovered_model.c
        return self._first(
            self._select(columns.provider == provider_name, columns.model == model)
        )

    def has_newer(self, of_provider: Provider, requested_at: datetime) -> bool:
        """Tells whether a list of the provider's present address was requested after this
        time.
        """
        # Waits until no other transaction writes lists.
        self._tx.serialize_by(discovered_model.name)
        columns = discovered_model.c
        newer = self._select(
            columns.provider == of_provider.name,
            columns.source == of_provider.api_base,
            columns.found_at > requested_at,
            columns.gone_at.is_(None),
        )
        return self._first(newer) is not None

    def replace(self, of_provider: str, models: Iterable[DiscoveredModel]) -> None:
        """Replaces a provider's list, and marks missing models as gone. Raises InputError."""
        # Waits until no other transaction writes lists.
        self._tx.serialize_by(discovered_model.name)
        if not _has_row(self._tx, of_provider):
            raise _unknown_provider(of_provider)
        of_this_provider = discovered_model.c.provider == of_provider
        merged = merge_lists(self._all(self._select(of_this_provider)), list(models))
        self._delete(of_this_provider)
        if rows := [self.record.write(model) for model in merged]:
            self._tx.write(sa.insert(discovered_model), rows)


class Sightings(Records[Sighting]):
    """The models that targets' providers reported serving, in evals and in requests."""

    record = SIGHTING

    def note(self, sightings: Iterable[Sighting]) -> None:
        """Adds sightings, or raises `last_at` of known ones. Deletes a target's oldest rows."""
        for sighting in _storable_sightings(sightings):
            earlier = served_model.c.last_at < sighting.last_at
            if self._change(*_same_sighting(sighting), earlier, last_at=sighting.last_at):
                continue
            if self._tx.write_new(served_model, self.record.write(sighting)):
                stored = self._stored(sighting.target)
                for old in set(stored) - set(newest_sightings(stored)):
                    self._delete(*_same_sighting(old))

    def for_target(self, target: str) -> Sequence[Sighting]:
        """Returns a target's newest sightings."""
        return self._tx.once(
            (served_model.name, target),
            lambda: newest_sightings(self._stored(target)),
        )

    def for_targets(self, targets: Iterable[str]) -> Mapping[str, Sequence[Sighting]]:
        """Returns the newest sightings of targets, by the target's id."""
        found: dict[str, list[Sighting]] = {}
        for sighting in self._all(
            self._select(served_model.c.target.in_(sorted(set(targets))))
        ):
            found.setdefault(sighting.target, []).append(sighting)
        return {target: newest_sightings(sightings) for target, sightings in found.items()}

    def _stored(self, target: str) -> Sequence[Sighting]:
        return self._all(self._select(served_model.c.target == target))


class EndStatements(Records[EndStatement]):
    """The statements of catalogue, lists and headers about the ends of targets' models."""

    record = END_STATEMENT
    order = (end_statement.c.target, end_statement.c.kind)

    def of_headers(self) -> Mapping[str, EndStatement]:
        """Returns the statements of headers, also withdrawn ones, by the target's id."""
        query = self._select(end_statement.c.kind == EndSource.HEADERS.value)
        return {statement.target: statement for statement in self._all(query)}

    def note(self, statements: Iterable[EndStatement]) -> None:
        """Adds or replaces statements. An older reading never replaces a newer one."""
        # All writers use one order, so that no two writers wait for each other.
        for statement in sorted(statements, key=lambda new: (new.target, new.kind)):
            values = self.record.write(statement)
            if not self._tx.write_new(end_statement, values):
                is_older = end_statement.c.checked_at <= statement.checked_at
                self._change(*_same_statement(statement), is_older, **values)

    def forget(self, statements: Iterable[EndStatement]) -> None:
        """Deletes statements."""
        for statement in sorted(statements, key=lambda old: (old.target, old.kind)):
            self._delete(*_same_statement(statement))


def _same_statement(statement: EndStatement) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        end_statement.c.target == statement.target,
        end_statement.c.kind == statement.kind.value,
    )


def _storable_sightings(sightings: Iterable[Sighting]) -> Sequence[Sighting]:
    """Cuts sightings to storable texts, in one order for all writers to avoid deadlocks."""
    storable_ones = []
    for sighting in sightings:
        model, build = (storable(text)[:LONGEST_NAME] for text in sighting.served.pair)
        if model:
            storable_ones.append(replace(sighting, served=ServedModel(model, build)))
    return sorted(storable_ones, key=lambda sighting: (sighting.target, sighting.served))


def _same_sighting(sighting: Sighting) -> tuple[sa.ColumnElement[bool], ...]:
    key = (sighting.target, *sighting.served.pair)
    return tuple(
        column == value for column, value in zip(served_model.primary_key, key, strict=True)
    )
