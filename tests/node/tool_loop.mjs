// A tool loop with streaming, as Vercel's AI SDK does it. Prints what came of it, as JSON.
//
// node tool_loop.mjs PROTOCOL BASE_URL KEY MODEL
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [protocol, baseURL, apiKey, name] = process.argv.slice(2);
const models = {
  chat: () =>
    createOpenAICompatible({ name: "swapproof", baseURL, apiKey, includeUsage: true })(name),
  messages: () => createAnthropic({ baseURL, apiKey })(name),
  responses: () => createOpenAI({ baseURL, apiKey }).responses(name),
  stored: () => createOpenAI({ baseURL, apiKey })(name),
};
const cities = [];
const result = streamText({
  model: models[protocol](),
  prompt: "What is the weather?",
  maxRetries: 0,
  // Without it, as `stored` is, the SDK sends references to items that OpenAI would have stored.
  providerOptions: protocol === "stored" ? {} : { openai: { store: false } },
  stopWhen: stepCountIs(4),
  tools: {
    weather: tool({
      description: "Of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: ({ city }) => {
        cities.push(city);
        return `${city} is sunny`;
      },
    }),
  },
  onError: ({ error }) => {
    console.error(error);
    process.exitCode = 1;
  },
});
let pieces = 0;
for await (const part of result.fullStream) {
  if (part.type === "text-delta") pieces += 1;
}
const steps = await result.steps;
console.log(
  JSON.stringify({
    cities,
    pieces,
    steps: steps.map((step) => step.finishReason),
    text: (await result.text).trim(),
    output_tokens: (await result.totalUsage).outputTokens,
  }),
);
