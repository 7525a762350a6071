"""What the house has once is used, and not written a second time."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapproof")

# What only its one place writes → that place, and others with a reason in a comment there.
PLACES = {
    # The one "did you mean".
    "get_close_matches": ("harness/frame/suggestions.py",),
    # The one parser of server-sent events; the filter writes an event's data anew.
    'startswith(b"data:': (
        "harness/frame/sse.py",
        "router/protocols/event_stream.py",
    ),
    # The one guarded client; a tool server's belongs to `mcp`.
    "may_connect(": (
        "harness/providers/api_base_rules.py",
        "harness/providers/calls/guarded_http.py",
        "harness/agents/tool_servers.py",
        "router/upstream/",
    ),
}


def test_it_is_written_in_one_place() -> None:
    others = [
        f"{place}: {text} belongs to {PLACES[text][0]}"
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
        for text in PLACES
        if text in file.read_text(encoding="utf-8")
        if not (place := file.relative_to(ROOT).as_posix()).startswith(PLACES[text])
    ]

    assert not others
