"""The client's own headers on their way to the provider."""

from harness.domain.routing.target import Provider


def forwarded_headers(
    provider: Provider, headers: tuple[tuple[bytes, bytes], ...]
) -> list[tuple[str, str]]:
    """Those that the operator has not set."""
    own = {name.lower() for name in provider.extra_headers}
    named = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return [(name, value) for name, value in named if name not in own]
