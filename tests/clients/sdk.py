"""One Python SDK against one base URL, with every fault at once: sdk.py SDK BASE_URL FAULT... Prints a line of JSON for each.

Every question offers a tool, gets its call, and gives the result back, as an agent does. Where a fault is waited out, so are the
SDK's own retries; a silent provider is left after SILENCE_S seconds.
"""

import asyncio
import importlib
import json
import sys
import time

SILENCE_S = 6
QUESTION = "What is the weather in Rome?"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def openai(base, model, stream=True):
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=base + "/v1", api_key="key", timeout=SILENCE_S)
    messages = [{"role": "user", "content": QUESTION}]
    while True:
        asked = {"model": model, "messages": messages, "tools": [WEATHER], "seed": 7}
        if stream:
            async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                async for _ in events:
                    pass
                answer = await events.get_final_completion()
        else:
            answer = await client.chat.completions.create(**asked)
        said = answer.choices[0].message
        if not said.tool_calls:
            return said.content, answer.usage.total_tokens
        messages.append(said.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in said.tool_calls]


async def openai_plain(base, model):
    return await openai(base, model, stream=False)


async def openai_responses(base, model):
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=base + "/v1", api_key="key", timeout=SILENCE_S)
    tool = {"type": "function", **WEATHER["function"], "strict": False}
    given = [{"role": "user", "content": QUESTION}]
    while True:
        async with client.responses.stream(model=model, input=given, tools=[tool]) as events:
            async for _ in events:
                pass
            answer = await events.get_final_response()
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return answer.output_text, answer.usage.total_tokens
        for call in calls:
            given.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
            given.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})


async def anthropic(base, model):
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(base_url=base, api_key="key", timeout=SILENCE_S)
    tool = {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER["function"]["parameters"]}
    messages = [{"role": "user", "content": QUESTION}]
    while True:
        async with client.messages.stream(model=model, max_tokens=500, messages=messages, tools=[tool]) as events:
            answer = await events.get_final_message()
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            return answer.content[0].text, answer.usage.output_tokens
        messages.append({"role": "assistant", "content": [call.model_dump(include={"type", "id", "name", "input"}) for call in calls]})
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
        messages.append({"role": "user", "content": results})


async def langchain(base, model, chat=None):
    from langchain_core.messages import HumanMessage, ToolMessage

    if chat is None:
        from langchain_openai import ChatOpenAI

        chat = ChatOpenAI(base_url=base + "/v1", api_key="key", model=model, timeout=SILENCE_S, stream_usage=True)
    bound, messages = chat.bind_tools([WEATHER]), [HumanMessage(QUESTION)]
    while True:
        whole = None
        async for chunk in bound.astream(messages):
            whole = chunk if whole is None else whole + chunk
        if not whole.tool_calls:
            return whole.text, whole.usage_metadata["output_tokens"]
        messages += [whole] + [ToolMessage("sunny", tool_call_id=call["id"]) for call in whole.tool_calls]


async def langchain_anthropic(base, model):
    from langchain_anthropic import ChatAnthropic

    chat = ChatAnthropic(base_url=base, api_key="key", model=model, timeout=SILENCE_S, max_tokens=500)
    return await langchain(base, model, chat)


async def pydantic_ai(base, model):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=base + "/v1", api_key="key")
    agent = Agent(OpenAIChatModel(model, provider=provider), model_settings={"timeout": SILENCE_S})

    @agent.tool_plain
    def weather(city: str) -> str:
        return "sunny"

    answer = await agent.run(QUESTION)
    return answer.output, None


async def litellm(base, model):
    from litellm import acompletion

    messages = [{"role": "user", "content": QUESTION}]
    while True:
        answer = await acompletion(
            f"openai/{model}", api_base=base + "/v1", api_key="key", messages=messages, tools=[WEATHER], timeout=SILENCE_S
        )
        said = answer.choices[0].message
        if not said.tool_calls:
            return said.content, answer.usage.total_tokens
        messages.append({"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in said.tool_calls]})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in said.tool_calls]


SDKS = {
    "openai": (openai, "openai"),
    "openai-plain": (openai_plain, "openai"),
    "openai-responses": (openai_responses, "openai"),
    "anthropic": (anthropic, "anthropic"),
    "langchain": (langchain, "langchain_openai"),
    "langchain-anthropic": (langchain_anthropic, "langchain_anthropic"),
    "pydantic-ai": (pydantic_ai, "pydantic_ai.models.openai"),
    "litellm": (litellm, "litellm"),
}


async def one(sdk, base, fault):
    begun = time.monotonic()
    try:
        said, counted = await SDKS[sdk][0](base, f"{fault}-{sdk}")
        result = {"says": said, "counts": counted}
    except Exception as error:  # noqa: BLE001: whatever an SDK raises is its result
        result = {"fails": type(error).__name__, "words": str(error)[:300]}
    print(json.dumps({"fault": fault, "took_s": round(time.monotonic() - begun, 2), **result}), flush=True)


async def main():
    sdk, base, *faults = sys.argv[1:]
    importlib.import_module(SDKS[sdk][1])
    await asyncio.gather(*(one(sdk, base, fault) for fault in faults))


asyncio.run(main())
