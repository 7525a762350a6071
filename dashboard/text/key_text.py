"""Writes the Keys page's title (whose budget is used up or nearly), and the cells of its tables
of client keys with limits and spending, and of management keys with role and owner.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Final

from dashboard.text import labels
from dashboard.text.html import Row, escape, meter, state, strong
from dashboard.text.labels import Label, Tone
from harness.control.operations.keys import KeySummary
from harness.domain.formatting import format_spent_usd
from harness.domain.operations.access import OptOut
from harness.domain.reliability.rate_limits import KeyLimits, LimitStatus, RateLimit
from harness.domain.reliability.spend import SpendDecision, SpendLevel, check_budget

FULL: Final = 0.8  # of a rate: from there on its meter warns
_LEVELS: Final = {
    SpendLevel.FINE: Label("✓", "within", Tone.BETTER),
    SpendLevel.WARNING: Label("?", "nearly used up", Tone.UNDECIDED),
    SpendLevel.STOPPED: Label("✕", "used up", Tone.WORSE),
}


def decide(key: KeySummary, today: date) -> SpendDecision | None:
    """Decides how a client key stands in its budget; None without one."""
    if key.limits is None or not key.limits.budgeted:
        return None
    return check_budget(key.limits.budget, key.spent, today)


def title(clients: Sequence[KeySummary], today: date) -> str:
    """Writes the page's first line: the worst that is known of a budget."""
    if not clients:
        return "No client has a key yet"
    decided = {key.name: decide(key, today) for key in clients}
    known = {name: decision for name, decision in decided.items() if decision is not None}
    for level in (SpendLevel.STOPPED, SpendLevel.WARNING):
        names = [name for name, decision in known.items() if decision.level is level]
        if names:
            return _over(names, level)
    count = labels.plural(len(clients), "client key")
    if not known:
        return f"{count}, none with a budget"
    if len(known) == len(clients):
        return f"{count}, all within budget"
    return f"{count}; {len(known)} with a budget, all within it"


def _over(names: Sequence[str], level: SpendLevel) -> str:
    shown = labels.few(names, 3)
    verb = "has" if len(names) == 1 else "have"
    if level is SpendLevel.STOPPED:
        return f"{strong(shown)} {verb} used up a budget: requests are refused"
    return f"{strong(shown)} {verb} nearly used up a budget"


def urgency(key: KeySummary, today: date) -> tuple[int, float, str]:
    """Orders client keys: the fullest budget first, then by name."""
    found = decide(key, today)
    share = _fullest(key)
    return (-(found.level if found else 0), -share, key.name.casefold())


def _fullest(key: KeySummary) -> float:
    limits = key.limits
    if limits is None:
        return 0.0
    pairs = (
        (key.spent.day_usd, limits.budget_day_usd),
        (key.spent.month_usd, limits.budget_month_usd),
    )
    return max((spent / budget for spent, budget in pairs if budget), default=0.0)


def client_cells(
    key: KeySummary, today: date, rates: Mapping[str, Sequence[LimitStatus]] | None
) -> Row:
    """Renders a client key. rates: how limits stand, by the key's id; None where nobody
    knows.
    """
    limits = key.limits or KeyLimits()
    found = decide(key, today)
    unpriced = key.spent.unpriced
    spent, warn = key.spent, limits.warn_share
    return {
        "Client": f'{strong(key.name)}<br><span class="note">{escape(f"…{key.hint}")}</span>',
        "Budget": _budget(found),
        "Today": _spent(spent.day_usd, unpriced, limits.budget_day_usd, warn),
        "This month": _spent(spent.month_usd, unpriced, limits.budget_month_usd, warn)
        + _unpriced(unpriced, known=bool(spent.month_usd)),
        "Rate, used now": _rates(limits, None if rates is None else rates.get(key.id, ())),
        "Routes": _routes(sorted(key.routes)) + _opt_outs(key.opt_outs),
    }


def _opt_outs(opt_outs: Collection[OptOut]) -> str:
    names = ", ".join(sorted(opt_outs))
    return f'<br><span class="note">opted out of {escape(names)}</span>' if names else ""


def _budget(found: SpendDecision | None) -> str:
    if found is None:
        return '<span class="note">none</span>'
    until = (
        f'<br><span class="note">until {found.until:%d %b}</span>'
        if found.until and not found.allowed
        else ""
    )
    return f"{state(_LEVELS[found.level])}{until}"


def _spent(spent_usd: float, unpriced: int, budget_usd: float | None, warn_share: float) -> str:
    spent = format_spent_usd(spent_usd, unpriced)
    if budget_usd is None:
        return escape(spent)
    share = spent_usd / budget_usd if budget_usd else 1.0
    tone = Tone.WORSE if share >= 1 else Tone.UNDECIDED if share >= warn_share else Tone.BETTER
    words = f"{spent} of {labels.usd(budget_usd)}"
    return f"{escape(words)}{meter('Spent of the budget', share, tone)}"


def _unpriced(requests: int, *, known: bool = True) -> str:
    if not requests:
        return ""
    words = f"{'and ' if known else ''}{labels.plural(requests, 'request')} of unknown price"
    return f' <span class="note">{escape(words)}</span>'


def _rates(limits: KeyLimits, now: Sequence[LimitStatus] | None) -> str:
    """Writes the limits with what is used of them; the limits alone where nobody knows."""
    if limits.rate == RateLimit():
        return '<span class="note">not limited</span>'
    if now:
        return "".join(map(_rate, now))
    parts = [
        f"{value:,.15g} {unit} / min"
        for value, unit in (
            (limits.requests_per_min, "requests"),
            (limits.tokens_per_min, "tokens"),
        )
        if value is not None
    ]
    unknown = '<span class="note">use not known here</span>'
    return "<br>".join((*map(escape, parts), unknown))


def _rate(status: LimitStatus) -> str:
    used = status.per_minute - status.remaining
    share = used / status.per_minute
    tone = Tone.WORSE if share >= 1 else Tone.UNDECIDED if share >= FULL else Tone.BETTER
    words = f"{used:,.0f} of {status.per_minute:,.15g} {status.kind} / min"
    return f"{escape(words)}{meter(f'Used of the {status.kind} per minute', share, tone)}"


def _routes(names: Sequence[str]) -> str:
    if not names:
        return '<span class="note">all</span>'
    return escape(labels.few(names, 2))


def person_cells(key: KeySummary) -> Row:
    return {
        "Whose": strong(key.principal_name),
        "Role": escape(key.role.name.lower() if key.role else ""),
        "Key": escape(f"{key.name} …{key.hint}"),
        "Created (UTC)": escape(_day(key.created_at)),
    }


def revoked_cells(key: KeySummary) -> Row:
    return {
        "Key": escape(f"{key.name} …{key.hint}"),
        "Kind": escape(kind(key)),
        "Revoked (UTC)": escape(_day(key.revoked_at) if key.revoked_at else ""),
    }


def kind(key: KeySummary) -> str:
    return f"{key.role.name.lower()} key" if key.role else "client key"


def choice(key: KeySummary) -> str:
    return f"{key.name} · {kind(key)} …{key.hint}"


def _day(at: datetime) -> str:
    return f"{at:%d %b %Y}"
