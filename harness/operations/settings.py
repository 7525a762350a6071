"""Settings of the dashboard and of single sign-on."""

from dataclasses import dataclass, field
from datetime import timedelta

from harness.routing.settings import http_url


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """How people sign in to the dashboard by OpenID Connect, and their roles."""

    issuer: str  # such as https://login.example.com/realms/staff
    client_id: str  # the dashboard's client id at that server
    client_secret_env: str  # the variable with the client's secret, or NAME_FILE with its file
    public_url: str  # the dashboard's address, such as https://swapgate.example.com
    # Group at the server to viewer, proposer, approver or admin; the highest role counts.
    roles: dict[str, str] = field(default_factory=dict)
    roles_claim: str = "groups"  # claim with a person's groups
    name_claim: str = "email"  # claim with a person's name; the subject is the identity
    # requested scopes; some servers send `groups` only if you add a scope here
    scope: str = "openid email profile"

    @property
    def redirect_url(self) -> str:
        return f"{self.public_url.rstrip('/')}/oauth2callback"

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class UiSettings:
    """The dashboard; see docs/reference/dashboard.md."""

    host: str = "127.0.0.1"  # address that it listens on
    port: int = 8501  # port that it listens on
    session_hours: float = 12.0  # how long a sign-in to the dashboard lasts
    oidc: OidcSettings | None = None  # single sign-on; without it the host is loopback

    @property
    def url(self) -> str:
        if self.oidc is not None:
            return self.oidc.public_url.rstrip("/")
        return http_url(self.host, self.port)

    @property
    def session_lasts(self) -> timedelta:
        return timedelta(hours=self.session_hours)
