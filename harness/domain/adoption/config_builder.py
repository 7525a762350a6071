"""A draft of a Swapgate configuration grows while another gateway's is read: providers, of
which equal ones are one, and routes with their chains of targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.domain.errors import InputError
from harness.domain.providers.api_base_rules import check_api_base, check_api_base_path
from harness.domain.providers.headers import check_headers
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.route_changes import check_route_name

_MANY: Final = 1_000


@dataclass(frozen=True, slots=True)
class ProviderSource:
    """Says how a target of the other gateway is called. Two that are equal are one provider."""

    name: str  # as the other gateway calls it
    kind: str
    api_base: str = ""  # empty for the kind's own place
    key_env: str = ""  # the variable that the file names
    # A key in clear: it tells providers apart, and goes nowhere.
    key: str = field(default="", repr=False)
    usual_key_env: str = ""  # where neither is given
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def check(self) -> None:
        """Checks that Swapgate can call it. Raises InputError."""
        base = self.api_base or PROVIDER_KINDS[self.kind].api_base
        check_api_base_path(self.kind, base)
        check_api_base(base)
        check_headers(dict(self.headers))


@dataclass(frozen=True)
class TargetDraft:
    """A target of a route, as the configuration file writes it."""

    provider: str
    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    patch: Mapping[str, object] = field(default_factory=dict)  # set whatever clients send

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def entry(self) -> object:
        """Returns what stands for it in the file: its name, where that says all."""
        if not (self.parameters or self.patch):
            return self.name
        entry: dict[str, object] = {"target": self.name}
        if self.parameters:
            entry["parameters"] = dict(self.parameters)
        if self.patch:
            entry["request_patch"] = {"parameters": dict(self.patch)}
        return entry


class ConfigDraft:
    """Holds what was taken over so far."""

    def __init__(self, named_variables: frozenset[str]) -> None:
        self.router: dict[str, object] = {}
        self._reserved = named_variables
        self._providers: dict[str, dict[str, object]] = {}
        self._known: dict[ProviderSource, str] = {}
        self._variables: dict[
            str, str
        ] = {}  # of secrets → the key in clear, if the file has it
        self._chains: dict[str, list[TargetDraft]] = {}
        self._settings: dict[str, dict[str, object]] = {}

    @property
    def routes(self) -> Mapping[str, Sequence[TargetDraft]]:
        return self._chains

    @property
    def variables(self) -> tuple[str, ...]:
        """Lists the environment variables that have to hold secrets."""
        return tuple(self._variables)

    def add_provider(self, source: ProviderSource) -> str:
        """Adds a provider, or finds the equal one; returns its name. Raises InputError for one
        that Swapgate cannot call.
        """
        known = self._known.get(source)
        if known is not None:
            return known
        source.check()
        name = next(
            name
            for number in range(1, _MANY)
            if (name := source.name if number == 1 else f"{source.name}-{number}")
            not in self._providers
        )
        entry: dict[str, object] = {"kind": source.kind}
        if source.api_base or not PROVIDER_KINDS[source.kind].api_base:
            entry["api_base"] = source.api_base
        if variable := self._key_variable(source, name):
            entry["api_key_env"] = variable
        if source.headers:
            entry["extra_headers"] = dict(source.headers)
        self._providers[name] = entry
        self._known[source] = name
        return name

    def provider_entry(self, name: str) -> Mapping[str, object]:
        return self._providers[name]

    def describe_model(self, provider: str, section: str, model: str, facts: object) -> None:
        """Notes prices or capabilities of a provider's model."""
        models = self._providers[provider].setdefault(section, {})
        if isinstance(models, dict):
            known = models.get(model)
            both = isinstance(known, dict) and isinstance(facts, dict)
            models[model] = {**known, **facts} if both else facts  # type: ignore[dict-item]

    def add_route(self, name: str, chain: Sequence[TargetDraft]) -> None:
        """Adds a route whose first target is its incumbent. Raises InputError for a name that
        no route may have.
        """
        check_route_name(name)
        if name in self._chains:
            raise InputError(f"there is a route {name!r} already")
        self._chains[name] = []
        for target in chain:
            self.add_fallback(name, target)

    def add_fallback(self, route: str, target: TargetDraft) -> bool:
        """Whether it was added: no target stands twice in a chain."""
        chain = self._chains[route]
        if any(target == known for known in chain):
            return False
        chain.append(target)
        return True

    def set_route(self, route: str, setting: str, value: object) -> None:
        self._settings.setdefault(route, {})[setting] = value

    def route_settings(self, route: str) -> Mapping[str, object]:
        return self._settings.get(route, {})

    def config(self) -> dict[str, object]:
        """Returns the configuration, as a swapgate.yaml has it."""
        routes = {
            name: {
                "incumbent": chain[0].entry(),
                **({"fallbacks": [t.entry() for t in chain[1:]]} if chain[1:] else {}),
                **self._settings.get(name, {}),
            }
            for name, chain in self._chains.items()
        }
        return {
            "home": ".swapgate",
            **({"router": self.router} if self.router else {}),
            **({"providers": self._providers} if self._providers else {}),
            **({"routes": routes} if routes else {}),
        }

    def _key_variable(self, source: ProviderSource, name: str) -> str:
        """The variable of its key; a key in clear gets one that nothing else uses."""
        if source.key_env:
            self._variables[source.key_env] = ""
            return source.key_env
        if not source.key:
            usual = source.usual_key_env
            if usual:
                self._variables.setdefault(usual, "")
            return usual
        plain = "".join(c if c.isalnum() else "_" for c in name).upper() + "_API_KEY"
        for variable in (source.usual_key_env, plain, f"SWAPGATE_{plain}"):
            taken = variable in self._reserved or variable in self._variables
            if variable and (not taken or self._variables.get(variable) == source.key):
                self._variables[variable] = source.key
                return variable
        raise InputError(f"no variable is free for the key of {name}: rename {plain}")
