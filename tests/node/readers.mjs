// What the clients of npm read of the router's answers, whole and streamed. Prints it as JSON:
// by reader, route and form, text, thoughts, calls, and whether the answer was an error.
//
// node readers.mjs URL KEY ROUTE...
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatAnthropic } from "@langchain/anthropic";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [url, key, ...routes] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const schema = { type: "object", properties: { n: { type: "number" } } };
const asked = { role: "user", content: "hi" };
const thinking = { type: "enabled", budget_tokens: 2048 };
const answer = () => ({ text: "", thoughts: "", calls: [] });

async function openaiChat(model, stream) {
  const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
  const function_ = { name: "find_town", parameters: schema };
  const tools = [{ type: "function", function: function_ }];
  const body = { model, messages: [asked], tools, stream };
  const given = await client.chat.completions.create(body);
  const read = answer();
  const pieces = [];
  let ended = !stream;
  for await (const chunk of stream ? given : [given]) {
    for (const choice of chunk.choices) {
      const said = choice.delta ?? choice.message;
      read.text += said.content ?? "";
      ended ||= Boolean(choice.finish_reason);
      for (const [at, { index = at, ...call }] of (said.tool_calls ?? []).entries()) {
        pieces[index] ??= { name: call.function.name, arguments: "" };
        pieces[index].arguments += call.function.arguments ?? "";
      }
    }
  }
  if (!ended) throw new Error("no finish reason");
  read.calls = pieces.map((call) => [call.name, JSON.parse(call.arguments)]);
  return read;
}

async function openaiResponses(model, stream) {
  const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
  const tools = [{ type: "function", name: "find_town", parameters: schema, strict: false }];
  const reasoning = { effort: "low", summary: "auto" };
  const body = { model, input: [asked], tools, reasoning, stream };
  let given = await client.responses.create(body);
  const read = answer();
  if (stream) {
    let last;
    for await (const event of given) {
      if (event.type === "response.output_text.delta") read.text += event.delta;
      last = event;
    }
    if (!["response.completed", "response.incomplete"].includes(last?.type))
      throw new Error(`the last event is ${last?.type}`);
    given = last.response;
    if (given.output_text !== undefined && given.output_text !== read.text)
      throw new Error("the deltas are another text");
  }
  read.text = "";
  for (const item of given.output) {
    if (item.type === "function_call") read.calls.push([item.name, JSON.parse(item.arguments)]);
    for (const part of item.content ?? []) read.text += part.text ?? part.refusal ?? "";
    for (const part of item.summary ?? []) read.thoughts += part.text;
  }
  return read;
}

async function anthropicMessages(model, stream) {
  const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
  const tools = [{ name: "find_town", input_schema: schema }];
  const body = { model, max_tokens: 4096, thinking, messages: [asked], tools };
  const given = stream
    ? await client.messages.stream(body).finalMessage()
    : await client.messages.create(body);
  const read = answer();
  for (const block of given.content) {
    if (block.type === "text") read.text += block.text;
    if (block.type === "thinking") read.thoughts += block.thinking;
    if (block.type === "tool_use") read.calls.push([block.name, block.input]);
  }
  return read;
}

const vercel = (make) => async (name, stream) => {
  const find_town = tool({ description: "Finds", inputSchema: jsonSchema(schema) });
  const providerOptions = {
    openai: { store: false, reasoningEffort: "low", reasoningSummary: "auto" },
    anthropic: { thinking: { type: "enabled", budgetTokens: 2048 } },
  };
  const settings = { model: make(name), prompt: "hi", maxRetries: 0, providerOptions };
  const read = answer();
  let calls, reason;
  if (stream) {
    let failed;
    const onError = ({ error }) => (failed = error);
    const result = streamText({ ...settings, tools: { find_town }, onError });
    for await (const part of result.fullStream) {
      if (part.type === "text-delta") read.text += part.text;
      if (part.type === "reasoning-delta") read.thoughts += part.text;
      if (part.type === "error") failed = part.error;
    }
    if (failed) throw failed;
    [calls, reason] = [await result.toolCalls, await result.finishReason];
  } else {
    const result = await generateText({ ...settings, tools: { find_town } });
    [read.text, calls, reason] = [result.text, result.toolCalls, result.finishReason];
    read.thoughts = result.reasoningText ?? "";
  }
  if (reason === "error") throw new Error("it ended as an error");
  read.calls = calls.map((call) => [call.toolName, call.input]);
  return read;
};

const langchain = (make) => async (name, stream) => {
  const function_ = { name: "find_town", description: "Finds", parameters: schema };
  const model = make(name).bindTools([{ type: "function", function: function_ }]);
  let message;
  if (!stream) message = await model.invoke("hi");
  else
    for await (const piece of await model.stream("hi"))
      message = message === undefined ? piece : message.concat(piece);
  const calls = (message.tool_calls ?? []).map((call) => [call.name, call.args]);
  return { text: message.text, thoughts: "", calls };
};

const named = { name: "swapproof", baseURL, apiKey: key };
const chain = { apiKey: key, maxRetries: 0, configuration: { baseURL } };
const readers = {
  "openai-chat": openaiChat,
  "openai-responses": openaiResponses,
  "anthropic-messages": anthropicMessages,
  "vercel-compatible": vercel((name) => createOpenAICompatible(named)(name)),
  "vercel-chat": vercel((name) => createOpenAI(named).chat(name)),
  "vercel-responses": vercel((name) => createOpenAI(named).responses(name)),
  "vercel-messages": vercel((name) => createAnthropic(named)(name)),
  "langchain-chat": langchain((model) => new ChatOpenAI({ ...chain, model })),
  "langchain-responses": langchain(
    (model) => new ChatOpenAI({ ...chain, model, useResponsesApi: true }),
  ),
  "langchain-messages": langchain(
    (model) => new ChatAnthropic({ ...chain, model, maxTokens: 999, anthropicApiUrl: url }),
  ),
};
const told = {};
for (const [name, read] of Object.entries(readers))
  for (const route of routes)
    for (const stream of [false, true]) {
      const place = `${name} ${route} ${stream ? "streamed" : "whole"}`;
      try {
        told[place] = await read(route, stream);
      } catch (error) {
        told[place] = { error: String(error?.message ?? error) };
      }
    }
console.log(JSON.stringify(told));
