"""The protocols that are spoken here, by endpoint and by path."""

from collections.abc import Mapping
from typing import Final

from harness.domain.routing.capabilities import Endpoint
from router.dialects.chat import CHAT
from router.dialects.dialect import Dialect
from router.dialects.embeddings import EMBEDDINGS
from router.dialects.messages import MESSAGES
from router.dialects.responses import RESPONSES

DIALECTS: Final[Mapping[Endpoint, Dialect]] = {
    each.endpoint: each for each in (CHAT, EMBEDDINGS, RESPONSES, MESSAGES)
}
# Ours; a provider's begin with its api_base.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    f"/v1{each.path}": endpoint for endpoint, each in DIALECTS.items()
}
