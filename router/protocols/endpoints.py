"""Lists the dialects that the router speaks, by endpoint, and the paths at which it serves
them.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.routing.capabilities import Endpoint
from router.protocols.chat.dialect import CHAT
from router.protocols.dialect import ProtocolDialect
from router.protocols.embeddings import EMBEDDINGS
from router.protocols.messages.dialect import MESSAGES
from router.protocols.responses.dialect import RESPONSES

DIALECTS: Final[Mapping[Endpoint, ProtocolDialect]] = {
    dialect.endpoint: dialect for dialect in (CHAT, EMBEDDINGS, RESPONSES, MESSAGES)
}
# Ours; a provider's begin with its api_base.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    f"/v1{dialect.path}": endpoint for endpoint, dialect in DIALECTS.items()
}
