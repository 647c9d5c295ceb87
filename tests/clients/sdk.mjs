// One JavaScript SDK against one base URL, with every fault at once: node sdk.mjs SDK BASE_URL FAULT... Prints a line of JSON
// for each, like sdk.py.

const SILENCE_MS = 6000;
const QUESTION = "What is the weather in Rome?";
const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TOOL = { type: "function", function: { name: "weather", description: "Tells the weather.", parameters: SCHEMA } };

async function openai(base, model) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "key", timeout: SILENCE_MS });
  const messages = [{ role: "user", content: QUESTION }];
  for (;;) {
    const stream = client.chat.completions.stream({ model, messages, tools: [TOOL] });
    const answer = await stream.finalChatCompletion();
    const said = answer.choices[0].message;
    if (!said.tool_calls?.length) return said.content;
    messages.push({ role: "assistant", content: said.content, tool_calls: said.tool_calls });
    for (const call of said.tool_calls) messages.push({ role: "tool", tool_call_id: call.id, content: "sunny" });
  }
}

async function anthropic(base, model) {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: base, apiKey: "key", timeout: SILENCE_MS });
  const messages = [{ role: "user", content: QUESTION }];
  const tools = [{ name: "weather", description: "Tells the weather.", input_schema: SCHEMA }];
  for (;;) {
    const answer = await client.messages.stream({ model, max_tokens: 500, messages, tools }).finalMessage();
    const calls = answer.content.filter((block) => block.type === "tool_use");
    if (!calls.length) return answer.content[0].text;
    messages.push({ role: "assistant", content: calls.map(({ type, id, name, input }) => ({ type, id, name, input })) });
    const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "sunny" }));
    messages.push({ role: "user", content: results });
  }
}

async function ai(model) {
  const { streamText, tool, jsonSchema, isStepCount, stepCountIs } = await import("ai");
  const weather = tool({ description: "Tells the weather.", inputSchema: jsonSchema(SCHEMA), execute: async () => "sunny" });
  let failed;
  const result = streamText({
    model, prompt: QUESTION, tools: { weather }, stopWhen: (isStepCount ?? stepCountIs)(5),
    abortSignal: AbortSignal.timeout(4 * SILENCE_MS), onError: ({ error }) => { failed ??= error; },
  });
  const text = await Promise.resolve(result.text).catch((error) => { throw failed ?? error; });
  if (failed) throw failed;
  return text;
}

async function aiSdk(base, model) {
  const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
  return ai(createOpenAICompatible({ name: "proxy", baseURL: `${base}/v1`, apiKey: "key", includeUsage: true })(model));
}

async function aiSdkResponses(base, model) {
  const { createOpenAI } = await import("@ai-sdk/openai");
  return ai(createOpenAI({ baseURL: `${base}/v1`, apiKey: "key" })(model));
}

async function aiSdkAnthropic(base, model) {
  const { createAnthropic } = await import("@ai-sdk/anthropic");
  return ai(createAnthropic({ baseURL: `${base}/v1`, apiKey: "key" })(model));
}

async function langchain(base, model) {
  const { ChatOpenAI } = await import("@langchain/openai");
  const { HumanMessage, ToolMessage } = await import("@langchain/core/messages");
  // Its default of six retries takes a minute.
  const chat = new ChatOpenAI({ model, apiKey: "key", timeout: SILENCE_MS, maxRetries: 2, configuration: { baseURL: `${base}/v1` } });
  const bound = chat.bindTools([TOOL]);
  const messages = [new HumanMessage(QUESTION)];
  for (;;) {
    let whole;
    for await (const chunk of await bound.stream(messages)) whole = whole ? whole.concat(chunk) : chunk;
    if (!whole.tool_calls?.length) return whole.text;
    messages.push(whole, ...whole.tool_calls.map((call) => new ToolMessage({ content: "sunny", tool_call_id: call.id })));
  }
}

const SDKS = {
  "openai-js": openai, "anthropic-js": anthropic, "ai-sdk": aiSdk, "ai-sdk-responses": aiSdkResponses,
  "ai-sdk-anthropic": aiSdkAnthropic, "langchain-js": langchain,
};

async function one(sdk, base, fault) {
  const begun = performance.now();
  let result;
  try {
    result = { says: await SDKS[sdk](base, `${fault}-${sdk}`) };
  } catch (error) {
    result = { fails: error?.constructor?.name ?? "Error", words: String(error?.message ?? error).slice(0, 300) };
  }
  console.log(JSON.stringify({ fault, took_s: Math.round((performance.now() - begun) / 10) / 100, ...result }));
}

const [sdk, base, ...faults] = process.argv.slice(2);
process.on("unhandledRejection", () => {});
await Promise.all(faults.map((fault) => one(sdk, base, fault)));
process.exit(0);
