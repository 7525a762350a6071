"""Stores the ends that headers of answers to the control plane's probes state."""

from collections.abc import Iterable
from contextlib import suppress

from harness.frame.errors import StoreUnavailable
from harness.providers.calls.probe import ProbeReply
from harness.providers.context import ProvidersContext
from harness.providers.models.model_ends import merge_answer, state_answer
from harness.providers.records import EndStatements
from harness.providers.target import Target


def store_probed_ends(
    ctx: ProvidersContext, replies: Iterable[tuple[Target, ProbeReply]]
) -> None:
    """Stores new statements of good answers. A database that is away stops no probe: the next
    one states the same.
    """
    now = ctx.clock.now()
    answers = [
        state_answer(target.id, target.provider, reply.ends, now)
        for target, reply in replies
        if reply.ends is not None and reply.failure is None
    ]
    if not answers:
        return
    with suppress(StoreUnavailable):
        with ctx.store.read() as tx:
            stored = EndStatements(tx).of_headers()
        changed = [
            merged
            for answer in answers
            if (merged := merge_answer(stored.get(answer.target), answer)) is not None
        ]
        if changed:
            with ctx.store.write() as tx:
                EndStatements(tx).note(changed)
