// The official Node package, unmodified, against the proxy at POINTSMAN_URL.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const messages = [{ role: "user", content: "hello" }];

/** A client, and how many requests it really sent. */
function client(apiKey = "sdk-key", more = {}) {
  const wire = { requests: 0 };
  const counted = (...args) => {
    wire.requests += 1;
    return fetch(...args);
  };
  const openai = new OpenAI({ baseURL: `${process.env.POINTSMAN_URL}/v1`, apiKey, fetch: counted, ...more });
  return { openai, wire };
}

test("chat", async () => {
  const answer = await client().openai.chat.completions.create({ model: "m", messages });
  assert.equal(answer.choices[0].message.content, "hello from the provider");
  assert.equal(answer.usage.total_tokens, 15);
});

test("stream", async () => {
  const stream = await client().openai.chat.completions.create({ model: "m", messages, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, "hello from the provider");
});

test("stream left early", async () => {
  const stream = await client().openai.chat.completions.create({ model: "m", messages, stream: true });
  for await (const _ of stream) break;
});

test("embeddings", async () => {
  const asked = { model: "e", input: ["a", "b"], encoding_format: "float" };
  const answer = await client().openai.embeddings.create(asked);
  assert.deepEqual(answer.data[1].embedding, [0.5, 1, 0.25]);
});

test("models", async () => {
  const names = [];
  for await (const model of client().openai.models.list()) names.push(model.id);
  assert.ok(names.includes("m") && names.includes("e"), names.join());
});

test("a bad request is one and is not repeated", async () => {
  const { openai, wire } = client();
  const asked = openai.chat.completions.create({ model: "wrong", messages });
  await assert.rejects(asked, (e) => e instanceof OpenAI.BadRequestError && e.code === "bad");
  assert.equal(wire.requests, 1);
});

test("exhaustion is not multiplied by the SDK's retries", async () => {
  const { openai, wire } = client();
  const asked = openai.chat.completions.create({ model: "limited", messages });
  await assert.rejects(asked, (e) => e instanceof OpenAI.APIError && e.status === 503 && e.type === "AllPoolsExhausted");
  // An honest Retry-After may be obeyed: the SDK's own two retries, at most.
  assert.ok(wire.requests <= 3);
});

test("a wrong key", async () => {
  const asked = client("wrong").openai.chat.completions.create({ model: "m", messages });
  await assert.rejects(asked, OpenAI.AuthenticationError);
});

test("a client's own rate", async () => {
  const { openai } = client("slow-key-too", { maxRetries: 0 });
  await openai.chat.completions.create({ model: "m", messages });
  await assert.rejects(openai.chat.completions.create({ model: "m", messages }), OpenAI.RateLimitError);
});

test("an unknown model", async () => {
  const asked = client().openai.chat.completions.create({ model: "no-such-model", messages });
  await assert.rejects(asked, OpenAI.NotFoundError);
});

test("a cut stream throws", async () => {
  const stream = await client().openai.chat.completions.create({ model: "cut", messages, stream: true });
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, OpenAI.APIError);
});
