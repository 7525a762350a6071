"""Asks everything that people read of an installation: each path of the management API, each
page of the dashboard, and each command that shows something.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

from dashboard import current_user
from harness.cli.program import program
from tests.integration.test_api_access import READS, WRITES
from tests.integration.test_cli_verbs import PROCESSES, leaves
from tests.support.site.management_api import Door

MAIN: Final = Path(current_user.__file__).with_name("main.py")
# Of the banner that stands where a part of a page cannot be drawn.
FAILURE: Final = 'class="sg sg-banner worse" role="alert"><p><b>✕'
# By command the words after it.
READING: Final = {
    **dict.fromkeys(
        (
            *("agent grants", "agent requests", "alert list"),
            *("audit tail", "audit verify", "canary status", "capture list", "db check"),
            *("drift history", "drift status", "eval list", "key list", "model list"),
            *("person list", "person sessions", "proposal list", "provider key list"),
            *("provider list", "provider matrix", "route break-glass list", "route failovers"),
            *("route freezes", "route list", "route measured", "route traffic", "shadow list"),
            *("spending", "status", "suite list", "switch list"),
        ),
        "",
    ),
    "agent show": "{request}",
    "audit export": "log.csv",
    "canary explain": "{route}",
    "canary plan": "{route}",
    "capture export": "captured.jsonl",
    "capture show": "{capture}",
    "eval show": "{run}",
    "gate replay": "{proposal}",
    "model match": "base",
    "model resolve": "sim/base",
    "proposal report": "{proposal}",
    "proof export": "{proposal}",
    "proposal show": "{proposal}",
    "provider show": "sim",
    "route diff": "{route}",
    "route fallback list": "{route}",
    "route history": "{route}",
    "route show": "{route}",
    "shadow status": "{route}",
}
# They change something, or read no database.
NOT_READING: Final = frozenset(
    {
        *(f"agent {verb}" for verb in ("approve", "purge-user", "reject", "revoke")),
        *("alert test",),
        *("init", "doctor", "user delete", "capture purge"),
        *(f"canary {verb}" for verb in ("abort", "advance", "decide", "finish")),
        *(f"canary {verb}" for verb in ("pause", "promote", "resume")),
        *("config apply", "config schema", "config show", "docs list", "docs open"),
        *(f"db {verb}" for verb in ("accept-restore", "grant", "retire-key")),
        *("db rotate-key", "db remove-forged", "db upgrade", "drift accept", "drift run"),
        *("eval cancel", "eval run", "gate decide"),
        *(f"key {verb}" for verb in ("create", "limits", "opt-outs", "revoke", "sign-in-link")),
        *("model add", "model discover", "model probe", "model search"),
        *(f"person {verb}" for verb in ("link", "separate", "sign-out")),
        *(f"proposal {verb}" for verb in ("approve", "cancel", "create", "reject")),
        *(f"provider {verb}" for verb in ("add", "remove", "set")),
        *(f"provider key {verb}" for verb in ("import", "login", "logout", "remove")),
        *("provider key rotate-encryption", "provider key set"),
        *(f"route break-glass {verb}" for verb in ("confirm", "end", "propose")),
        *(f"route fallback {verb}" for verb in ("add", "mark", "order", "remove")),
        *(f"route {verb}" for verb in ("create", "freeze", "rollback", "settings", "unfreeze")),
        *("shadow start", "shadow stop", "suite import", "switch lift", "switch throw"),
    }
)
# By page the addresses that are asked beside the page's own.
ADDRESSES: Final[Mapping[str, tuple[dict[str, str], ...]]] = {
    "compare": ({"id": "{proposal}"},),
    "proposals": ({"route": "{route}"},),
    "canary": ({"route": "{route}"},),
    "routes": ({"route": "{route}"},),
    "traffic": ({"route": "{route}"},),
    "sessions": ({"session": "{agent_session}"},),
    "audit": ({"actor": "ann"},),
}


def ask_api(door: Door, names: Mapping[str, str]) -> list[str]:
    """Asks each GET, then each other verb, which may be refused for the state of what it is
    about. Returns the answers that are none.
    """
    bad = []
    for verb in (*(f"GET {path}" for path in READS), *WRITES):
        method, path = verb.split()
        body, _ = WRITES.get(verb, (None, ""))
        answer = door.send(method, path.format(**names), json=body)
        good = (200,) if method == "GET" else (200, 201, 204, 403, 404, 409, 422, 502)
        if answer.status_code not in good:
            bad.append(f"{verb}: {answer.text}")
    return bad


def ask_pages(names: Mapping[str, str]) -> list[str]:
    """Draws each page of the dashboard. Returns those that fail."""
    app = AppTest.from_file(str(MAIN), default_timeout=300)
    bad = []
    for view in sorted(file.stem for file in MAIN.with_name("views").glob("*.py")):
        for address in ({}, *ADDRESSES.get(view, ())):
            app.query_params.clear()
            for key, value in address.items():
                app.query_params[key] = value.format(**names)
            app.switch_page(f"views/{view}.py").run()
            if view in ("canary", "routes") and address:
                # AppTest does not bind a widget to the address.
                app.selectbox(key="route").select(names["route"]).run()
            shown = " ".join(str(element.proto.body) for element in app.get("html"))
            if app.exception or FAILURE in shown:
                bad.append(f"{view} {address}: {app.exception or shown}")
    return bad


def ask_cli(names: Mapping[str, str]) -> list[str]:
    """Runs each command that reads the current folder's installation. Returns those that
    fail.
    """
    assert leaves(program) - PROCESSES == READING.keys() | NOT_READING
    bad = []
    for verb, words in READING.items():
        given = [*verb.split(), *words.format(**names).split()]
        done = CliRunner().invoke(program, given, prog_name="swapgate")
        if done.exit_code:
            bad.append(f"{verb}: {done.output}")
    return bad
