"""Finds the provider for a model's name: six rules in order, each with its reason. Pure.

The first rule that finds a provider decides. After a prefix, the rest is the model's name or a
short form of it. If no known model fits, `keyword`, `local` and `gateway` pass on a name of one
word unchanged. If the provider's models are known, these rules refuse the name instead. A name
that begins with a kind (`anthropic/…`) goes to a provider of another kind in two cases: the
provider has a model whose name begins so, or the provider is a gateway.

The module reads no database: `harness.providers.registry.named_models` builds the query. It
also finds registered targets, whose names need no rule.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from harness.providers.force import Force, ForceKind
from harness.providers.kinds import (
    LOCAL_KEYWORDS,
    PROVIDER_KINDS,
    ProviderGroup,
    add_command,
    other_name,
)
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_match import (
    HOSTED,
    ModelOffer,
    is_short_for,
    match_among,
    providers_with_known_models,
)
from harness.providers.target import Provider

GATEWAYS: Final = ("openrouter",)


class ResolutionRule(StrEnum):
    """The rules, in the order in which they are tried."""

    FORCED = "forced"
    PREFIX = "prefix"
    KEYWORD = "keyword"
    LOCAL = "local"
    GATEWAY = "gateway"
    OAUTH = "oauth"


class RuleOutcome(StrEnum):
    TOOK = "took"  # the rule found the provider
    NO = "no"  # the rule does not apply: Swapproof tries the next rule
    REFUSED = "refused"  # the rule refuses the name: Swapproof tries no other rule
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class RuleResult:
    rule: ResolutionRule
    outcome: RuleOutcome
    reason: str  # for people: why the rule took the name or did not take it


@dataclass(frozen=True, slots=True)
class Resolution:
    """A name's provider and model, with the result of each rule."""

    name: str
    provider: str | None  # provider, model: None if no rule took the name
    model: str | None
    rules: tuple[RuleResult, ...]  # the results of all six rules, in order
    candidates: tuple[str, ...] = ()  # models that the name means equally well
    # The command that adds a provider of the kind to which the name belongs. Empty if there is
    # one already, and if the kind is unknown.
    add_command: str = ""

    @property
    def target(self) -> str | None:
        return None if self.provider is None else f"{self.provider}/{self.model}"

    @property
    def deciding(self) -> RuleResult | None:
        """The rule that took or refused the name; None if no rule did."""
        deciding_outcomes = (RuleOutcome.TOOK, RuleOutcome.REFUSED)
        return next(
            (result for result in self.rules if result.outcome in deciding_outcomes),
            None,
        )

    @property
    def reason(self) -> str:
        shown_results = [self.deciding] if self.deciding else self.rules
        return "; ".join(f"{result.rule.value}: {result.reason}" for result in shown_results)


@dataclass(frozen=True, slots=True)
class _Match:
    """A rule's result that decides for a provider and a model."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A rule's result that ends the search without a model."""

    reason: str
    candidates: tuple[str, ...] = ()


_RuleAnswer = _Match | _Refusal | str


@dataclass(frozen=True, slots=True)
class ModelNameQuery:
    """A name with all facts that the rules need."""

    name: str
    providers: Mapping[str, Provider]
    offers: Sequence[ModelOffer] = ()
    today: date = date.min
    catalogue: Catalogue = field(default_factory=Catalogue)  # for the models of hosted kinds
    usable: Collection[str] | None = (
        None  # providers that accept names without prefix; None: all
    )
    forced: Force | None = None  # from the kill switch that decides for all routes
    signed_in: Collection[str] = ()  # the OAuth providers with stored tokens

    def resolve(self) -> Resolution:
        """Tries the rules in order. Never raises: a refused name has no provider."""
        found: _Match | None = None
        refusal: _Refusal | None = None
        results: list[RuleResult] = []
        for rule in ResolutionRule:
            if found or refusal:
                explanation = "an earlier rule decided"
                results.append(RuleResult(rule, RuleOutcome.NOT_ASKED, explanation))
                continue
            match self._apply_rule(rule):
                case _Match() as found:
                    results.append(RuleResult(rule, RuleOutcome.TOOK, found.reason))
                case _Refusal() as refusal:
                    results.append(RuleResult(rule, RuleOutcome.REFUSED, refusal.reason))
                case reason:
                    results.append(RuleResult(rule, RuleOutcome.NO, reason))
        return Resolution(
            self.name,
            found.provider if found else None,
            found.model if found else None,
            tuple(results),
            refusal.candidates if refusal else (),
            "" if found else self._missing_kind_command(),
        )

    def _apply_rule(self, rule: ResolutionRule) -> _RuleAnswer:
        """Applies one rule. Returns the reason as a text if the rule does not apply."""
        if not self.name:
            return "the name is empty"
        # If a name begins with an OAuth provider, only the rules FORCED and OAUTH apply.
        account = self._named_account()
        if account and rule not in (
            ResolutionRule.FORCED,
            ResolutionRule.OAUTH,
        ):
            return f"the name asks for the OAuth provider {account[0]}"
        missing = self._missing_provider_reason()
        rules: Mapping[ResolutionRule, Callable[[], _RuleAnswer]] = {
            ResolutionRule.FORCED: self._by_switch,
            ResolutionRule.PREFIX: self._by_prefix,
            ResolutionRule.KEYWORD: lambda: self._by_words() or missing or self._by_keyword(),
            ResolutionRule.LOCAL: lambda: missing or self._by_local(),
            ResolutionRule.GATEWAY: lambda: (
                (self._prefix_ends_in_colon() and missing) or self._by_gateway()
            ),
            ResolutionRule.OAUTH: lambda: self._by_account(account),
        }
        return rules[rule]()

    def _by_switch(self) -> _RuleAnswer:
        if self.forced is None:
            return "no switch forces a provider for all routes"
        if self.forced.kind is ForceKind.TARGET:
            provider, _, model = self.forced.name.partition("/")
            if provider in self.providers and model:
                return _Match(
                    provider,
                    model,
                    f"a switch forces the target {self.forced.name}",
                )
            return f"a switch forces the target {self.forced.name}, which names no provider"
        provider = self.forced.name
        if provider not in self.providers:
            return f"a switch forces {provider}, which is not configured"
        if self._is_account_provider(provider):
            return f"a switch forces {provider}, but an OAuth provider needs its prefix"
        head, rest = self._split_prefix()
        is_own_prefix = head in (provider, self.providers[provider].kind)
        model = rest if is_own_prefix and rest else self.name
        return _Match(
            provider,
            model,
            f"a switch forces provider {provider} for all routes",
        )

    def _by_prefix(self) -> _RuleAnswer:
        head, rest = self._split_prefix()
        if not rest:
            return "the name has no prefix"
        if self._names_provider(head):
            return self._match_at_provider(
                head, rest, f"{head} is the name of a configured provider"
            )
        if head not in PROVIDER_KINDS:
            return f"{head!r} is neither a configured provider nor a kind"
        providers = self._providers_of_kind(head)
        if not providers:
            return f"{head} is a kind, but no provider of it is configured"
        return self._match_at_provider(
            providers[0], rest, f"{head} is the kind of {_first_of(providers)}"
        )

    def _match_at_provider(
        self,
        provider: str,
        model: str,
        reason: str,
    ) -> _RuleAnswer:
        """Finds the model of a name after a provider's prefix.

        A short form counts only if one model's name has all its parts.
        """
        if self.providers[provider].kind == "gemini":
            model = model.removeprefix("models/") or model  # as Google writes its ids
        offers = [offer for offer in self.offers if offer.provider == provider]
        full = f"{provider}/{model}"
        if provider not in providers_with_known_models(offers) or any(
            offer.name == full for offer in offers
        ):
            return _Match(provider, model, reason)
        match = match_among(full, offers, today=self.today)
        matches = [offer for offer in (match.found, *match.candidates) if offer]
        fits = [offer for offer in matches if is_short_for(model, offer.model)]
        if len(fits) == 1:
            return _Match(provider, fits[0].model, f"{reason}; {match.reason}")
        if fits:
            return _Refusal(match.reason, candidates=tuple(offer.name for offer in fits))
        if self._is_one_word:
            return _Match(provider, model, reason)
        return _Refusal(match.reason)

    def _names_provider(self, head: str) -> bool:
        """Tells whether `head` is a provider's name. Before a colon, a kind's name means only
        providers of this kind.
        """
        provider = self.providers.get(head)
        return provider is not None and not (
            self._prefix_ends_in_colon() and head in PROVIDER_KINDS and provider.kind != head
        )

    def _missing_provider_reason(self) -> str:
        """Returns a reason if the name begins with a kind that has no provider; else empty."""
        head, rest = self._split_prefix()
        if not rest or self._names_provider(head) or head not in PROVIDER_KINDS:
            return ""
        if self._providers_of_kind(head):
            return ""
        return f"the name asks for the kind {head}, but no provider of it is configured"

    def _by_words(self) -> _RuleAnswer | None:
        """Finds a known model by the name's words: first at the providers with a key, then at
        all providers.
        """
        offers = [offer for offer in self.offers if self._accepts_plain_names(offer.provider)]
        match = match_among(self.name, offers, today=self.today)
        if match.candidates:
            names = tuple(candidate.name for candidate in match.candidates)
            return _Refusal(match.reason, candidates=names)
        if match.found is None:
            match = match_among(self.name, self.offers, today=self.today)
        if match.found is None:
            return None
        return _Match(match.found.provider, match.found.model, match.reason)

    def _missing_kind_command(self) -> str:
        head, rest = self._split_prefix()
        if head and self._names_provider(head):
            return ""
        prefix_kind = head if head in PROVIDER_KINDS else other_name(head)
        kind = prefix_kind or self._keyword_kind(rest) or self._keyword_kind(self.name)
        return add_command(kind) if kind and not self._providers_of_kind(kind) else ""

    def _by_keyword(self) -> _RuleAnswer:
        if self.name.lower().startswith(LOCAL_KEYWORDS):
            return self._by_local()
        kind = self._keyword_kind(self.name)
        if kind is None:
            return "the model's name begins with no kind's keyword"
        providers = [
            name for name in self._providers_of_kind(kind) if self._accepts_plain_names(name)
        ]
        if not providers:
            missing = "has a key" if self._providers_of_kind(kind) else "is configured"
            return f"such names belong to {kind}, but no provider of it {missing}"
        reason = f"such names belong to {kind}, the kind of {_first_of(providers)}"
        return self._pass_on(providers[0], reason)

    def _pass_on(self, provider: str, reason: str) -> _RuleAnswer:
        """Passes a name of one word on unchanged, unless the provider's models are known."""
        if not self._is_one_word:
            return "a name of several words is not an exact name"
        if provider in providers_with_known_models(self.offers):
            return _Refusal(f"{reason}, and its known models do not include {self.name}")
        return _Match(provider, self.name, reason)

    def _by_local(self) -> _RuleAnswer:
        local = [
            name
            for name in sorted(self.providers)
            if self._group_of(name) is ProviderGroup.LOCAL and self.providers[name].api_base
            if self._accepts_plain_names(name)
        ]
        if not local:
            return "no local provider with an apiBase is configured"
        if "/" in self.name:
            return "a local provider takes only plain names, but this name has a slash"
        hosted = [
            entry.kind
            for entry in self.catalogue
            if entry.model == self.name and entry.kind in HOSTED
        ]
        if hosted:
            return f"it is not a local model: the catalogue has it for {hosted[0]}"
        return self._pass_on(local[0], f"a plain name goes to {_first_of(local)}")

    def _by_gateway(self) -> _RuleAnswer:
        names = [name for kind in GATEWAYS for name in self._providers_of_kind(kind)]
        gateways = [name for name in names if self._accepts_plain_names(name)]
        if not gateways:
            return f"no gateway ({', '.join(GATEWAYS)}) with a key is configured"
        return self._pass_on(gateways[0], f"{_first_of(gateways)} takes the name as it is")

    def _by_account(self, account: tuple[str, str] | None) -> _RuleAnswer:
        if account is None:
            return "an OAuth provider needs its own prefix"
        provider, model = account
        if provider not in self.providers:
            return _Refusal(
                f"no provider of the kind {provider} is configured: "
                f"`{add_command(provider)}` adds one"
            )
        if provider not in self.signed_in:
            return _Refusal(
                f"{provider} has no stored tokens: sign in with "
                f"`swapproof provider key login {provider}`"
            )
        return _Match(provider, model, f"{provider} is named, and is signed in")

    def _named_account(self) -> tuple[str, str] | None:
        """Returns (provider, rest) if the name begins with a provider of a person's account;
        else None.

        If the kind has no provider, the kind's name takes its place, so that the reason can
        name it.
        """
        head, rest = self._split_prefix()
        if not rest:
            return None
        if head in self.providers:
            return (head, rest) if self._is_account_provider(head) else None
        if head in PROVIDER_KINDS and PROVIDER_KINDS[head].group is ProviderGroup.OAUTH:
            return next(iter(self._providers_of_kind(head)), head), rest
        return None

    @property
    def _is_one_word(self) -> bool:
        return len(self.name.split()) == 1

    def _accepts_plain_names(self, provider: str) -> bool:
        return self.usable is None or provider in self.usable

    def _keyword_kind(self, model: str) -> str | None:
        """Returns the kind whose keyword begins the name, by the longest keyword; None without
        one.
        """
        lower = model.lower()
        matches = [
            (len(word), kind.name)
            for kind in PROVIDER_KINDS.values()
            for word in kind.keywords
            if lower.startswith(word)
        ]
        return max(matches)[1] if matches else None

    def _split_prefix(self) -> tuple[str, str]:
        """Splits off a provider or kind before the first slash or colon."""
        for separator in "/:":
            head, _, rest = self.name.partition(separator)
            if rest and (head in self.providers or head in PROVIDER_KINDS):
                return head, rest
        head, slash, rest = self.name.partition("/")
        return (head, rest) if slash else ("", "")

    def _prefix_ends_in_colon(self) -> bool:
        head, _ = self._split_prefix()
        return self.name[len(head) : len(head) + 1] == ":"

    def _providers_of_kind(self, kind: str) -> Sequence[str]:
        return sorted(
            name for name, provider in self.providers.items() if provider.kind == kind
        )

    def _is_account_provider(self, provider: str) -> bool:
        return self._group_of(provider) is ProviderGroup.OAUTH

    def _group_of(self, provider: str) -> ProviderGroup | None:
        kind = PROVIDER_KINDS.get(self.providers[provider].kind)
        return kind.group if kind else None


def _first_of(names: Sequence[str]) -> str:
    suffix = f", the first of {len(names)} such providers" if len(names) > 1 else ""
    return f"provider {names[0]}{suffix}"
