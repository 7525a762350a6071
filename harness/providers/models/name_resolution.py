"""Finds the provider for a model's name: six rules in order, each with its reason. Pure.

The first rule that finds a provider decides. After a prefix, the rest is the model's name or a
short form of it. If no known model fits, `keyword`, `local` and `gateway` pass a name of one
word on unchanged; if the provider's models are known, these rules refuse the name. A name that
begins with a kind (`anthropic/…`) goes to a provider of another kind in two cases: its model's
name begins with the same kind and a slash, or the provider is a gateway.

Nothing here reads a database: `harness.providers.registry.named_models` builds the query and
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
    know_models,
    match_among,
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
    TOOK = "took"  # this rule decides
    NO = "no"  # the rule does not apply: Swapgate tries the next rule
    REFUSED = "refused"  # the rule refuses the name: Swapgate tries no other rule
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
    # The command that sets up the kind to which the name belongs; empty if a provider of it is
    # configured, and if no kind is known.
    add_command: str = ""

    @property
    def target(self) -> str | None:
        return None if self.provider is None else f"{self.provider}/{self.model}"

    @property
    def deciding(self) -> RuleResult | None:
        """The rule that took or refused the name; None if no rule did."""
        decided = (RuleOutcome.TOOK, RuleOutcome.REFUSED)
        return next(
            (result for result in self.rules if result.outcome in decided),
            None,
        )

    @property
    def reason(self) -> str:
        shown = [self.deciding] if self.deciding else self.rules
        return "; ".join(f"{result.rule.value}: {result.reason}" for result in shown)


@dataclass(frozen=True, slots=True)
class _Took:
    """A rule's result that decides for a provider and a model."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """A rule's result that ends the search without a model."""

    reason: str
    candidates: tuple[str, ...] = ()


_Found = _Took | _Refused | str


@dataclass(frozen=True, slots=True)
class ModelNameQuery:
    """A name with all facts that the rules need."""

    name: str
    providers: Mapping[str, Provider]
    offers: Sequence[ModelOffer] = ()
    today: date = date.min
    catalogue: Catalogue = field(default_factory=Catalogue)  # for the models of hosted kinds
    usable: Collection[str] | None = None  # providers that take names without prefix; None: all
    forced: Force | None = None  # from the kill switch that decides for all routes
    signed_in: Collection[str] = ()  # the OAuth providers with stored tokens

    def resolve(self) -> Resolution:
        """Tries the rules in order. Never raises: a refused name has no provider."""
        taken: _Took | None = None
        refused: _Refused | None = None
        tried: list[RuleResult] = []
        for rule in ResolutionRule:
            if taken or refused:
                said = "an earlier rule decided"
                tried.append(RuleResult(rule, RuleOutcome.NOT_ASKED, said))
                continue
            match self._by(rule):
                case _Took() as taken:
                    tried.append(RuleResult(rule, RuleOutcome.TOOK, taken.reason))
                case _Refused() as refused:
                    tried.append(RuleResult(rule, RuleOutcome.REFUSED, refused.reason))
                case reason:
                    tried.append(RuleResult(rule, RuleOutcome.NO, reason))
        return Resolution(
            self.name,
            taken.provider if taken else None,
            taken.model if taken else None,
            tuple(tried),
            refused.candidates if refused else (),
            "" if taken else self._missing_kind_command(),
        )

    def _by(self, rule: ResolutionRule) -> _Found:
        """Applies one rule. Returns a text, the reason, if the rule does not apply."""
        if not self.name:
            return "the name is empty"
        # If a name begins with an OAuth provider, only the rules FORCED and OAUTH apply.
        chosen = self._chosen_account()
        if chosen and rule not in (
            ResolutionRule.FORCED,
            ResolutionRule.OAUTH,
        ):
            return f"the name asks for the OAuth provider {chosen[0]}"
        absent = self._absent_kind()
        ask: Mapping[ResolutionRule, Callable[[], _Found]] = {
            ResolutionRule.FORCED: self._forced,
            ResolutionRule.PREFIX: self._prefix,
            ResolutionRule.KEYWORD: lambda: self._meant() or absent or self._keyword(),
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
                return _Took(
                    provider,
                    model,
                    f"a switch forces the target {self.forced.name}",
                )
            return f"a switch forces the target {self.forced.name}, which names no provider"
        provider = self.forced.name
        if provider not in self.providers:
            return f"a switch forces {provider}, which is not configured"
        if self._is_account(provider):
            return f"a switch forces {provider}, but an OAuth provider needs its prefix"
        head, rest = self._split()
        own = head in (provider, self.providers[provider].kind)
        model = rest if own and rest else self.name
        return _Took(
            provider,
            model,
            f"a switch forces provider {provider} for all routes",
        )

    def _prefix(self) -> _Found:
        head, rest = self._split()
        if not rest:
            return "the name has no prefix"
        if self._names_provider(head):
            return self._at(head, rest, f"{head} is the name of a configured provider")
        if head not in PROVIDER_KINDS:
            return f"{head!r} is neither a configured provider nor a kind"
        of_kind = self._of_kind(head)
        if not of_kind:
            return f"{head} is a kind, but no provider of it is configured"
        return self._at(of_kind[0], rest, f"{head} is the kind of {_first_of(of_kind)}")

    def _at(
        self,
        provider: str,
        model: str,
        why: str,
    ) -> _Found:
        """Finds the model of a name after a provider's prefix.

        A short form counts only if one model's name has all its parts.
        """
        if self.providers[provider].kind == "gemini":
            model = model.removeprefix("models/") or model  # as Google writes its ids
        own = [offer for offer in self.offers if offer.provider == provider]
        full = f"{provider}/{model}"
        if provider not in know_models(own) or any(offer.name == full for offer in own):
            return _Took(provider, model, why)
        match = match_among(full, own, today=self.today)
        meant = [offer for offer in (match.found, *match.candidates) if offer]
        fits = [offer for offer in meant if is_short_for(model, offer.model)]
        if len(fits) == 1:
            return _Took(provider, fits[0].model, f"{why}; {match.reason}")
        if fits:
            return _Refused(match.reason, candidates=tuple(offer.name for offer in fits))
        if self._is_plain:
            return _Took(provider, model, why)
        return _Refused(match.reason)

    def _names_provider(self, head: str) -> bool:
        """Whether `head` names a provider. Before a colon, a kind's name means only providers
        of this kind.
        """
        own = self.providers.get(head)
        return own is not None and not (
            self._has_colon() and head in PROVIDER_KINDS and own.kind != head
        )

    def _absent_kind(self) -> str:
        """Explains that the name begins with a kind without a provider; empty otherwise."""
        head, rest = self._split()
        if not rest or self._names_provider(head) or head not in PROVIDER_KINDS:
            return ""
        if self._of_kind(head):
            return ""
        return f"the name asks for the kind {head}, but no provider of it is configured"

    def _meant(self) -> _Found | None:
        """Finds a known model by the name's words; first among providers with a key, then among
        all.
        """
        offers = [offer for offer in self.offers if self._takes_names(offer.provider)]
        match = match_among(self.name, offers, today=self.today)
        if match.candidates:
            names = tuple(candidate.name for candidate in match.candidates)
            return _Refused(match.reason, candidates=names)
        if match.found is None:
            match = match_among(self.name, self.offers, today=self.today)
        if match.found is None:
            return None
        return _Took(match.found.provider, match.found.model, match.reason)

    def _missing_kind_command(self) -> str:
        head, rest = self._split()
        if head and self._names_provider(head):
            return ""
        named = head if head in PROVIDER_KINDS else other_name(head)
        kind = named or self._kind(rest) or self._kind(self.name)
        return add_command(kind) if kind and not self._of_kind(kind) else ""

    def _keyword(self) -> _Found:
        if self.name.lower().startswith(LOCAL_KEYWORDS):
            return self._local()
        kind = self._kind(self.name)
        if kind is None:
            return "the model's name begins with no kind's keyword"
        of_kind = [name for name in self._of_kind(kind) if self._takes_names(name)]
        if not of_kind:
            lacks = "has a key" if self._of_kind(kind) else "is configured"
            return f"such names belong to {kind}, but no provider of it {lacks}"
        why = f"such names belong to {kind}, the kind of {_first_of(of_kind)}"
        return self._as_written(of_kind[0], why)

    def _as_written(self, provider: str, why: str) -> _Found:
        """Passes a name of one word on unchanged, unless the provider's models are known."""
        if not self._is_plain:
            return "a name of several words is not an exact name"
        if provider in know_models(self.offers):
            return _Refused(f"{why}, and its known models do not include {self.name}")
        return _Took(provider, self.name, why)

    def _local(self) -> _Found:
        local = [
            name
            for name in sorted(self.providers)
            if self._group(name) is ProviderGroup.LOCAL and self.providers[name].api_base
            if self._takes_names(name)
        ]
        if not local:
            return "no local provider with an apiBase is configured"
        if "/" in self.name:
            return "a local provider takes only plain names, but this name has a slash"
        hosted = [e.kind for e in self.catalogue if e.model == self.name and e.kind in HOSTED]
        if hosted:
            return f"it is not a local model: the catalogue has it for {hosted[0]}"
        return self._as_written(local[0], f"a plain name goes to {_first_of(local)}")

    def _gateway(self) -> _Found:
        names = [name for kind in GATEWAYS for name in self._of_kind(kind)]
        gateways = [name for name in names if self._takes_names(name)]
        if not gateways:
            return f"no gateway ({', '.join(GATEWAYS)}) with a key is configured"
        return self._as_written(gateways[0], f"{_first_of(gateways)} takes the name as it is")

    def _account(self, chosen: tuple[str, str] | None) -> _Found:
        if chosen is None:
            return "an OAuth provider needs its own prefix"
        provider, model = chosen
        if provider not in self.providers:
            return _Refused(
                f"no provider of the kind {provider} is configured: "
                f"`{add_command(provider)}` adds one"
            )
        if provider not in self.signed_in:
            return _Refused(
                f"{provider} has no stored tokens: sign in with "
                f"`swapgate provider key login {provider}`"
            )
        return _Took(provider, model, f"{provider} is named, and is signed in")

    def _chosen_account(self) -> tuple[str, str] | None:
        """Returns (provider, rest) if the name begins with a provider of a person's account;
        else None.

        A kind without a provider stands for itself, so that the reason can name it.
        """
        head, rest = self._split()
        if not rest:
            return None
        if head in self.providers:
            return (head, rest) if self._is_account(head) else None
        if head in PROVIDER_KINDS and PROVIDER_KINDS[head].group is ProviderGroup.OAUTH:
            return next(iter(self._of_kind(head)), head), rest
        return None

    @property
    def _is_plain(self) -> bool:
        return len(self.name.split()) == 1

    def _takes_names(self, provider: str) -> bool:
        return self.usable is None or provider in self.usable

    def _kind(self, model: str) -> str | None:
        """Returns the kind whose keyword begins the name, by the longest keyword; None without
        one.
        """
        low = model.lower()
        fits = [
            (len(word), kind.name)
            for kind in PROVIDER_KINDS.values()
            for word in kind.keywords
            if low.startswith(word)
        ]
        return max(fits)[1] if fits else None

    def _split(self) -> tuple[str, str]:
        """Splits off a provider or kind before the first slash or colon."""
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

    def _is_account(self, provider: str) -> bool:
        return self._group(provider) is ProviderGroup.OAUTH

    def _group(self, provider: str) -> ProviderGroup | None:
        kind = PROVIDER_KINDS.get(self.providers[provider].kind)
        return kind.group if kind else None


def _first_of(names: Sequence[str]) -> str:
    place = f", the first of {len(names)} such providers" if len(names) > 1 else ""
    return f"provider {names[0]}{place}"
