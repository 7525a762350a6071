"""Makes random ids and secrets: from the system's generator, or counting ones for tests."""

import secrets


class SystemRandomIds:
    """Implements ports.Chance."""

    def token(self, prefix: str) -> str:
        return f"{prefix}{secrets.token_hex(8)}"

    def secret(self) -> str:
        return secrets.token_urlsafe(32)


class CountingRandomIds:
    """Implements ports.Chance; ids are 1, 2, 3 … so that tests can read them."""

    def __init__(self) -> None:
        self._count = 0

    def token(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:016x}"

    def secret(self) -> str:
        return self.token("secret-").ljust(43, "x")
