"""Name resolution finds the provider for a model's name (D2): six rules in order, each with its
reason. Pure.

1. forced     a kill switch over all routes names the provider, or the target
2. prefix     `openrouter/anthropic/claude-…`, `openai:gpt-…`: a provider's name, or its kind
3. keyword    a provider that offers exactly this model; else the kind that such names belong to
4. local      a provider on one's own machine takes plain names
5. gateway    a provider that sells everybody's models takes the name as it is
6. oauth      a person's account: by its own prefix alone, and signed in

The first rule that finds a provider decides. A later one is still listed, as not asked. A kind
in front is never left for another one: without a provider of that kind only who offers exactly
this name takes it, or a gateway, which has others' models under `vendor/model`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.domain.providers.catalogue import Catalogue
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.routing.kill_switch import Force, ForceKind
from harness.domain.routing.target import Provider

GATEWAYS: Final = ("openrouter",)


class ResolutionRule(StrEnum):
    FORCED = "forced"
    PREFIX = "prefix"
    KEYWORD = "keyword"
    LOCAL = "local"
    GATEWAY = "gateway"
    OAUTH = "oauth"


class RuleOutcome(StrEnum):
    TOOK = "took"  # this rule decides
    NO = "no"  # it does not apply: the next one is asked
    REFUSED = "refused"  # the name asks for what may not be: no other rule is asked
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class RuleResult:
    rule: ResolutionRule
    outcome: RuleOutcome
    reason: str  # why the rule took the name, or why not, for people


@dataclass(frozen=True, slots=True)
class Resolution:
    """The provider that takes a model's name, and the rules that were tried."""

    name: str
    provider: str | None  # provider, model: None where no rule took the name
    model: str | None
    rules: tuple[RuleResult, ...]  # all six, in their order

    @property
    def target(self) -> str | None:
        return None if self.provider is None else f"{self.provider}/{self.model}"

    @property
    def reason(self) -> str:
        """Returns the reason of the rule that decided, else of all rules that did not."""
        decided = [
            t for t in self.rules if t.outcome in (RuleOutcome.TOOK, RuleOutcome.REFUSED)
        ]
        told = decided or [t for t in self.rules if t.outcome is RuleOutcome.NO]
        return "; ".join(f"{result.rule.value}: {result.reason}" for result in told)


@dataclass(frozen=True, slots=True)
class _Took:
    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str


_Found = _Took | _Refused | str


def resolve_model_name(
    name: str,
    providers: Mapping[str, Provider],
    *,
    catalogue: Catalogue,
    forced: Force | None = None,
    signed_in: Collection[str] = (),
) -> Resolution:
    """Finds the provider that takes a model's name; of several the first name wins. forced: of
    the switch that rules all routes. signed_in: the OAuth providers with stored tokens.
    """
    query = _NameQuery(name.strip(), providers, catalogue, forced, frozenset(signed_in))
    taken: _Took | None = None
    ended = False
    tried: list[RuleResult] = []
    for rule in ResolutionRule:
        if ended:
            tried.append(RuleResult(rule, RuleOutcome.NOT_ASKED, "a rule before it decided"))
            continue
        match query.by(rule):
            case _Took() as found:
                taken, ended = found, True
                tried.append(RuleResult(rule, RuleOutcome.TOOK, found.reason))
            case _Refused(reason):
                ended = True
                tried.append(RuleResult(rule, RuleOutcome.REFUSED, reason))
            case reason:
                tried.append(RuleResult(rule, RuleOutcome.NO, reason))
    return Resolution(
        name,
        taken.provider if taken else None,
        taken.model if taken else None,
        tuple(tried),
    )


@dataclass(frozen=True, slots=True)
class _NameQuery:
    name: str
    providers: Mapping[str, Provider]
    catalogue: Catalogue
    forced: Force | None
    signed_in: frozenset[str]

    def by(self, rule: ResolutionRule) -> _Found:
        if not self.name:
            return "the name is empty"
        # Whoever names an account of a person wants that one and no other.
        chosen = self._chosen_account()
        if chosen and rule not in (ResolutionRule.FORCED, ResolutionRule.OAUTH):
            return f"the name asks for the OAuth provider {chosen[0]}"
        absent = self._absent_kind()
        ask: Mapping[ResolutionRule, Callable[[], _Found]] = {
            ResolutionRule.FORCED: self._forced,
            ResolutionRule.PREFIX: self._prefix,
            ResolutionRule.KEYWORD: lambda: self._offered() or absent or self._keyword(),
            ResolutionRule.LOCAL: lambda: absent or self._local(),
            ResolutionRule.GATEWAY: lambda: (self._has_colon() and absent) or self._gateway(),
            ResolutionRule.OAUTH: lambda: self._account(chosen),
        }
        return ask[rule]()

    def _forced(self) -> _Found:
        if self.forced is None:
            return "no switch forces a provider for all routes"
        if self.forced.kind is ForceKind.TARGET:
            provider, _, model = self.forced.name.partition("/")
            if provider in self.providers and model:
                return _Took(provider, model, f"a switch forces the target {self.forced.name}")
            return f"a switch forces the target {self.forced.name}, which names no provider"
        provider = self.forced.name
        if provider not in self.providers:
            return f"a switch forces {provider}, which is not configured"
        if self._is_account(provider):
            return f"a switch forces {provider}, and an OAuth provider is taken by prefix alone"
        head, rest = self._split()
        own = head in (provider, self.providers[provider].kind)
        model = rest if own and rest else self.name
        return _Took(provider, model, f"a switch forces provider {provider} for all routes")

    def _prefix(self) -> _Found:
        head, rest = self._split()
        if not rest:
            return "the name has no prefix"
        if self._names_provider(head):
            return _Took(head, rest, f"{head} is the name of a configured provider")
        if head not in PROVIDER_KINDS:
            return f"{head!r} is neither a configured provider nor a kind"
        of_kind = self._of_kind(head)
        if not of_kind:
            return f"{head} is a kind, of which no provider is configured"
        return _Took(of_kind[0], rest, f"{head} is the kind of {_first_of(of_kind)}")

    def _names_provider(self, head: str) -> bool:
        """Whether the name asks for this provider. A colon after a kind asks for the kind:
        `openai:` is never a server of another kind, whatever somebody called it.
        """
        own = self.providers.get(head)
        return own is not None and not (
            self._has_colon() and head in PROVIDER_KINDS and own.kind != head
        )

    def _absent_kind(self) -> str:
        """Why only who offers exactly this name may take it: it asks for a kind that is not
        there.
        """
        head, rest = self._split()
        if not rest or self._names_provider(head) or head not in PROVIDER_KINDS:
            return ""
        if self._of_kind(head):
            return ""
        return f"the name asks for the kind {head}, of which no provider is configured"

    def _offered(self) -> _Found | None:
        """A provider that says, or of whose kind is known, that it has exactly this model."""
        others = [n for n, p in self._others() if self.name in {*p.models, *p.prices}]
        if others:
            return _Took(
                others[0], self.name, f"{_first_of(others)} lists the model in its settings"
            )
        known = [n for n, p in self._others() if self.catalogue.find(p.kind, self.name)]
        own = [n for n in known if self.providers[n].kind == self._kind()]
        if found := own or known:
            return _Took(
                found[0], self.name, f"the catalogue has the model for {_first_of(found)}"
            )
        return None

    def _keyword(self) -> _Found:
        kind = self._kind()
        if kind is None:
            return "no kind's keyword stands at the beginning of the model's name"
        of_kind = self._of_kind(kind)
        if not of_kind:
            return f"such names belong to {kind}, of which no provider is configured"
        why = f"such names belong to {kind}, the kind of {_first_of(of_kind)}"
        return _Took(of_kind[0], self._last, why)

    def _local(self) -> _Found:
        local = [
            n for n, p in self._others() if _group(p) is ProviderGroup.LOCAL and p.api_base
        ]
        if not local:
            return "no local provider with an apiBase is configured"
        if "/" in self.name:
            return "a local provider takes plain names alone, and this one has a slash"
        sold = [e.kind for e in self.catalogue if e.model == self.name and _hosted(e.kind)]
        if sold:
            return f"it is no local model: the catalogue has it for {sold[0]}"
        return _Took(local[0], self.name, f"a plain name goes to {_first_of(local)}")

    def _gateway(self) -> _Found:
        gateways = [n for kind in GATEWAYS for n in self._of_kind(kind)]
        if not gateways:
            return f"no gateway ({', '.join(GATEWAYS)}) is configured"
        return _Took(gateways[0], self.name, f"{_first_of(gateways)} takes the name as it is")

    def _account(self, chosen: tuple[str, str] | None) -> _Found:
        if chosen is None:
            return "an OAuth provider is taken by its own prefix alone"
        provider, model = chosen
        if provider not in self.providers:
            return _Refused(f"no provider of the kind {provider} is configured")
        if provider not in self.signed_in:
            return _Refused(
                f"{provider} has no stored tokens: sign in with "
                f"`swapgate provider key login {provider}`"
            )
        return _Took(provider, model, f"{provider} is named, and is signed in")

    def _chosen_account(self) -> tuple[str, str] | None:
        """The OAuth provider that the name begins with, or the kind where there is none."""
        head, rest = self._split()
        if not rest:
            return None
        if head in self.providers:
            return (head, rest) if self._is_account(head) else None
        if head in PROVIDER_KINDS and PROVIDER_KINDS[head].group is ProviderGroup.OAUTH:
            return next(iter(self._of_kind(head)), head), rest
        return None

    @property
    def _last(self) -> str:
        """The name without a vendor in front, as other providers write it."""
        return self.name.rpartition("/")[2]

    def _kind(self) -> str | None:
        """Whose keyword the name begins with; the longest one counts."""
        low = self._last.lower()
        fits = [
            (len(word), kind.name)
            for kind in PROVIDER_KINDS.values()
            for word in kind.keywords
            if low.startswith(word)
        ]
        return max(fits)[1] if fits else None

    def _split(self) -> tuple[str, str]:
        """What stands before the first slash or colon, if it names somebody, and the rest."""
        for separator in "/:":
            head, _, rest = self.name.partition(separator)
            if rest and (head in self.providers or head in PROVIDER_KINDS):
                return head, rest
        head, slash, rest = self.name.partition("/")
        return (head, rest) if slash else ("", "")

    def _has_colon(self) -> bool:
        head, _ = self._split()
        return self.name[len(head) : len(head) + 1] == ":"

    def _of_kind(self, kind: str) -> Sequence[str]:
        return sorted(
            name for name, provider in self.providers.items() if provider.kind == kind
        )

    def _others(self) -> Iterator[tuple[str, Provider]]:
        """Yields the providers by name, without those that use a person's account."""
        for name in sorted(self.providers):
            if not self._is_account(name):
                yield name, self.providers[name]

    def _is_account(self, provider: str) -> bool:
        return _group(self.providers[provider]) is ProviderGroup.OAUTH


def _group(provider: Provider) -> ProviderGroup | None:
    kind = PROVIDER_KINDS.get(provider.kind)
    return kind.group if kind else None


def _hosted(kind: str) -> bool:
    return PROVIDER_KINDS[kind].group is ProviderGroup.HOSTED


def _first_of(names: Sequence[str]) -> str:
    others = f", the first of {len(names)} such providers" if len(names) > 1 else ""
    return f"provider {names[0]}{others}"
