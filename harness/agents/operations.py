"""The simple operations on agents: decisions about switch requests, and grants.

The commands that show switch requests, with prices and quality of both models, are written by
hand.
"""

from typing import Any, Final

from harness.agents import agents, switches
from harness.frame.configuration.setting import Range
from harness.frame.operation import (
    Operation,
    OperationGroup,
    Parameter,
)
from harness.frame.people.access import Role

# Swapproof refuses a decision if the person saw an earlier form of the request.
_DECISION: Final[dict[str, Any]] = {
    "role": Role.APPROVER,
    "body": "SwitchDecisionBody",
    "body_text": "A decision about a switch request.",
    "parameters": {
        "fingerprint": Parameter(
            meaning="The fingerprint of the request that the person saw; Swapproof refuses the "
            "decision if the request has changed.",
            length=Range(0, 200),
            for_programs=True,
        )
    },
}


AGENTS: Final = OperationGroup(
    command="agent",
    words="Agents: their switch requests and grants.",
    operations=(
        Operation(
            use_case=switches.approve_switch,
            words="Switch a session to the requested model, from its next message on.",
            command="approve ID",
            example="swapproof agent approve sw_4be0c7d1f2a89365",
            endpoint="POST /switch-requests/{request}/approve",
            name="approve_switch_request",
            done=lambda approved: f"{approved.result.id} is approved",
            **_DECISION,
        ),
        Operation(
            use_case=switches.reject_switch,
            words="Leave a session on its model; its agent gets the reason.",
            command="reject ID",
            example='swapproof agent reject sw_4be0c7d1f2a89365 --reason "too expensive"',
            endpoint="POST /switch-requests/{request}/reject",
            name="reject_switch_request",
            done=lambda rejected: f"{rejected.result.id} is rejected",
            **_DECISION,
        ),
        Operation(
            use_case=agents.revoke_grant,
            role=Role.APPROVER,
            words="Revoke a grant: routers refuse the model within seconds.",
            command="revoke ID",
            example="swapproof agent revoke gr_86c1f04d9ab3e725",
            endpoint="POST /agent-grants/{grant}/revoke",
            name="revoke_agent_grant",
            done=lambda revoked: (
                f"{revoked.result.id} is revoked: {revoked.result.target_name}"
            ),
        ),
    ),
)
