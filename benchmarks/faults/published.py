"""A third party's published fault scenarios through Swapgate as shipped.

`python -m benchmarks.faults.published` takes three minutes. The scenarios and how they are
judged are failoverbench's, methodology v0.1 (github.com/failoverbench/failoverbench): pass,
partial (an advisory check failed), safe (a clean error in time), fail. The code is ours; their
own runner may judge differently. `--set` changes the router's settings, `--route` the routes'.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai

from benchmarks.faults.gateways.swapgate import serve
from benchmarks.faults.published_provider import DOWN_S, WORDS, Provider
from benchmarks.router.processes import free_port, start, wait_for
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.control.operations import keys
from harness.control.routing import seed
from harness.domain.operations.access import SYSTEM

WHOLE: Final = " ".join(WORDS)
SPARE: Final = "ok"
FLAPS, FLAP_EVERY_S, BACK_WITHIN_S = 20, 4.0, 30.0


@dataclass(frozen=True)
class Result:
    """One call as its client and its provider saw it. times: of attempts on the first model."""

    text: str
    error: str
    took_s: float
    model: str
    usage: bool
    times: Sequence[float] = ()

    @property
    def whole(self) -> bool:
        return not self.error and self.text == WHOLE

    @property
    def gap_s(self) -> float:
        return self.times[1] - self.times[0] if len(self.times) > 1 else 0.0

    def within(self, seconds: float) -> int:
        return sum(at - self.times[0] < seconds for at in self.times)


Check = Callable[[Result], bool]


@dataclass(frozen=True)
class Scenario:
    """needed: a failure of one fails it. advised: of one makes a pass a partial."""

    id: str
    title: str
    most_s: float
    needed: Sequence[Check] = ()
    advised: Sequence[Check] = ()
    ends_in_error: bool = False


def attempts(most: int) -> Check:
    return lambda result: len(result.times) <= most


def took(most_s: float) -> Check:
    return lambda result: result.took_s <= most_s


def not_cut(result: Result) -> bool:
    return bool(result.error) or result.whole


def has_usage(result: Result) -> bool:
    return bool(result.error) or result.usage


SCENARIOS: Final = (
    Scenario("s01", "429 with Retry-After", 20, [lambda s: s.within(1.5) <= 2],
             [lambda s: len(s.times) >= 2, lambda s: s.gap_s >= 1.8]),
    Scenario("s02", "429 for good", 40, [lambda s: s.within(3) <= 4, attempts(6)]),
    Scenario("s03", "500 once", 20, (), [lambda s: len(s.times) >= 2]),
    Scenario("s04", "503 for good", 40, [attempts(6)]),
    Scenario("s05", "reset before the head", 20),
    Scenario("s06", "no answer at all", 130, [took(100)], [attempts(1)]),
    Scenario("s07", "first token after 20 s", 60, (), [took(15)]),
    Scenario("s08", "stream cut in the middle", 40, [not_cut]),
    Scenario("s09", "stream stalls", 70, [took(45), not_cut]),
    Scenario("s10", "an event that is no JSON", 30, [not_cut], [lambda s: s.whole]),
    Scenario("s11", "no [DONE]", 30, [took(8)], [has_usage]),
    Scenario("s12", "the prompt is too long", 20, [lambda s: len(s.times) == 1]),
    Scenario("s13", "content filter", 20, [lambda s: len(s.times) == 1], ends_in_error=True),
    Scenario("s14", "stream cut, no prefill", 40, [not_cut]),
    Scenario("s16", "what failed is not what served", 40,
             [lambda s: bool(s.error) or s.model.endswith(SPARE), attempts(6)], [has_usage]),
)  # fmt: skip


def verdict(scenario: Scenario, result: Result) -> str:
    if result.took_s > scenario.most_s or not all(check(result) for check in scenario.needed):
        return "fail"
    if scenario.ends_in_error:
        return "pass" if result.error else "partial"
    if result.error:
        return "safe"
    if not result.whole:
        return "fail"
    return "pass" if all(check(result) for check in scenario.advised) else "partial"


@dataclass
class Flap:
    """Twenty requests over an outage of a minute."""

    results: list[tuple[float, Result]] = field(default_factory=list)
    back_after_s: float | None = None

    @property
    def verdict(self) -> str:
        down = [result for at, result in self.results if at < DOWN_S]
        back = self.back_after_s is not None and self.back_after_s <= BACK_WITHIN_S
        if not back or any(result.error for result in down):
            return "fail"
        return "pass" if all(result.whole for _, result in self.results) else "safe"


async def call(client: openai.AsyncOpenAI, model: str, most_s: float) -> Result:
    began, text, named, usage, error = time.monotonic(), "", "", False, ""
    try:
        async with asyncio.timeout(most_s + 1):
            chunks = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Sixty words, please."}],
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in chunks:
                named, usage = chunk.model or named, usage or chunk.usage is not None
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
    except (openai.OpenAIError, TimeoutError) as failure:
        error = f"{type(failure).__name__}: {failure}"[:120]
    return Result(text, error, time.monotonic() - began, named, usage)


async def one(client: openai.AsyncOpenAI, scenario: Scenario, provider: Provider) -> Result:
    result = await call(client, scenario.id, scenario.most_s)
    times = provider.times(scenario.id)
    return Result(result.text, result.error, result.took_s, result.model, result.usage, times)


async def flap(client: openai.AsyncOpenAI, provider: Provider) -> Flap:
    found = Flap()
    provider.reset()
    for number in range(FLAPS):
        await asyncio.sleep(max(0.0, number * FLAP_EVERY_S - provider.now_s))
        at = provider.now_s
        found.results.append((at, await call(client, "s15", 30)))
    back = [at for model, at in provider.answered if model == "s15"]
    found.back_after_s = min(back) - DOWN_S if back else None
    return found


def install(
    folder: Path, port: int, upstream: int, more: Mapping[str, Any]
) -> tuple[Path, str]:
    """A configuration with nothing but addresses, and what `more` changes; a key."""
    names = [*(scenario.id for scenario in SCENARIOS), "s15"]
    route = {"fallbacks": [f"wall/{SPARE}"], **more["route"]}
    document = {
        "home": str(folder / "home"),
        "router": {"port": port, **more["router"]},
        "providers": {
            "wall": {"kind": "custom", "api_base": f"http://127.0.0.1:{upstream}/v1"}
        },
        "routes": {name: {"incumbent": f"wall/{name}", **route} for name in names},
    }
    config = folder / "swapgate.yaml"
    config.write_text(json.dumps(document), encoding="utf-8")
    installation = open_installation(config, create_secret=True)
    try:
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        _, key = keys.create_key(
            installation.context, SYSTEM, "bench", secret=installation.secret
        )
    finally:
        installation.close()
    return config, key


async def played(more: Mapping[str, Any]) -> dict[str, str]:
    provider, found = Provider(), {}
    with (
        tempfile.TemporaryDirectory(prefix="swapgate-published-") as folder,
        ExitStack() as own,
    ):
        async with provider.serving() as upstream:
            place, port = Path(folder), free_port()
            config, key = await asyncio.to_thread(install, place, port, upstream, more)
            process = start(serve(config), own, log=place / "log")
            await asyncio.to_thread(wait_for, port, process, 60)
            client = openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=200
            )
            async with client:
                # At once: each has a route and a model, and so circuits, of its own.
                ran = asyncio.gather(
                    *(one(client, scenario, provider) for scenario in SCENARIOS)
                )
                for scenario, result in zip(SCENARIOS, await ran, strict=True):
                    found[scenario.id] = verdict(scenario, result)
                    say(
                        scenario.id,
                        scenario.title,
                        found[scenario.id],
                        result.took_s,
                        result.error,
                    )
                flapped = await flap(client, provider)
            found["s15"] = flapped.verdict
            back = flapped.back_after_s
            said = "never back" if back is None else f"back after {back:.1f} s"
            say("s15", "down for a minute, then well", found["s15"], 0.0, said)
    return found


def say(id_: str, title: str, outcome: str, took_s: float, more: str) -> None:
    print(f"{id_.upper()}  {title:32} {outcome:8} {took_s:6.1f} s  {more}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--set", default="{}", help="JSON, into `router`")
    options.add_argument("--route", default="{}", help="JSON, into every route")
    chosen = options.parse_args()
    more = {"router": json.loads(chosen.set), "route": json.loads(chosen.route)}
    found = asyncio.run(played(more))
    counts = (f"{list(found.values()).count(grade)} {grade}" for grade in
              ("pass", "partial", "safe", "fail"))  # fmt: skip
    print(" / ".join(counts))


if __name__ == "__main__":
    main()
