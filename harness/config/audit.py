"""The file's `audit:` section: where audit events and signed checkpoints are sent, each an
address that is checked here.
"""

from typing import Final
from urllib.parse import urlsplit

from harness.domain.errors import InputError
from harness.domain.providers.api_base_rules import is_internal_host
from harness.domain.settings import AuditSink

SCHEMES: Final = ("https", "http", "syslog+tls", "syslog+tcp", "file")


def audit_sink(number: int, **entry: object) -> AuditSink:
    """Checks one sink. number: its place in the list, for its name. Raises InputError."""
    sink = AuditSink(**{**entry, "name": entry["name"] or f"audit-{number}"})  # type: ignore[arg-type]  # as the entry's model says
    parts = urlsplit(sink.url)
    if parts.scheme not in SCHEMES:
        raise InputError(f"`url` begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise InputError("a file is named by its whole path: file:///path/to/events.jsonl")
    elif not parts.hostname:
        raise InputError("`url` names no host")
    elif is_internal_host(parts.hostname):
        raise InputError("the address is link-local, or a cloud's metadata service")
    if parts.scheme.startswith("syslog+") and not parts.port:
        raise InputError("a syslog address needs its port, such as 6514 for TLS")
    if parts.username or parts.password:
        raise InputError("no user or password in `url`: name the token's variable, `token_env`")
    if sink.token_env and parts.scheme not in ("http", "https"):
        raise InputError("`token_env` belongs to an http or https address")
    return sink
