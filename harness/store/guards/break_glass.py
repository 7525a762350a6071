"""Guards of break-glass: one person asks for it, another confirms it in time with its own
waiver, and its record never changes.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from datetime import timedelta
from typing import Final

from harness.domain.routing.evidence import LONGEST
from harness.store.guards.guard import busy, changes, person, read_guards, taken

_LONGEST_US: Final = LONGEST // timedelta(microseconds=1)
_ASKED: Final = (
    *("id", "route", "incumbent", "target", "reason", "through_freeze"),
    *("proposer", "proposer_principal", "proposer_key"),
    *("created_at", "confirm_by", "expires_at"),
)
_CONFIRMED: Final = (
    *("confirmer", "confirmer_principal", "confirmer_key", "confirmed_at", "waiver"),
)
_CONFIRMS: Final = "NEW.confirmed_at IS NOT NULL AND OLD.confirmed_at IS NULL"


def _is_person(role: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM principal q WHERE q.id = NEW.{role}_principal"
        " AND q.kind IN ('person', 'local'))"
    )


def _has_key(role: str) -> str:
    return (
        f"(NEW.{role}_key IS NULL OR EXISTS (SELECT 1 FROM api_key k"
        f" WHERE k.id = NEW.{role}_key AND k.principal = NEW.{role}_principal))"
    )


BREAK_GLASSES: Final = read_guards(f"""
INSERT ON break_glass
    {taken("break_glass", "id")}
    {busy("break_glass", "ended_at IS NULL", "route")}
    break_glass_asked: it is asked for before it is confirmed or over
        NEW.confirmed_at IS NOT NULL OR NEW.ended_at IS NOT NULL
    break_glass_ends: it lasts for seven days at the most
        NEW.expires_at <= NEW.created_at
        OR NEW.expires_at > NEW.created_at + {_LONGEST_US}
        OR NEW.confirm_by > NEW.expires_at
    four_eyes: a person asks for it, with a key of his own
        NOT {_is_person("proposer")} OR NOT {_has_key("proposer")}
UPDATE ON break_glass
    append_only: a break-glass that is over does not change
        OLD.ended_at IS NOT NULL
    append_only: the content of a break-glass request does not change
        {changes(*_ASKED)}
    append_only: it is confirmed once
        OLD.confirmed_at IS NOT NULL AND ({changes(*_CONFIRMED)})
    four_eyes: another person confirms it, with a key of his own
        {_CONFIRMS} AND ({person("NEW.confirmer_principal")}
        = {person("NEW.proposer_principal")}
        OR NOT {_is_person("confirmer")} OR NOT {_has_key("confirmer")}
        OR NEW.confirmer_key = NEW.proposer_key)
    break_glass_late: it is confirmed in its time, before it is over
        {_CONFIRMS} AND (NEW.ended_at IS NOT NULL
        OR NEW.confirmed_at < NEW.created_at
        OR NEW.confirmed_at >= NEW.confirm_by)
    waiver_missing: it is confirmed with a waiver of its own for the same time
        {_CONFIRMS} AND (NOT EXISTS (SELECT 1 FROM waiver w
        WHERE w.id = NEW.waiver AND w.route = NEW.route AND w.target = NEW.target
        AND w.expires_at = NEW.expires_at) OR EXISTS (SELECT 1
        FROM break_glass o WHERE o.waiver = NEW.waiver AND o.id <> NEW.id))
DELETE ON break_glass
    append_only: break_glass is never deleted
""")
