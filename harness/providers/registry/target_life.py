"""Checks whether a target can serve now: first with stored facts, then with one small request.

Lasting facts make a target GONE: its provider was removed or has no key, its end date is past,
or the provider does not know the model or refuses our key. A failure that may pass, such as a
rate limit, a server error or a timeout, makes it UNSURE. `judge_life` is pure; `check_life`
sends the requests.
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
from harness.providers.models.model_ends import ModelEnd
from harness.providers.ports import ProviderProbe
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry import provider_secrets
from harness.providers.registry.end_facts import load_facts
from harness.providers.registry.probed_ends import store_probed_ends
from harness.providers.target import Provider, Target

# The limit for one check, however many targets it covers.
CHECK_S: Final = 5.0
_GONE_STATUSES: Final = (404, 410)
_NO_ANSWER: Final = "it did not answer in time"
_NO_KEY: Final = "none"  # in the key of an alert: the provider has no key
_LASTING_ALERTS: Final = {
    AlertKind.MODEL_UNKNOWN: "routers report that its provider does not know the model",
    AlertKind.OUR_KEY: "routers report that its provider has no key that it accepts",
}
_PASSING_ALERTS: Final = {
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


def life_details(life: TargetLife | None) -> Mapping[str, object]:
    """Returns the details of a check for an audit event; empty without a check."""
    if life is None:
        return {}
    facts = {
        "state": life.state.value,
        "target": life.target,
        "name": life.name,
    }
    return {
        WAY_BACK: {
            **facts,
            "reason": life.reason,
            "at": life.at.isoformat(),
        }
    }


def describe_no_way_back(details: Mapping[str, object]) -> str:
    """Describes, from an audit event's details, why a rollback had no target left; else
    empty.
    """
    way_back = details.get(WAY_BACK)
    if not isinstance(way_back, Mapping) or way_back.get("state") != LifeState.GONE.value:
        return ""
    return f"no way back: {way_back.get('name')} cannot serve: {way_back.get('reason')}"


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """Facts about a target that need no request to its provider."""

    removed: bool = False  # its provider was removed
    no_key: bool = False  # its provider needs a key, and has none
    unreadable_key: bool = False  # its provider has a key that this process cannot decrypt
    ended: ModelEnd | None = None  # its end, if that is past
    unlisted: date | None = None  # when its provider stopped listing it
    refused: str = ""  # a lasting failure that routers report now
    shut: str = ""  # a passing failure that routers report now


def judge_life(facts: KnownFacts, reply: ProbeReply | None) -> tuple[LifeState, str]:
    """Judges a target by known facts and its provider's reply. Returns the state and the
    reason.

    Args:
        reply: None if Swapproof did not ask the provider. A reply outweighs the routers'
            reports, which may be minutes old. It does not outweigh an end date or a missing
            key.
    """
    has_answered = reply is not None and _is_answer(reply)
    gone_reason = _describe_lasting_fact(facts) or (
        _describe_lasting_refusal(reply) if reply is not None else ""
    )
    if not gone_reason and not has_answered:
        gone_reason = facts.refused
    unlisted_reason = ""
    if facts.unlisted is not None:
        unlisted_reason = f"its provider has not listed it since {facts.unlisted.isoformat()}"
    if not gone_reason and reply is None:
        gone_reason = unlisted_reason
    if gone_reason:
        return LifeState.GONE, gone_reason
    if has_answered and not facts.shut:
        return LifeState.ALIVE, ""
    if has_answered:
        return LifeState.UNSURE, f"it answers the check, but {facts.shut}"
    unsure_reason = (
        (reply.error or _NO_ANSWER) if reply is not None else "Swapproof could not ask it"
    )
    if facts.unreadable_key:
        unsure_reason = "this process cannot read its provider's key"
    return LifeState.UNSURE, "; ".join(
        filter(None, (unsure_reason, facts.shut, unlisted_reason))
    )


def _describe_lasting_fact(facts: KnownFacts) -> str:
    if facts.removed:
        return "its provider was removed"
    if facts.no_key:
        return "its provider has no key"
    if facts.ended is not None:
        return f"it ended on {facts.ended.day.isoformat()}, according to {facts.ended.source}"
    return ""


def _describe_lasting_refusal(reply: ProbeReply) -> str:
    """Describes a refusal that lasts; empty for any other reply."""
    if reply.failure is FailureClass.MODEL_UNKNOWN or reply.status in _GONE_STATUSES:
        description = FAILURE_WORDS[FailureClass.MODEL_UNKNOWN]
    elif reply.failure is FailureClass.OUR_KEY or reply.status in KEY_REFUSED_STATUSES:
        description = FAILURE_WORDS[FailureClass.OUR_KEY]
    else:
        return ""
    return f"{description} ({reply.error})" if reply.error else description


def _is_answer(reply: ProbeReply) -> bool:
    is_success = reply.status is not None and 200 <= reply.status < 300
    return is_success and reply.failure is None


@dataclass(frozen=True, slots=True)
class _Check:
    """A target with its facts, and the provider and keys for the request."""

    target: Target
    facts: KnownFacts
    provider: Provider | None
    keys: Sequence[ProviderKey] = ()

    def ask(self, probe_port: ProviderProbe, deadline: float) -> ProbeReply | None:
        """Asks the provider. Tries the next key if it refuses one, as the router does, and the
        next endpoint if the target lacks one.

        Args:
            deadline: the limit, in monotonic seconds.

        Returns None if it cannot ask.
        """
        if self.provider is None:
            return None
        requests = probe.list_serving_requests(self.provider, self.target)
        if not requests:
            return self._ask_list(probe_port, self.provider, deadline)
        reply = None
        for secret in [key.secret for key in self.keys] or [""]:
            for path, body in requests:
                reply = probe_port.ask(self.provider, secret, path, body, _left_s(deadline))
                if reply.failure is not FailureClass.ENDPOINT_MISSING:
                    break
            if not refuses_key(reply):
                break
        return reply

    def _ask_list(
        self,
        probe_port: ProviderProbe,
        provider: Provider,
        deadline: float,
    ) -> ProbeReply | None:
        """Asks for the list of models, because only the router speaks the provider's protocol.

        Returns None if the list lacks the model, because the list alone does not prove that the
        model is gone.
        """
        secret = self.keys[0].secret if self.keys else ""
        path = probe.models_path(provider.kind)
        reply = probe_port.ask(provider, secret, path, None, _left_s(deadline))
        if reply.failure is FailureClass.OUR_KEY:
            return reply
        names = probe.parse_model_list(reply.content)
        if probe.is_listed(self.target.model, names):
            return reply
        error = reply.error or f"only the router can ask a provider of kind {provider.kind}"
        return None if names else ProbeReply(None, reply.seconds, error=error)


def refuses_key(reply: ProbeReply | None) -> bool:
    """Tells whether another key of the provider may succeed."""
    return reply is not None and (
        reply.failure in (FailureClass.OUR_KEY, FailureClass.QUOTA)
        or reply.status in KEY_REFUSED_STATUSES
    )


def _left_s(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def check_life(
    ctx: ProvidersContext,
    targets: Collection[str],
    *,
    timeout_s: float = CHECK_S,
) -> Mapping[str, TargetLife]:
    """Checks targets in parallel, in at most `timeout_s` seconds. Returns a TargetLife for each
    id.

    Args:
        targets: ids. An unknown id is GONE.

    Must run outside a transaction, because it waits for providers.
    """
    with ctx.store.read() as tx:
        open_alerts = [record for record in Alerts(tx).unsettled() if record.open]
        targets_by_id = Targets(tx).all()
        checks = [
            _prepare_check(ctx, tx, targets_by_id[id_], open_alerts)
            for id_ in targets
            if id_ in targets_by_id
        ]
    checks_to_ask = [check for check in checks if not _describe_lasting_fact(check.facts)]
    replies = _ask_all(ctx.probe, checks_to_ask, timeout_s) if ctx.probe is not None else {}
    store_probed_ends(
        ctx,
        [
            (check.target, replies[check.target.id])
            for check in checks_to_ask
            if check.target.id in replies
        ],
    )
    at = ctx.clock.now()
    lives = {}
    for check in checks:
        state, reason = judge_life(check.facts, replies.get(check.target.id))
        lives[check.target.id] = TargetLife(
            check.target.id, check.target.name, state, reason, at
        )
    for id_ in set(targets) - lives.keys():
        lives[id_] = TargetLife(id_, id_, LifeState.GONE, "Swapproof does not know it", at)
    return lives


def _ask_all(
    probe_port: ProviderProbe,
    checks: Sequence[_Check],
    timeout_s: float,
) -> Mapping[str, ProbeReply]:
    """Asks all providers in parallel. A target without a possible request has no reply.

    The threads are daemons, because a slow name server can take longer than the timeout.
    """
    deadline = time.monotonic() + timeout_s
    replies: dict[str, ProbeReply | None] = {}

    def ask(check: _Check) -> None:
        replies[check.target.id] = check.ask(probe_port, deadline)

    threads = [Thread(target=ask, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_left_s(deadline))
    late_reply = ProbeReply(None, timeout_s, error=_NO_ANSWER)
    all_replies = {
        check.target.id: replies.get(check.target.id, late_reply) for check in checks
    }
    return {id_: reply for id_, reply in all_replies.items() if reply is not None}


def _prepare_check(
    ctx: ProvidersContext,
    tx: Transaction,
    target: Target,
    open_alerts: Sequence[AlertRecord],
) -> _Check:
    provider = Providers(tx).all().get(target.provider)
    if provider is None:
        return _Check(target, KnownFacts(removed=True), None)
    provider = provider_secrets.decrypt_headers(provider, ctx.cipher)
    key_history = provider_secrets.list_credentials_of(tx, provider.name)
    live_keys = [key for key in key_history if key.live(ctx.clock.now())]
    keys_by_provider = provider_secrets.key_sets([provider], live_keys, ctx.cipher, ctx.environ)
    keys = tuple(keys_by_provider[provider.name])
    has_unreadable_key = bool(live_keys) and not keys
    now = ctx.clock.now()
    end = load_facts(ctx, tx, [target]).report(target, now).end
    facts = KnownFacts(
        no_key=not has_unreadable_key
        and lacks_key(provider, keys, stored_before=bool(key_history)),
        unreadable_key=has_unreadable_key,
        ended=end if end is not None and end.day <= now.date() else None,
        unlisted=_unlisted_since(tx, provider, target),
        refused=_describe_alert(_LASTING_ALERTS, target, open_alerts),
        shut=_describe_alert(_PASSING_ALERTS, target, open_alerts),
    )
    # Without a readable key, a request would only show that the provider needs one.
    return _Check(target, facts, None if has_unreadable_key else provider, keys)


def _unlisted_since(
    tx: Transaction,
    provider: Provider,
    target: Target,
) -> date | None:
    unlisted_days = (
        model.gone_at.date()
        for model in DiscoveredModels(tx).gone()
        if model.gone_at is not None
        and (model.provider, model.model, model.source)
        == (provider.name, target.model, provider.api_base)
    )
    return next(unlisted_days, None)


def _describe_alert(
    kinds: Mapping[AlertKind, str],
    target: Target,
    open_alerts: Sequence[AlertRecord],
) -> str:
    """Describes the first open alert of these kinds about the target or its provider.

    Ignores an alert about one key of several, because the provider's other keys may work.
    """
    descriptions: dict[str, str] = {}
    for kind, description in kinds.items():
        for subject in (
            target.id,
            target.provider,
            f"{target.provider}:{_NO_KEY}",
        ):
            descriptions[f"{kind.value}:{subject}"] = description
    return next(
        (descriptions[record.key] for record in open_alerts if record.key in descriptions), ""
    )
