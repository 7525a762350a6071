"""An approval link shows one switch request to whoever has it, until the request expires, and
lets a person with the role decide it, once. Pure.

The link is no right to decide: it carries no key. It is nothing to show around all the same,
since it shows what an agent wrote.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from harness.domain.agents.signed_values import open_values, sign_values
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.errors import NotFound

APPROVAL_PATH: Final = "/agents/approvals/"
_PURPOSE: Final = b"swapgate: approval link"


@dataclass(frozen=True, slots=True)
class ApprovalLinks:
    """Makes links and reads them."""

    base_url: str  # where people reach `/agents`
    secret: bytes = field(repr=False)  # the installation's

    def link(self, request: ModelSwitchRequest) -> str:
        values = {
            "request": request.id,
            "hash": request.hash,
            "until": request.expires_at.timestamp(),
        }
        token = sign_values(values, self.secret, _PURPOSE).decode()
        return f"{self.base_url.rstrip('/')}{APPROVAL_PATH}{token}"

    def read(self, token: str, now: datetime) -> tuple[str, str]:
        """The request's id, and its hash when the link was made. Raises NotFound for a token
        that was not made here, and one whose time is over.
        """
        signed = token.encode("utf-8", "surrogatepass")
        values = open_values(signed, self.secret, _PURPOSE)
        if values is None:
            raise NotFound("this is no approval link of this installation")
        if now.timestamp() >= values["until"]:
            raise NotFound("the link is over: nobody decided about the switch in time")
        return values["request"], values["hash"]
