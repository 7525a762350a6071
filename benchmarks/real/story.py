"""The acts of the real run, with their checks."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.real import own_traffic
from benchmarks.real.orders import suite, write_orders
from benchmarks.real.schema_judge import JUDGE
from benchmarks.real.servers import CONTEXT, SLOTS, Server, model_files
from benchmarks.real.traffic import Traffic, burst
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.swaps import ENDED, SHORT, phase, proposal, propose

GEMMA: Final = "gemma/gemma-3-270m"
SMOLLM: Final = "smollm/models/smollm2-135m-instruct"  # as servers name a model by its file
SPARE: Final = "spare/models/smollm2-135m-instruct"
SWAP_S: Final = 900.0
BURST: Final = 32
POLICY: Final[Document] = {
    **SHORT,
    "canary": {
        **SHORT["canary"],
        "steps": [
            {"weight_bps": 1000, "min_exposures": 8},
            {
                "weight_bps": 5000,
                "min_exposures": 150,
                "certify": True,
            },
        ],
    },
}


@dataclass(frozen=True)
class Check:
    act: str
    claim: str
    seen: str
    good: bool


@dataclass
class Story:
    """The installation, its three servers, and the checks so far."""

    place: Installation
    gemma: Server
    smollm: Server
    spare: Server
    checks: list[Check] = field(default_factory=list)
    act: str = ""
    took_s: dict[str, float] = field(default_factory=dict)  # by act

    def check(
        self,
        claim: str,
        seen: object,
        *,
        good: bool,
    ) -> None:
        found = Check(self.act, claim, str(seen), good)
        self.checks.append(found)
        print(f"  {'ok ' if good else 'BAD'} {claim}: {seen}", flush=True)

    @property
    def acts(self) -> Mapping[str, Callable[[], None]]:
        """All acts by their titles, in their order."""
        found: tuple[Callable[[], None], ...] = (
            self.serve,
            self.ask_what_they_are,
            self.swap_to_the_better_model,
            self.swap_back,
            self.prove_by_own_traffic,
            self.lose_a_canary,
            self.switch_an_agent,
            self.send_what_does_not_fit,
            self.ask_all_at_once,
        )
        return {act.__name__.replace("_", " "): act for act in found}

    def play(self, only: str = "") -> list[Check]:
        """Plays all acts, or the first act and one other."""
        for title, act in self.acts.items():
            if only and title not in ("serve", only):
                continue
            self.act = title
            begun = time.monotonic()
            print(f"{self.act}", flush=True)
            try:
                act()
            except (AssertionError, LookupError, httpx.HTTPError) as error:
                self.check("the act reaches its end", repr(error)[:600], good=False)
            self.took_s[self.act] = time.monotonic() - begun
            print(f"  {self.took_s[self.act]:.0f} s", flush=True)
        return self.checks

    def serve(self) -> None:
        for server in (self.gemma, self.smollm, self.spare):
            self.check(
                f"{server.name} is healthy",
                f"{server.start():.1f} s",
                good=True,
            )
        self.place.init()
        for part in ("router", "control", "agents"):
            self.place.serve(part)
        self.check("router, control plane and agents are ready", "ready", good=True)

    def ask_what_they_are(self) -> None:
        for one in self.place.api("POST", "/check").json()["providers"]:
            seen = "; ".join(f"{item['subject']}: {item['found']}" for item in one["findings"])
            self.check(f"`/check` of {one['provider']}", seen, good=bool(one["ok"]))
        listed = self.place.cli("model", "discover", "gemma").out
        window = str(CONTEXT // SLOTS)
        self.check(
            "a slot's context is known",
            f"{window} tokens",
            good=window in listed,
        )
        document = self.place.json("doctor", "--tools", SMOLLM, code=1)
        (one,) = document["targets"]
        outcomes = {item["subject"]: item["outcome"] for item in one["findings"]}
        seen = "; ".join(f"{subject}: {outcome}" for subject, outcome in outcomes.items())
        self.check(
            "`doctor --tools` of SmolLM2, which calls no tools",
            seen,
            good=outcomes["tools"] == "does not",
        )

    def swap_to_the_better_model(self) -> None:
        number = propose(self.place, "orders", SMOLLM)
        begun = time.monotonic()
        self._await(number, "canary")
        self.check(
            "evaluated and gated",
            f"{time.monotonic() - begun:.0f} s",
            good=True,
        )
        self._show_scores(number, "passed")
        with Traffic(self.place, "orders").running() as asking:
            self._await(number, "promoted")
        self._show_traffic(asking)

    def swap_back(self) -> None:
        number = propose(self.place, "orders", GEMMA)
        self._await(number, "rejected")
        self._show_scores(number, "failed")

    def prove_by_own_traffic(self) -> None:
        own_traffic.prove_by_own_traffic(self, SMOLLM)

    def lose_a_canary(self) -> None:
        number = propose(self.place, "returns", SPARE)
        self._await(number, "canary")
        with Traffic(self.place, "returns").running() as asking:
            eventually(lambda: any(answer.arm == "canary" for answer in asking.answers))
            self.spare.kill()
            killed = time.monotonic()
            self._await(number, "rolled_back")
            self.check(
                "rolled back",
                f"{time.monotonic() - killed:.0f} s after",
                good=True,
            )
        self._show_traffic(asking)
        self.spare.start()

    def switch_an_agent(self) -> None:
        agent = self._post(
            "/agents",
            {
                "name": "clerk",
                "model": "clerk",
                "tools": [],
            },
        )["id"]
        session = f"/agents/{agent}/sessions/{self._new_session(agent)}"
        said = "My name is Anna and my order has the number 1001."
        asks = "Which number does my order have?"
        first = self._say(session, said)["content"]
        body = {
            "action": "switch",
            "model": GEMMA,
            "reason": "try the other model",
        }
        asked = self._post(f"{session}/switch_model", body)
        self.place.api("POST", f"/switch-requests/{asked['request']}/approve", {})
        answer = self._say(session, asks)
        shown = f"{answer['target']}: {answer['content'][:80]!r}"
        self.check(
            "the other model answers the next message",
            shown,
            good=answer["target"] == GEMMA,
        )
        turns = ("user", said), ("assistant", first), ("user", asks)
        messages = [{"role": role, "content": text} for role, text in turns]
        one: Document = {
            "model": "returns",
            "messages": messages,
            "max_tokens": 1,
        }
        whole = self._post("/v1/chat/completions", one)["usage"]["prompt_tokens"]
        tokens = answer["usage"]["inputTokens"]
        seen = f"{tokens} input tokens; the messages alone have {whole}"
        self.check("it read the whole conversation", seen, good=tokens >= whole)

    def send_what_does_not_fit(self) -> None:
        long = self.place.chat("orders", "hello world " * 5000)
        code = long.json().get("error", {}).get("code")
        refusal = (long.status_code, code) == (
            400,
            "context_length_exceeded",
        )
        self.check("a prompt longer than the context", code, good=refusal)
        wrong = {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "x"}},
        }
        refused = self.place.chat("orders", "Hello", response_format=wrong)
        self.check(
            "an invalid schema",
            f"{refused.status_code} {refused.text[:200]}",
            good=refused.status_code == httpx.codes.BAD_REQUEST,
        )
        stopped = self.place.chat(
            "orders",
            "Count to nine.",
            stop=["e"],
            max_tokens=20,
        )
        text = stopped.json()["choices"][0]["message"]["content"] or ""
        self.check("a stop word ends the text", repr(text), good="e" not in text)
        empty = self.place.chat("orders", "Hello", grammar='root ::= ""')
        said = empty.json().get("error", {}).get("message", "")
        self.check("a grammar that allows no text", said, good="empty" in said)

    def ask_all_at_once(self) -> None:
        answers = burst(self.place, "orders", BURST)
        failed = [answer.error for answer in answers if answer.error]
        waited = sorted(answer.first_token_s or 0.0 for answer in answers)
        seen = f"{len(failed)} failed; first text after {waited[0]:.1f} to {waited[-1]:.1f} s"
        shown = f"{seen} {'; '.join(failed[:2])}".strip()
        self.check(f"{BURST} streams on {SLOTS} slots", shown, good=not failed)

    def _await(self, number: str, wanted: str) -> None:
        def reached() -> bool:
            found = phase(self.place, number)
            if found != wanted and found in ENDED:
                raise AssertionError(proposal(self.place, number))
            return found == wanted

        eventually(reached, f"{number} is not {wanted}", wait_s=SWAP_S)

    def _show_scores(self, number: str, outcome: str) -> None:
        rows = self.place.database.rows(
            "SELECT v.outcome, t.provider, count(*) AS n, avg(s.strict) AS score,"
            " sum(s.error IS NOT NULL) AS errors, sum(s.finish = 'length') AS cut,"
            " sum(s.output_tokens) / sum(s.duration_s) AS speed"
            " FROM verdict v JOIN eval_run r ON r.target IN (v.incumbent, v.candidate)"
            " JOIN target t ON t.id = r.target JOIN sample s ON s.run = r.id"
            " WHERE v.proposal = :id GROUP BY v.outcome, t.provider ORDER BY t.provider",
            id=number,
        )
        seen = "; ".join(
            f"{row['provider']} {row['score']:.0%} of {row['n']} items ({row['errors']} failed,"
            f" {row['cut']} cut), {row['speed']:.0f} tokens a second and call"
            for row in rows
        )
        ends = {(row["outcome"], row["errors"]) for row in rows}
        self.check(
            f"the verdict is {outcome.upper()}",
            seen,
            good=ends == {(outcome, 0)},
        )

    def _show_traffic(self, asking: Traffic) -> None:
        firsts = [a.first_token_s for a in asking.answers if a.first_token_s is not None]
        seen = (
            f"{len(asking.answers)} streams, {len(asking.failed)} failed; first text after"
            f" {statistics.median(firsts):.2f} s (median), {max(firsts):.2f} s at most"
        )
        causes = "; ".join(answer.error for answer in asking.failed[:3])
        self.check(
            "callers noticed nothing",
            f"{seen} {causes}".strip(),
            good=not causes,
        )

    def _post(self, path: str, body: Document) -> Any:
        answer = self.place.router("POST", path, body)
        if not answer.is_success:
            raise AssertionError(answer.text)
        return answer.json()

    def _new_session(self, agent: str) -> str:
        return str(self._post(f"/agents/{agent}/sessions", {"userId": "user-1"})["id"])

    def _say(self, session: str, text: str) -> Any:
        return self._post(f"{session}/messages", {"role": "user", "content": text})


def stage(folder: Path, program: Path, judge_url: str) -> Story:
    """Prepares an installation with three servers (two have the same model), and with a
    judge of drawn pairs.
    """
    gemma_file, smollm_file = model_files(folder)
    name = SMOLLM.partition("/")[2]
    gemma = Server(GEMMA.partition("/")[2], gemma_file, folder / "gemma.log")
    smollm = Server(name, smollm_file, folder / "smollm.log")
    spare = Server(name, smollm_file, folder / "spare.log")
    data = folder / "orders.jsonl"
    write_orders(data)
    providers = {
        target.partition("/")[0]: {
            "kind": "llama_cpp",
            "api_base": f"{server.url}/v1",
        }
        for target, server in zip((GEMMA, SMOLLM, SPARE), (gemma, smollm, spare), strict=True)
    }
    providers[JUDGE.partition("/")[0]] = {"kind": "custom", "api_base": judge_url}
    route = {
        "incumbent": GEMMA,
        "suites": ["orders"],
        "policy": "real",
    }
    settings: Document = {
        "providers": providers,
        "policies": {"real": POLICY, "people": own_traffic.POLICY},
        "suites": {"orders": suite(data)},
        "routes": {
            "orders": route,
            "returns": route,
            "clerk": {"incumbent": SMOLLM},
            own_traffic.ROUTE: own_traffic.route_settings(GEMMA),
        },
        "control": {"reconcile_interval_s": 0.5},
        "agents": {"open_on_loopback": True},
    }
    place = Installation(program, folder / "installation", settings)
    return Story(place, gemma, smollm, spare)


ROOT = Path(__file__).parents[2]
INTRODUCTION = """# The real run

`make real` writes this page. The run swaps a route between two small real models, without
the simulator: Gemma 3 270M and SmolLM2 135M Instruct, served by llama.cpp's own server. The
suite has 120 items. Each is an order in one sentence; the model must extract three fields that
a JSON schema defines. Callers stream answers through the official `openai` client.

In "Prove by own traffic", Swapproof captures the requests of another route's callers and draws
them as a suite. No package has a third model that could judge. So the judge is a rule: it
prefers the only answer with the three fields. The labels are a script's, which knows each
order's truth: it prefers the only right answer, and calls two right or two wrong answers a tie.
The script sees no more than a person: it reads the screens of `swapproof label` in a terminal.
A draw takes whole days that have ended, so the run sets the captures' times back by a day.

The models come from the package index (340 MB), not with Swapproof. Gemma's weights come
under [Google's Gemma terms](https://ai.google.dev/gemma/terms), SmolLM2's under Apache 2.0."""


def describe_run(story: Story) -> str:
    """Returns the page, in Markdown."""
    wrong = sum(not check.good for check in story.checks)
    facts = ", ".join(
        (
            find_commit(),
            f"{platform.system()} on {platform.machine()} with {os.cpu_count()} cores",
            f"xllamacpp {version('xllamacpp')}",
            f"{sum(story.took_s.values()) / 60:.0f} minutes",
            f"{len(story.checks)} checks",
            f"{wrong} of them not as expected.",
        )
    )
    acts = [describe_act(story, act) for act in story.took_s]
    return "\n\n".join([INTRODUCTION, f"Commit {facts}", *acts]) + "\n"


def replace_act(page: str, story: Story, only: str) -> str:
    """Returns a page on which one act is of this run, and the others of an earlier one."""
    introduction, *parts = page.rstrip("\n").split("\n\n## ")
    described = {part.partition("\n")[0].lower(): f"## {part}" for part in parts}
    described[only] = describe_act(story, only, f"at commit {find_commit()}, played alone")
    facts = introduction.rpartition("\n\n")[2]
    acts = [described[act] for act in story.acts if act in described]
    return "\n\n".join([INTRODUCTION, facts, *acts]) + "\n"


def describe_act(story: Story, act: str, note: str = "") -> str:
    """Returns the part of the page about an act."""
    lines = [
        f"- {'' if check.good else '**Not as expected:** '}{check.claim}: {check.seen}"
        for check in story.checks
        if check.act == act
    ]
    took = ", ".join(filter(None, (f"{story.took_s[act]:.0f} s", note)))
    return f"## {act.capitalize()}\n\n{took}.\n\n" + "\n".join(lines)


def find_commit() -> str:
    return subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"),  # noqa: S607 - of the checkout
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
