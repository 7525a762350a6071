"""The seed of the order of a live comparison's items. Planned looks are valid only if a suite's
author cannot choose the order, so the seed depends on a secret or on chance.

A proposal stores the seed before the first answer, and a verdict contains it. So anybody can
recompute a verdict without the secret.
"""

import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

SEED_BYTES: Final = 16
_PURPOSE: Final = b"swapproof: order of items\n"


class SeedOrigin(StrEnum):
    DIGEST = "digest"  # the suite's digest alone, in registrations of older versions
    INSTALLATION = "installation"  # a secret of the installation, and the suite's digest
    UNDRAWN = "undrawn"  # a preview, which must not reveal the order
    RUNNER = "runner"  # random bits, drawn where a comparison runs without an installation


@dataclass(frozen=True, slots=True)
class OrderSeed:
    value: int  # 128 bits
    origin: SeedOrigin


class OrderSeeds(Protocol):
    """Chooses the seed of a suite's order, the same for all models of a comparison."""

    def seed_of(self, suite_digest: str) -> OrderSeed: ...


class UndrawnSeeds:
    """Hides the order in a preview. Otherwise an author could try many versions of a suite, and
    propose the version with the best order.
    """

    def seed_of(self, suite_digest: str) -> OrderSeed:  # noqa: ARG002 - the port's signature
        return OrderSeed(0, SeedOrigin.UNDRAWN)


@dataclass(frozen=True, slots=True)
class InstallationSeeds:
    """Derives seeds from a secret of the installation, by HMAC (RFC 2104).

    Each content of a suite has one order, so that proposals can share the incumbent's run.
    """

    secret: bytes

    def seed_of(self, suite_digest: str) -> OrderSeed:
        mac = hmac.digest(self.secret, _PURPOSE + suite_digest.encode(), "sha256")
        return OrderSeed(int.from_bytes(mac[:SEED_BYTES]), SeedOrigin.INSTALLATION)
