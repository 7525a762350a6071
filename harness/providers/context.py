"""`ProvidersContext`: everything outside a use case that a use case of providers may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.frame.errors import ConfigError
from harness.frame.ports import Cipher
from harness.frame.world import World
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import OAuthOverrides
from harness.providers.ports import ModelTable, OAuthServer, ProviderProbe, ProviderUses
from harness.providers.target import Target


class NoCipher:
    """Refuses to encrypt or decrypt, in a process that has no encryption keys."""

    def encrypt(self, text: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    def decrypt(self, token: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    reencrypt = decrypt


@dataclass(frozen=True, kw_only=True)
class ProvidersContext(World):
    """Adds keys, the known models and the ports that call providers. A port is None in a
    process that lacks it.
    """

    uses: ProviderUses  # which routes, proposals and runs need a provider
    cipher: Cipher = field(default_factory=NoCipher)  # encrypts texts before they are stored
    # This process's environment variables, including providers' keys.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    models: ModelTable | None = None  # known models; None without a model catalogue
    judges: Mapping[str, Target] = field(default_factory=dict)  # by the suite's name
    # The names of the providers that may see a data class, by class.
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    allow_addresses: tuple[str, ...] = ()  # closed addresses that providers may use
    probe: ProviderProbe | None = None  # None if this process calls no provider
    oauth: OAuthServer | None = None  # server where people sign in; None without sign-in
    oauth_changes: Mapping[str, OAuthOverrides] = field(default_factory=dict)  # by provider

    @property
    def catalogue(self) -> Catalogue:
        """The known models at this moment; empty without a model catalogue."""
        return self.models.catalogue() if self.models is not None else Catalogue()
