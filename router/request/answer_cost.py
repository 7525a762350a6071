"""Bounds the tokens of a request whose provider did not count them.

The prompt was sent and is paid, so a missing count is never 0: it becomes a lower bound, and
the record says so (`CompletedRequest.bounded`). `observers.request_accounting` calls this
module only for such requests.
"""

from typing import Final, NamedTuple

from harness.providers.models.capabilities import Endpoint
from router.frame.failure import UpstreamFailed
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answers import TokenUsage
from router.protocols.endpoints import DIALECTS
from router.request.needs import estimate_prompt
from router.request.request_state import RoutedRequest, UpstreamAnswer
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledTarget

# Up to Python 3.11, to find a member in its class takes ten times as long.
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
# An estimate for text if the provider counts no tokens.
CHARACTERS_PER_TOKEN: Final = 4


class BoundedUsage(NamedTuple):
    """The least usage of a request. target: the target that read the prompt."""

    target: CompiledTarget
    usage: TokenUsage


def bound_usage(
    observed: RoutedRequest,
    response: RoutedResponse,
    usage: TokenUsage,
) -> BoundedUsage | None:
    """Returns a lower bound of the tokens, where a count is missing; None without a bound.

    Args:
        usage: the provider's counts so far.

    An error is no answer, and without an attempt no provider read the prompt: neither has a
    bound. A prompt's bound is an estimate from its length (`estimate_prompt`), an answer's is
    one token for each event of a stream, or for four characters.
    """
    progress = response.progress
    result = progress.result
    if isinstance(result, UpstreamFailed):
        return None
    # A caller who leaves before the first output cuts the attempt off.
    attempt = progress.current if result is None else progress.attempts[-1]
    if attempt is None or (result is None and not response.caller_gone):
        return None
    input_tokens, output_tokens, cached, written, hour, tier = usage
    is_embedding = observed.request.endpoint is _EMBEDDINGS
    if isinstance(result, UpstreamAnswer) and not (output_tokens or is_embedding):
        output_tokens = _estimate_output_tokens(observed, result)
        if input_tokens and not output_tokens:
            return None  # an empty answer has no tokens
    input_tokens = input_tokens or estimate_prompt(observed.request)
    lower_bound = TokenUsage(input_tokens, output_tokens, cached, written, hour, tier)
    return BoundedUsage(attempt.upstream, lower_bound)


def _estimate_output_tokens(observed: RoutedRequest, answer: UpstreamAnswer) -> int:
    signals = AnswerSignals(keeps=True)
    DIALECTS[observed.request.endpoint].note_signals(signals, answer.members)
    return -(-signals.length // CHARACTERS_PER_TOKEN)
