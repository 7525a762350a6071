"""Published requests that Swapproof must not ask a second time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.routing.provider_side import find_provider_file, find_provider_state

pytestmark = pytest.mark.req("D8")

FILE = Path(__file__).parent.parent / "world/hosted/requests.yaml"


@pytest.mark.parametrize(
    "request_",
    yaml.safe_load(FILE.read_text(encoding="utf-8")),
    ids=lambda request: str(request["name"]),
)
def test_a_published_request_has_its_reason_not_to_be_copied(
    request_: Mapping[str, Any],
) -> None:
    assert request_["source"].startswith("https://")
    assert find_provider_state(request_["body"].get) == request_["right"]
    assert find_provider_file(request_["body"]) == ""


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_id": "file-1"},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "container_upload"},
        {"type": "item_reference", "id": "msg_1"},
    ],
)
def test_a_file_at_the_provider_is_found_in_a_message(part: Mapping[str, object]) -> None:
    body = {"input": [{"role": "user", "content": [part]}]}

    assert find_provider_file(body) == "a file at the provider"


def test_a_tool_of_the_client_that_takes_the_id_of_a_file_is_no_file() -> None:
    call = {"name": "read", "arguments": {"file_id": "1"}}
    schema = {"properties": {"file_id": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "read", "parameters": schema}}]

    assert find_provider_file({"tools": tools, "messages": [call]}) == ""


@pytest.mark.parametrize("tools", ['[{"type": "mcp"}]', {"0": {"type": "mcp"}}])
def test_tools_in_a_form_that_swapproof_cannot_read_may_be_hosted(tools: object) -> None:
    assert find_provider_state({"tools": tools}.get) == "a tool that the provider runs"
    assert find_provider_state({"tools": []}.get) == ""
