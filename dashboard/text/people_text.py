"""People of the Keys & budgets page in words: who of the principals is one person, and who is
signed in to the dashboard.
"""

from typing import Final

from dashboard.text import labels
from dashboard.text.html import escape, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.people import PersonView
from harness.domain.operations.principals import PrincipalKind

HEADS: Final = ("Name", "Acts by", "Is")
SESSION_HEADS: Final = ("Name", "Signed in", "By", "Until (UTC)")
_WAYS: Final = {
    "key": "a management key",
    "link": "a one-time link",
    "oidc": "single sign-on",
}


def cells(view: PersonView) -> list[str]:
    """Renders a principal's row as cells of HTML, in the order of HEADS."""
    return [strong(view.name), escape(_way(view)), _declared(view)]


def urgency(view: PersonView) -> tuple[bool, str]:
    """Orders principals: first those of whom an admin has to say who they are, then by name."""
    return (bool(view.person) or view.issuer is None, view.folded)


def _way(view: PersonView) -> str:
    if view.issuer is not None:
        return f"single sign-on at {view.issuer}"
    return {
        PrincipalKind.LOCAL: "the command line of this machine",
        PrincipalKind.SERVICE: "a key, as a service",
        PrincipalKind.PERSON: "a key",
    }[view.kind]


def _declared(view: PersonView) -> str:
    if not view.person:
        if view.issuer is not None:
            return state(Label("?", "not declared yet", Tone.UNDECIDED))
        return '<span class="note">as named</span>'
    said = "nobody else here" if view.person == view.name else f"the same as {view.person}"
    why = f"said by {view.declared_by}: {view.reason}"
    return f'{escape(said)}<br><span class="note">{escape(why)}</span>'


def session_cells(view: SignedInSession) -> list[str]:
    """Renders a session's row as cells of HTML, in the order of SESSION_HEADS."""
    return [
        strong(view.name),
        escape(labels.date_time(view.opened_at)),
        escape(_WAYS[view.by]),
        escape(labels.date_time(view.expires_at)),
    ]


def session_choice(view: SignedInSession) -> str:
    """Names a session in a list to choose from."""
    return f"{view.name} · since {labels.date_time(view.opened_at)} · {view.id}"
