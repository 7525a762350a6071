"""Fetches data sets of hosted tools by their own SDKs, in the form of their exports.

`langfuse://DATASET`, `langsmith://DATASET`, `braintrust://PROJECT/DATASET`. The SDKs are an
optional dependency; only this module imports them, and only for such an address. The calls only
read. `dataset_import` converts the records like a file.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from harness.frame.errors import InputError
from harness.frame.formatting import format_excerpt

Rows = Iterator[Mapping[str, Any]]
EXTRA: Final = "swapproof[hosted]"


@dataclass(frozen=True, slots=True)
class HostedTool:
    fetch: Callable[[str], Rows]  # by the name after `://`
    keys: Sequence[str]  # the environment variables that the SDK needs
    address: str  # the environment variable of another server
    names: str = "DATASET"


def _fetch_langfuse(name: str) -> Rows:
    """Yields the items. An item without an expected output gets the scores that people gave its
    trace.
    """
    from langfuse import Langfuse  # type: ignore[import-not-found]  # noqa: PLC0415 - an extra

    client = Langfuse(tracing_enabled=False)
    for item in client.get_dataset(name).items:
        row = item.dict()
        if item.expected_output is None and item.source_trace_id:
            row["scores"] = [*_langfuse_scores(client, item.source_trace_id)]
        yield row


def _langfuse_scores(client: Any, trace: str) -> Rows:
    """Yields the scores that people gave a trace."""
    cursor = None
    while True:
        page = client.api.scores.get_many(trace_id=trace, source="ANNOTATION", cursor=cursor)
        yield from (score.dict() for score in page.data)
        cursor = page.meta.cursor
        if not cursor:
            return


def _fetch_langsmith(name: str) -> Rows:
    """Yields the examples. An example without outputs gets the feedback on its run."""
    from langsmith import Client  # noqa: PLC0415 - an extra

    client = Client(auto_batch_tracing=False)
    for example in client.list_examples(dataset_name=name):
        row = example.model_dump(mode="json", exclude={"attachments"})
        if not example.outputs and example.source_run_id:
            feedback = client.list_feedback(run_ids=[example.source_run_id])
            row["feedback"] = [entry.model_dump(mode="json") for entry in feedback]
        yield row


def _fetch_braintrust(name: str) -> Rows:
    """Yields the records, page by page. Raises InputError for an unknown data set."""
    import braintrust  # type: ignore[import-not-found]  # noqa: PLC0415 - an extra

    project, _, dataset = name.partition("/")
    datasets = braintrust.login_to_state().api_client().datasets
    # Not init_dataset(), which creates a data set that does not exist.
    response = datasets.get_dataset(
        project_name=unquote(project), dataset_name=unquote(dataset)
    )
    if not response["objects"]:
        raise InputError(f"project {project!r} has no data set {dataset!r}")
    body: dict[str, Any] = {"limit": 1000}
    while True:
        page = datasets.post_dataset_id_fetch(response["objects"][0]["id"], body=body)
        yield from page["events"]
        if not page["events"] or not page.get("cursor"):
            return
        body["cursor"] = page["cursor"]


TOOLS: Final[Mapping[str, HostedTool]] = {
    "langfuse": HostedTool(
        lambda name: _fetch_langfuse(unquote(name)),
        ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
        "LANGFUSE_BASE_URL",
    ),
    "langsmith": HostedTool(
        lambda name: _fetch_langsmith(unquote(name)),
        ("LANGSMITH_API_KEY",),
        "LANGSMITH_ENDPOINT",
    ),
    "braintrust": HostedTool(
        _fetch_braintrust,
        ("BRAINTRUST_API_KEY",),
        "BRAINTRUST_API_URL",
        "PROJECT/DATASET",
    ),
}


def tool_of(source: str) -> str:
    """Returns a key of TOOLS. Raises InputError for another scheme, or without a name."""
    name, _, rest = source.partition("://")
    if name not in TOOLS:
        addresses = ", ".join(f"{tool}://{form.names}" for tool, form in TOOLS.items())
        raise InputError(f"{source}: no file, and no address that Swapproof knows: {addresses}")
    name_form = TOOLS[name].names
    if not all(rest.partition("/")[::2] if "/" in name_form else [rest]):
        raise InputError(f"{source}: write {name}://{name_form}")
    return name


def fetch(source: str) -> bytes:
    """Returns the records as JSON lines. Raises InputError if that fails."""
    name = tool_of(source)
    tool = TOOLS[name]
    if missing := [key for key in tool.keys if not os.environ.get(key)]:
        raise InputError(f"{source}: set {' and '.join(missing)} in the environment")
    try:
        rows = [*tool.fetch(source.partition("://")[2])]
    except ImportError:
        raise InputError(
            f"{source}: needs the SDK of {name}: `pip install '{EXTRA}'`"
        ) from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except Exception as error:  # noqa: BLE001 - each SDK has errors of its own
        status = getattr(error, "status_code", None)  # Langfuse's text lists all headers
        reason = f"HTTP {status}" if status else f"{type(error).__name__}: {error}"
        text = format_excerpt(reason, 200)
        raise InputError(
            f"{source}: {name} did not give the data set ({text}); check its name, "
            f"{' and '.join(tool.keys)}, and {tool.address} of a server of your own"
        ) from None
    lines = (json.dumps(row, default=str) + "\n" for row in rows)
    return "".join(lines).encode()
