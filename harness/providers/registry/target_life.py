"""Checks whether a target can serve now: first by known facts, then by one small request.

Lasting facts make it GONE: its provider was removed or has no key, its end date is past, the
provider does not know the model, or refuses our key. All that may pass, such as a rate limit,
a server error or a timeout, makes it UNSURE. `judge_life` is pure; `check_life` asks.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from threading import Thread
from typing import Final

from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.failures import FAILURE_WORDS, FailureClass
from harness.frame.records.transaction import Transaction
from harness.providers.calls import probe
from harness.providers.calls.probe import KEY_REFUSED_STATUSES, ProbeReply
from harness.providers.context import ProvidersContext
from harness.providers.credential import ProviderKey, lacks_key
from harness.providers.ports import ProviderDoor
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry import provider_secrets
from harness.providers.target import Provider, Target

# The limit for one check, however many targets it covers.
CHECK_S: Final = 5.0
_GONE_STATUSES: Final = (404, 410)
_NO_ANSWER: Final = "it did not answer in time"
_NO_KEY: Final = "none"  # in the key of an alert: the provider has no key
_REFUSED: Final = {
    AlertKind.MODEL_UNKNOWN: "routers report that its provider does not know the model",
    AlertKind.OUR_KEY: "routers report that its provider has no key that it accepts",
}
_SHUT: Final = {
    AlertKind.BREAKER_OPEN: "routers opened its circuit",
    AlertKind.QUOTA: "routers report that the account's quota is used up",
}


class LifeState(StrEnum):
    ALIVE = "alive"
    GONE = "gone"  # by a lasting fact
    UNSURE = "unsure"  # it may be able to serve


@dataclass(frozen=True, slots=True)
class TargetLife:
    """Whether a target can serve, at one moment. `reason` is empty for a target that can."""

    target: str  # its id
    name: str
    state: LifeState
    reason: str
    at: datetime

    @property
    def is_gone(self) -> bool:
        return self.state is LifeState.GONE


WAY_BACK: Final = "way_back"  # in an audit event's details: the check of a way back


def list_details(life: TargetLife | None) -> Mapping[str, object]:
    """Returns the details of a check for an audit event; empty without a check."""
    if life is None:
        return {}
    found = {
        "state": life.state.value,
        "target": life.target,
        "name": life.name,
    }
    return {
        WAY_BACK: {
            **found,
            "reason": life.reason,
            "at": life.at.isoformat(),
        }
    }


def describe_no_way_back(details: Mapping[str, object]) -> str:
    """Describes a way back that was gone, from an audit event's details; else empty."""
    checked = details.get(WAY_BACK)
    if not isinstance(checked, Mapping) or checked.get("state") != LifeState.GONE.value:
        return ""
    return f"no way back: {checked.get('name')} cannot serve: {checked.get('reason')}"


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """Facts about a target that need no request to its provider."""

    removed: bool = False  # its provider was removed
    no_key: bool = False  # its provider needs a key, and has none
    unreadable_key: bool = False  # its provider has a key that this process cannot decrypt
    ended: date | None = None  # its end date in the catalogue, if that is past
    unlisted: date | None = None  # when its provider stopped listing it
    refused: str = ""  # a lasting failure that routers report now
    shut: str = ""  # a failure that may pass and that routers report now


def judge_life(facts: KnownFacts, reply: ProbeReply | None) -> tuple[LifeState, str]:
    """Judges a target by known facts and its provider's reply. Returns the state and why.

    reply: None if no provider was asked. A reply outweighs the routers' reports, which may be
    minutes old; it does not outweigh an end date or a missing key.
    """
    answers = reply is not None and _answers(reply)
    gone = _lasting_fact(facts) or (_refusal(reply) if reply is not None else "")
    if not gone and not answers:
        gone = facts.refused
    unlisted = ""
    if facts.unlisted is not None:
        unlisted = f"its provider has not listed it since {facts.unlisted.isoformat()}"
    if not gone and reply is None:
        gone = unlisted
    if gone:
        return LifeState.GONE, gone
    if answers and not facts.shut:
        return LifeState.ALIVE, ""
    if answers:
        return LifeState.UNSURE, f"it answers the check, but {facts.shut}"
    why = (reply.error or _NO_ANSWER) if reply is not None else "Swapgate could not ask it"
    if facts.unreadable_key:
        why = "this process cannot read its provider's key"
    return LifeState.UNSURE, "; ".join(filter(None, (why, facts.shut, unlisted)))


def _lasting_fact(facts: KnownFacts) -> str:
    if facts.removed:
        return "its provider was removed"
    if facts.no_key:
        return "its provider has no key"
    if facts.ended is not None:
        return f"it ended on {facts.ended.isoformat()}, according to the model catalogue"
    return ""


def _refusal(reply: ProbeReply) -> str:
    """Describes a refusal that lasts; empty for any other reply."""
    if reply.failure is FailureClass.MODEL_UNKNOWN or reply.status in _GONE_STATUSES:
        words = FAILURE_WORDS[FailureClass.MODEL_UNKNOWN]
    elif reply.failure is FailureClass.OUR_KEY or reply.status in KEY_REFUSED_STATUSES:
        words = FAILURE_WORDS[FailureClass.OUR_KEY]
    else:
        return ""
    return f"{words} ({reply.error})" if reply.error else words


def _answers(reply: ProbeReply) -> bool:
    succeeds = reply.status is not None and 200 <= reply.status < 300
    return succeeds and reply.failure is None


@dataclass(frozen=True, slots=True)
class _Check:
    """A target before it is asked: its facts, and all that the request needs."""

    target: Target
    facts: KnownFacts
    provider: Provider | None
    keys: Sequence[ProviderKey] = ()

    def ask(self, door: ProviderDoor, ends: float) -> ProbeReply | None:
        """Asks the provider. Tries the next key if it refuses one, as the router does, and the
        next endpoint if the target lacks one.

        ends: the limit, in monotonic seconds. Returns None if it cannot ask.
        """
        if self.provider is None:
            return None
        questions = probe.list_questions(self.provider, self.target)
        if not questions:
            return self._ask_list(door, self.provider, ends)
        reply = None
        for secret in [key.secret for key in self.keys] or [""]:
            for path, body in questions:
                reply = door.ask(self.provider, secret, path, body, _left_s(ends))
                if reply.failure is not FailureClass.ENDPOINT_MISSING:
                    break
            if not refuses_key(reply):
                break
        return reply

    def _ask_list(
        self,
        door: ProviderDoor,
        provider: Provider,
        ends: float,
    ) -> ProbeReply | None:
        """Asks for the list of models, because only the router speaks the provider's protocol.

        Returns None unless the list names the model, or the provider refuses the key.
        """
        secret = self.keys[0].secret if self.keys else ""
        path = probe.models_path(provider.kind)
        reply = door.ask(provider, secret, path, None, _left_s(ends))
        if reply.failure is FailureClass.OUR_KEY:
            return reply
        listed = probe.parse_model_list(reply.content)
        if probe.is_listed(self.target.model, listed):
            return reply
        unheard = reply.error or f"only the router can ask a provider of kind {provider.kind}"
        return None if listed else ProbeReply(None, reply.seconds, error=unheard)


def refuses_key(reply: ProbeReply | None) -> bool:
    """Tells whether another key of the provider may succeed."""
    return reply is not None and (
        reply.failure in (FailureClass.OUR_KEY, FailureClass.QUOTA)
        or reply.status in KEY_REFUSED_STATUSES
    )


def _left_s(ends: float) -> float:
    return max(0.01, ends - time.monotonic())


def check_life(
    ctx: ProvidersContext,
    targets: Collection[str],
    *,
    timeout_s: float = CHECK_S,
) -> Mapping[str, TargetLife]:
    """Checks targets at once, in at most `timeout_s` seconds. Returns their lives, by id.

    targets: ids. An unknown id is GONE. Must run outside a transaction, because it waits for
    providers.
    """
    with ctx.store.read() as tx:
        open_ = [record for record in Alerts(tx).unsettled() if record.open]
        known = Targets(tx).all()
        checks = [_prepare(ctx, tx, known[id_], open_) for id_ in targets if id_ in known]
    asked = [check for check in checks if not _lasting_fact(check.facts)]
    replies = _ask_all(ctx.door, asked, timeout_s) if ctx.door is not None else {}
    at = ctx.clock.now()
    found = {}
    for check in checks:
        state, reason = judge_life(check.facts, replies.get(check.target.id))
        found[check.target.id] = TargetLife(
            check.target.id, check.target.name, state, reason, at
        )
    for id_ in set(targets) - found.keys():
        found[id_] = TargetLife(id_, id_, LifeState.GONE, "Swapgate does not know it", at)
    return found


def _ask_all(
    door: ProviderDoor,
    checks: Sequence[_Check],
    timeout_s: float,
) -> Mapping[str, ProbeReply]:
    """Asks all targets at once. A target that cannot be asked has no reply.

    The threads are daemons, because a slow name server can exceed the time of a request.
    """
    ends = time.monotonic() + timeout_s
    replies: dict[str, ProbeReply | None] = {}

    def ask(check: _Check) -> None:
        replies[check.target.id] = check.ask(door, ends)

    threads = [Thread(target=ask, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_left_s(ends))
    late = ProbeReply(None, timeout_s, error=_NO_ANSWER)
    found = {check.target.id: replies.get(check.target.id, late) for check in checks}
    return {id_: reply for id_, reply in found.items() if reply is not None}


def _prepare(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
    open_: Sequence[AlertRecord],
) -> _Check:
    provider = Providers(tx).all().get(target.provider)
    if provider is None:
        return _Check(target, KnownFacts(removed=True), None)
    provider = provider_secrets.decrypt_headers(provider, ctx.cipher)
    ever = provider_secrets.list_credentials_of(tx, provider.name)
    live = [key for key in ever if key.live(ctx.clock.now())]
    sets = provider_secrets.key_sets([provider], live, ctx.cipher, ctx.environ)
    keys = tuple(sets[provider.name])
    unreadable = bool(live) and not keys
    entry = ctx.catalogue.find(provider.kind, target.model)
    ended = entry is not None and entry.ended(ctx.clock.now().date())
    facts = KnownFacts(
        no_key=not unreadable and lacks_key(provider, keys, stored_before=bool(ever)),
        unreadable_key=unreadable,
        ended=entry.end_date if entry is not None and ended else None,
        unlisted=_unlisted_since(tx, provider, target),
        refused=_reported(_REFUSED, target, open_),
        shut=_reported(_SHUT, target, open_),
    )
    # Without a readable key, a request would only show that the provider needs one.
    return _Check(target, facts, None if unreadable else provider, keys)


def _unlisted_since(
    tx: Transaction,
    provider: Provider,
    target: Target,
) -> date | None:
    gone = (
        model.gone_at.date()
        for model in DiscoveredModels(tx).gone()
        if model.gone_at is not None
        and (model.provider, model.model, model.source)
        == (provider.name, target.model, provider.api_base)
    )
    return next(gone, None)


def _reported(
    kinds: Mapping[AlertKind, str],
    target: Target,
    open_: Sequence[AlertRecord],
) -> str:
    """Describes the first open alert of these kinds about the target or its provider.

    An alert about one key of several is left out, because the others may serve.
    """
    keys: dict[str, str] = {}
    for kind, words in kinds.items():
        for about in (
            target.id,
            target.provider,
            f"{target.provider}:{_NO_KEY}",
        ):
            keys[f"{kind.value}:{about}"] = words
    return next((keys[record.key] for record in open_ if record.key in keys), "")
