"""Keys of providers in memory."""

from collections.abc import Sequence

from harness.domain.credentials import Credential
from harness.store.memory.state import Unit
from harness.store.rules import no_such_provider


class MemoryCredentials:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[Credential]:
        stored = self._unit.state.credentials.values()
        return sorted(stored, key=lambda each: (each.provider, each.position, each.name))

    def put(self, credential: Credential) -> None:
        state = self._unit.writing
        if credential.provider not in state.providers:
            raise no_such_provider(credential.provider)
        state.credentials[credential.provider, credential.name] = credential
        state.serving_changes += 1
