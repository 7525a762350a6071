"""Reads and writes providers (`Providers`), their encrypted keys (`Credentials`), the
sign-ins that renew those (`SignIns`), the result of each provider's last check, which an
older one never replaces (`ProviderChecks`), the models that each provider listed last
(`DiscoveredModels`), and the newest few of the models and builds that providers said they
served for a target (`Sightings`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from harness.domain.errors import NotFound
from harness.domain.evals.pins import ServedModel, Sighting, newest_sightings
from harness.domain.providers.credentials import Credential
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.oauth_tokens import SignIn
from harness.domain.providers.probe import ProviderCheck
from harness.domain.routing.target import Provider
from harness.store.refusals import no_such_provider, sign_in_is_over, unknown_provider
from harness.store.rules import checked_sightings
from harness.store.schema.providers import (
    credential,
    credential_from_row,
    credential_to_row,
    discovered_model,
    discovered_model_from_row,
    provider,
    provider_check,
    provider_check_from_row,
    provider_check_to_row,
    provider_from_row,
    provider_to_row,
    served_model,
    sign_in,
    sign_in_from_row,
    sign_in_to_row,
)
from harness.store.unit_of_work import Unit

CREDENTIALS = sa.select(credential).order_by(
    credential.c.provider, credential.c.position, credential.c.name
)
PROVIDERS = sa.select(provider).where(provider.c.removed_at.is_(None)).order_by(provider.c.name)
PROVIDER_ROW = sa.select(provider.c.name).where(provider.c.name == sa.bindparam("known"))
PROVIDER_NAMES = sa.select(provider.c.name)
DISCOVERED = (
    sa.select(discovered_model)
    .join(provider, provider.c.name == discovered_model.c.provider)
    .where(provider.c.removed_at.is_(None))
    .order_by(discovered_model.c.provider, discovered_model.c.model)
)
IS_SAME_SIGHTING = sa.and_(
    served_model.c.target == sa.bindparam("whose"),
    served_model.c.model == sa.bindparam("which"),
    served_model.c.build == sa.bindparam("built"),
)
SIGHTING_BEFORE = sa.update(served_model).where(
    IS_SAME_SIGHTING, served_model.c.last_at < sa.bindparam("at")
)
SIGHT_AGAIN = SIGHTING_BEFORE.values(last_at=sa.bindparam("at"))
FORGET_SIGHTING = sa.delete(served_model).where(IS_SAME_SIGHTING)
SIGHTINGS = sa.select(served_model).where(served_model.c.target == sa.bindparam("whose"))


class Credentials:
    """Keys of providers, encrypted by whoever stores them. None is ever deleted."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[Credential]:
        found = self._unit.checked(credential, self._unit.read(CREDENTIALS))
        return [credential_from_row(row) for row in found]

    def put(self, new: Credential) -> None:
        """Adds a key, or replaces the one of its provider and name. Raises InputError for an
        unknown provider.
        """
        self._unit.serialize()
        known = sa.select(provider.c.name).where(provider.c.name == new.provider)
        if self._unit.read(known).first() is None:
            raise no_such_provider(new.provider)
        values = credential_to_row(new)
        if not self._unit.write_new(credential, values):
            same = sa.and_(credential.c.provider == new.provider, credential.c.name == new.name)
            signed = self._unit.signed(credential, values)
            self._unit.write(sa.update(credential).where(same).values(signed))


class SignIns:
    """Stores people's sign-ins, one per provider. Routers never see them."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[SignIn]:
        found = self._unit.read(sa.select(sign_in).order_by(sign_in.c.provider))
        return [sign_in_from_row(row) for row in found]

    def start(self, new: SignIn) -> None:
        """Stores a new sign-in in place of the provider's last one. Raises InputError for an
        unknown provider.
        """
        self._unit.serialize()
        known = sa.select(provider.c.name).where(provider.c.name == new.provider)
        if self._unit.read(known).first() is None:
            raise no_such_provider(new.provider)
        values = sign_in_to_row(new)
        if not self._unit.write_new(sign_in, values):
            same = sign_in.c.provider == new.provider
            self._unit.write(sa.update(sign_in).where(same).values(values))

    def save(self, changed: SignIn) -> None:
        """Saves a sign-in. Raises StaleWrite where somebody signed in anew, or out."""
        same = sa.and_(sign_in.c.provider == changed.provider, sign_in.c.id == changed.id)
        values = sign_in_to_row(changed)
        if not self._unit.write(sa.update(sign_in).where(same).values(values)):
            raise sign_in_is_over(changed.provider)

    def replace(self, before: SignIn, after: SignIn) -> None:
        """Saves `after` where the sign-in is as `before` says. Raises StaleWrite where it is
        over, or another process renews it.
        """
        same = (
            sign_in.c.provider == before.provider,
            sign_in.c.id == before.id,
            sign_in.c.ciphertext == before.ciphertext,
            sign_in.c.renewed_at == before.renewed_at,
            sign_in.c.attempts == before.attempts,
            sign_in.c.retry_at.is_not_distinct_from(before.retry_at),
        )
        values = sign_in_to_row(after)
        if not self._unit.write(sa.update(sign_in).where(*same).values(values)):
            raise sign_in_is_over(before.provider)

    def end(self, provider: str) -> bool:
        """Removes a provider's sign-in; returns whether there was one."""
        return self._unit.write(sa.delete(sign_in).where(sign_in.c.provider == provider)) > 0


class Providers:
    def __init__(self, unit: Unit, now: datetime) -> None:
        self._unit = unit
        self._now = now

    def put(self, new: Provider) -> None:
        self._unit.serialize()
        values = provider_to_row(new) | {"updated_at": self._now}
        if self._unit.read(PROVIDER_ROW, {"known": new.name}).first() is None:
            self._unit.insert(provider, values)
        elif self.all().get(new.name) != new:
            # An equal one is left alone: routers need not load anything.
            same = provider.c.name == new.name
            self._unit.write(
                sa.update(provider).where(same).values(self._unit.signed(provider, values))
            )

    def remove(self, name: str) -> None:
        """Removes a provider, as if it had never been put. Raises NotFound."""
        self._unit.serialize()
        known = sa.and_(provider.c.name == name, provider.c.removed_at.is_(None))
        gone = {"removed_at": self._now, "extra_headers": {}, "sealed_headers": {}}
        if not self._unit.amend(provider, known, gone):
            raise NotFound(f"there is no provider {name!r}")

    def all(self) -> Mapping[str, Provider]:
        return self._unit.once((provider.name,), self._all)

    def _all(self) -> Mapping[str, Provider]:
        found = self._unit.checked(provider, self._unit.read(PROVIDERS))
        return {row.name: provider_from_row(row) for row in found}


class ProviderChecks:
    """What `/check` found of each provider last, whichever process asked (D5)."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[ProviderCheck]:
        found = self._unit.read(sa.select(provider_check).order_by(provider_check.c.provider))
        return [provider_check_from_row(row) for row in found]

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        """Stores each check in place of an older one of its provider.

        Raises InputError for an unknown provider.
        """
        there = set(self._unit.read(PROVIDER_NAMES).scalars())
        # In one order everywhere: two that write the same rows do not wait for each other.
        for check in sorted(checks, key=lambda one: one.provider):
            if check.provider not in there:
                raise unknown_provider(check.provider)
            values = provider_check_to_row(check)
            if self._unit.write_new(provider_check, values):
                continue
            same = provider_check.c.provider == check.provider
            older = sa.and_(same, provider_check.c.at <= check.at)
            self._unit.write(sa.update(provider_check).where(older).values(values))


class DiscoveredModels:
    """The models that providers listed, whoever asked."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[DiscoveredModel]:
        """Lists the discovered models by provider and name; none of a provider that was
        removed.
        """
        return [discovered_model_from_row(row) for row in self._unit.read(DISCOVERED)]

    def replace(self, of_provider: str, models: Iterable[DiscoveredModel]) -> None:
        """All of one provider, instead of those before. Raises InputError for an unknown
        provider.
        """
        # Of two that replace the same list the second waits.
        self._unit.serialize_by(discovered_model.name)
        if self._unit.read(PROVIDER_ROW, {"known": of_provider}).first() is None:
            raise unknown_provider(of_provider)
        same = discovered_model.c.provider == of_provider
        self._unit.write(sa.delete(discovered_model).where(same))
        if rows := [asdict(model) for model in models]:
            self._unit.write(sa.insert(discovered_model), rows)


class Sightings:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def note(self, sightings: Iterable[Sighting]) -> None:
        """Adds sightings; of one that is known, `last_at` rises. The oldest of a target give
        way.
        """
        # In one order everywhere: two that write the same rows do not wait for each other.
        for sighting in checked_sightings(sightings):
            if self._unit.write(
                SIGHT_AGAIN, {**_sighting_key(sighting), "at": sighting.last_at}
            ):
                continue
            model, build = sighting.served.pair
            row: dict[str, object] = {"target": sighting.target, "model": model, "build": build}
            times = {"first_at": sighting.first_at, "last_at": sighting.last_at}
            if self._unit.write_new(served_model, row | times):
                self._prune(sighting.target)

    def for_target(self, target: str) -> Sequence[Sighting]:
        return self._unit.once(
            (served_model.name, target), lambda: newest_sightings(self._stored(target))
        )

    def _stored(self, target: str) -> Sequence[Sighting]:
        return [
            Sighting(row.target, ServedModel(row.model, row.build), row.first_at, row.last_at)
            for row in self._unit.read(SIGHTINGS, {"whose": target})
        ]

    def _prune(self, target: str) -> None:
        stored = self._stored(target)
        for sighting in set(stored) - set(newest_sightings(stored)):
            self._unit.write(FORGET_SIGHTING, _sighting_key(sighting))


def _sighting_key(sighting: Sighting) -> dict[str, str]:
    return {
        "whose": sighting.target,
        "which": sighting.served.model,
        "built": sighting.served.build,
    }
