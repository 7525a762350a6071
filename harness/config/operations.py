"""The file's alert sinks are checked: one of an apprise URL, its variable or a signed webhook,
and no internal address.
"""

from typing import Final
from urllib.parse import urlsplit

from harness.domain.errors import InputError
from harness.domain.providers.api_base_rules import is_internal_host
from harness.domain.settings import AlertSink

ONE_OF: Final = ("url", "url_env", "webhook")


def alert_sink(number: int, **entry: str) -> AlertSink:
    """Checks one sink. number: its place in the list, for its name. Raises InputError; names no
    URL.
    """
    given = [name for name in ONE_OF if entry[name]]
    if len(given) != 1:
        raise InputError("give one of `url`, `url_env` and `webhook`")
    url = entry["url"] or entry["webhook"]
    scheme = urlsplit(url).scheme.lower() if url else ""
    if entry["webhook"]:
        if scheme not in ("http", "https"):
            raise InputError("`webhook` is an http or https URL")
        if not entry["secret_env"]:
            raise InputError("a webhook needs `secret_env`: it is signed with that secret")
    elif entry["secret_env"]:
        raise InputError("`secret_env` belongs to a webhook")
    if url and not scheme:
        raise InputError("`url` is no URL of apprise, such as slack://… or mailto://…")
    if url and is_internal_host(urlsplit(url).hostname or ""):
        raise InputError("the address is link-local, or a cloud's metadata service")
    kind = "webhook" if entry["webhook"] else scheme or "sink"
    return AlertSink(**{**entry, "name": entry["name"] or f"{kind}-{number}"})
