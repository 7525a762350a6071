"""`/v1/embeddings`, as OpenAI has it."""

from typing import Final

from harness.domain.capabilities import Endpoint
from harness.domain.targets import Target
from router.body import ClientRequest
from router.dialects.chat import Chat
from router.dialects.lists import first_object
from router.jsonspan import Members, spliced
from router.patching import model_edit
from router.usage import Usage, usage_of


class Embeddings(Chat):
    """Has no streams, and no conversation."""

    endpoint = Endpoint.EMBEDDINGS
    path = "/embeddings"

    def opening(self, request: ClientRequest) -> list[object]:  # noqa: ARG002 - there is none
        return []

    def patched(
        self,
        request: ClientRequest,
        target: Target,
        *,
        serialize_tools: bool = False,  # noqa: ARG002 - there are none
    ) -> bytes:
        """`model` alone changes: the target's settings are about words."""
        return spliced(request.text, [model_edit(request, target)])

    def checked(self, members: Members) -> Usage | None:
        first_object(members, "data")
        return usage_of(members.get("usage"))


EMBEDDINGS: Final = Embeddings()
