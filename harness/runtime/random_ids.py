"""Makes random ids and secrets from the system's generator."""

import secrets


class SystemRandomIds:
    """Implements ports.Chance."""

    def token(self, prefix: str) -> str:
        return f"{prefix}{secrets.token_hex(8)}"

    def secret(self) -> str:
        return secrets.token_urlsafe(32)
