"""Runs Inspect without Swapproof on the same items, with Inspect's defaults:
`python -m benchmarks.evals.bare DATA BASE_URL FOLDER CONNECTIONS`.

Inspect's `openai` provider needs a newer `openai` than litellm allows. So this module defines a
minimal provider: one POST by aiohttp, without retries, request patch or price.
"""

import os
import sys
from pathlib import Path

import aiohttp
from inspect_ai import Task, eval  # noqa: A004 - Inspect's name
from inspect_ai.dataset import json_dataset
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import exact
from inspect_ai.solver import generate
from inspect_ai.tool import ToolChoice, ToolInfo


@modelapi(name="bare")
class Bare(ModelAPI):
    session: aiohttp.ClientSession | None = None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's own signature
        tools: list[ToolInfo],  # noqa: ARG002
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,  # noqa: ARG002
    ) -> ModelOutput:
        if self.session is None:
            self.session = aiohttp.ClientSession()
        messages = [{"role": message.role, "content": message.text} for message in input]
        async with self.session.post(
            f"{self.base_url}/chat/completions",
            json={"model": self.model_name, "messages": messages},
        ) as response:
            answer = await response.json()
        output = ModelOutput.from_content(
            self.model_name, answer["choices"][0]["message"]["content"]
        )
        used = answer["usage"]
        output.usage = ModelUsage(
            input_tokens=used["prompt_tokens"],
            output_tokens=used["completion_tokens"],
            total_tokens=used["total_tokens"],
        )
        return output

    async def aclose(self) -> None:
        if self.session is not None:
            await self.session.close()


def main() -> None:
    data, base_url, folder, connections = sys.argv[1:5]
    os.environ["INSPECT_DISPLAY"] = "none"
    [log] = eval(
        Task(dataset=json_dataset(data), solver=[generate()], scorer=exact()),
        model="bare/adder",
        model_base_url=base_url,
        log_dir=folder,
        max_samples=int(connections),
        max_connections=int(connections),
    )
    done = log.results.completed_samples if log.results else 0
    right = log.results.scores[0].metrics["mean"].value if log.results else 0
    Path(folder, "result").write_text(f"{done} {right * done:.0f}", encoding="utf-8")


if __name__ == "__main__":
    main()
