"""Addresses of this machine's servers."""


def http_url(host: str, port: int) -> str:
    """Where a server is reached from its own machine: one that listens on every address, on
    loopback.
    """
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"
