"""Keys of providers in memory."""

from collections.abc import Sequence

from harness.domain.providers.credentials import Credential
from harness.domain.providers.oauth_tokens import SignIn
from harness.store.memory.state import Unit
from harness.store.rules import no_such_provider, sign_in_is_over


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


class MemorySignIns:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def all(self) -> Sequence[SignIn]:
        return sorted(self._unit.state.sign_ins.values(), key=lambda each: each.provider)

    def start(self, new: SignIn) -> None:
        state = self._unit.writing
        if new.provider not in state.providers:
            raise no_such_provider(new.provider)
        state.sign_ins[new.provider] = new

    def save(self, changed: SignIn) -> None:
        state = self._unit.writing
        known = state.sign_ins.get(changed.provider)
        if known is None or known.id != changed.id:
            raise sign_in_is_over(changed.provider)
        state.sign_ins[changed.provider] = changed

    def end(self, provider: str) -> bool:
        return self._unit.writing.sign_ins.pop(provider, None) is not None
