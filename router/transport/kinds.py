"""How each kind of provider is addressed, and shown our key."""

from typing import Final

from harness.domain.targets import Provider

ANTHROPIC: Final = "anthropic"


def url_of(provider: Provider, path: str) -> str:
    """path: below `/v1`, which is part of the `api_base`; of Anthropic's it may be left out."""
    base = provider.api_base.rstrip("/")
    if provider.kind == ANTHROPIC and not base.endswith("/v1"):
        base += "/v1"
    return f"{base}{path}"


def key_headers(provider: Provider, secret: str) -> dict[str, str]:
    """secret: empty for none."""
    if not secret:
        return {}
    if provider.kind == ANTHROPIC:
        return {"x-api-key": secret}
    return {"authorization": f"Bearer {secret}"}


def passed_up(
    provider: Provider, headers: tuple[tuple[bytes, bytes], ...]
) -> list[tuple[str, str]]:
    """The client's headers that go along: those that the operator has not set."""
    own = {name.lower() for name in provider.extra_headers}
    named = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return [(name, value) for name, value in named if name not in own]
