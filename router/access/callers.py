"""`Callers` says who asks: the grant of the key in a request's headers, in OpenAI's or
Anthropic's form, or of the key that the agents process names for an agent's session; 401
otherwise, and 429 once too many came from one address.
"""

from collections import Counter

from harness.domain.agents.caller import AGENT_HEADER
from harness.domain.operations.client_address import client_address, parse_proxy_networks
from harness.domain.routing.table import KeyGrant
from harness.domain.settings import RouterSettings
from harness.ports import Clock
from router.access.admission import Admission
from router.access.keys import KeyRing
from router.agents.agent_caller import AgentCallers
from router.server.asgi import Scope, header
from router.server.replies import Reply
from router.snapshot.compiled import CompiledSnapshot


class Callers:
    """Of one worker. secret: the installation's. counters: of the process."""

    def __init__(
        self,
        settings: RouterSettings,
        secret: bytes,
        clock: Clock,
        admission: Admission,
        counters: Counter[str],
    ) -> None:
        self._keys = KeyRing(secret)
        self._agents = AgentCallers(secret, clock, counters)
        self._admission = admission
        self._proxies = parse_proxy_networks(settings.trusted_proxies)

    def identify(
        self, scope: Scope, serving: CompiledSnapshot, *, anthropic: bool
    ) -> KeyGrant | Reply:
        """The grant of the request's key, or the refusal. anthropic: whether it is Anthropic's
        client that asks.
        """
        authorization = None
        for name, value in scope["headers"]:
            if name == b"authorization" and authorization is None:
                authorization = value
            elif name == AGENT_HEADER:
                return self._agents.admit(scope, serving)
        grant = self._keys.grant(authorization, serving)
        if grant is None and anthropic:
            grant = self._keys.grant_of(header(scope, b"x-api-key"), serving)
        if grant is None:
            return self._admission.refuse_unknown_key(self._address(scope))
        return grant

    def _address(self, scope: Scope) -> str:
        client = scope.get("client")
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return client_address(client[0] if client else None, forwarded, self._proxies)
