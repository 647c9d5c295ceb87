"""A provider for coding agents and SDKs: chat completions, Responses and messages, plain and as streams. Prints its port.

The beginning of the model's name says what it does (`well-x`, `limited-x`, `broken-x`, `cut-x`, `silent-x`). Where a tool is
on offer that it knows how to call, it calls it first and answers once it has the result. Every request to a model is counted by
the path's first segment and the model; GET /counts tells the numbers. With a file as argument, request bodies are kept there.
"""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAYS = "The provider says hello."

# Tools of agents and of this suite that do something harmless, each with arguments that they take.
TOOLS = {
    "weather": {"city": "Rome"},
    "Bash": {"command": "echo from-the-tool", "description": "Say something"},
    "bash": {"command": "echo from-the-tool", "description": "Say something"},
    "exec_command": {"cmd": "echo from-the-tool"},
    "shell_command": {"command": "echo from-the-tool"},
    "shell": {"command": ["echo", "from-the-tool"]},
    "exec": {"command": "echo from-the-tool"},
}

counts, log, lock = {}, None, threading.Lock()


def known_tool(tools):
    """The first tool of a request that can be called."""
    for tool in tools or []:
        name = (tool.get("function") or tool).get("name")
        if name in TOOLS and tool.get("type", "function") in ("function", "custom"):
            return name
    return None


def has_result(asked):
    for message in asked.get("messages") or asked.get("input") or []:
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool" or message.get("type") == "function_call_output":
            return True
        content = message.get("content")
        if isinstance(content, list) and any(b.get("type") == "tool_result" for b in content if isinstance(b, dict)):
            return True
    return False


def pieces(text):
    return [text[i : i + 6] for i in range(0, len(text), 6)]


class Chat:
    """Chat completions."""

    usage = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}

    @staticmethod
    def whole(model, tool):
        call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": json.dumps(TOOLS.get(tool))}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]} if tool else {"role": "assistant", "content": SAYS}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop", "logprobs": None}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": Chat.usage}

    @staticmethod
    def events(model, tool, asked):
        def chunk(delta, finish=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}

        yield chunk({"role": "assistant", "content": ""})
        if tool:
            function = {"name": tool, "arguments": ""}
            yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
            for piece in pieces(json.dumps(TOOLS[tool])):
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        else:
            for piece in pieces(SAYS):
                yield chunk({"content": piece})
        yield chunk({}, "tool_calls" if tool else "stop")
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield {**chunk({}), "choices": [], "usage": Chat.usage}
        yield "[DONE]"

    @staticmethod
    def error(status, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}


class Responses(Chat):
    """OpenAI's Responses."""

    @staticmethod
    def item(tool):
        if tool:
            return {
                "id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": tool,
                "arguments": json.dumps(TOOLS[tool]),
            }
        part = {"type": "output_text", "text": SAYS, "annotations": [], "logprobs": []}
        return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}

    @staticmethod
    def whole(model, tool, status="completed"):
        usage = {
            "input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
        }
        done = status == "completed"
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model, "error": None,
            "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1,
            "tool_choice": "auto", "tools": [], "top_p": 1, "output": [Responses.item(tool)] if done else [],
            "usage": usage if done else None,
        }

    @staticmethod
    def events(model, tool, asked):
        item, number = Responses.item(tool), iter(range(1000))

        def event(kind, **more):
            return {"type": kind, "sequence_number": next(number), **more}

        yield event("response.created", response=Responses.whole(model, tool, "in_progress"))
        yield event("response.in_progress", response=Responses.whole(model, tool, "in_progress"))
        at = {"output_index": 0, "item_id": item["id"]}
        if tool:
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield event("response.output_item.added", output_index=0, item=begun)
            for piece in pieces(item["arguments"]):
                yield event("response.function_call_arguments.delta", **at, delta=piece)
            yield event("response.function_call_arguments.done", **at, name=tool, arguments=item["arguments"])
        else:
            at["content_index"], part = 0, item["content"][0]
            yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
            yield event("response.content_part.added", **at, part={**part, "text": ""})
            for piece in pieces(SAYS):
                yield event("response.output_text.delta", **at, delta=piece, logprobs=[])
            yield event("response.output_text.done", **at, text=SAYS, logprobs=[])
            yield event("response.content_part.done", **at, part=part)
        yield event("response.output_item.done", output_index=0, item=item)
        yield event("response.completed", response=Responses.whole(model, tool))


class Messages:
    """Anthropic's messages."""

    @staticmethod
    def block(tool):
        return {"type": "tool_use", "id": "toolu_1", "name": tool, "input": TOOLS[tool]} if tool else {"type": "text", "text": SAYS}

    @staticmethod
    def whole(model, tool):
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [Messages.block(tool)],
            "stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
        }

    @staticmethod
    def events(model, tool, asked):
        whole, block = Messages.whole(model, tool), Messages.block(tool)
        yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
        begun = {**block, "input": {}} if tool else {**block, "text": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": begun}
        yield {"type": "ping"}
        for piece in pieces(json.dumps(TOOLS[tool]) if tool else SAYS):
            delta = {"type": "input_json_delta", "partial_json": piece} if tool else {"type": "text_delta", "text": piece}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 4}}
        yield {"type": "message_stop"}

    @staticmethod
    def error(status, kind, message):
        return {"type": "error", "error": {"type": "api_error" if status == 500 else kind, "message": message}}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(200, {})

    def do_GET(self):
        if self.path == "/counts":
            with lock:
                return self.answer(200, counts)
        if self.path.split("?")[0].endswith("/models"):
            return self.answer(200, {"object": "list", "data": [], "has_more": False})
        self.answer(404, Chat.error(404, "invalid_request_error", "there is no such thing"))

    def do_POST(self):
        asked = json.loads(self.body() or b"{}")
        path, model = self.path.split("?")[0], asked.get("model") or ""
        if log:
            with lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                log.write(json.dumps({"path": path, "headers": headers, "body": asked}) + "\n")
                log.flush()
        if path.endswith("/count_tokens"):
            return self.answer(200, {"input_tokens": 9})
        ends = {"/chat/completions": Chat, "/responses": Responses, "/messages": Messages}
        dialect = next((dialect for end, dialect in ends.items() if path.endswith(end)), None)
        if not dialect:
            return self.answer(404, Chat.error(404, "invalid_request_error", "there is no such thing"))
        with lock:
            key = f"{path.split('/')[1]} {model}"
            counts[key] = counts.get(key, 0) + 1
        self.do(dialect, model, asked)

    def do(self, dialect, model, asked):
        fault = model.split("-")[0]
        if fault == "limited":
            return self.answer(429, dialect.error(429, "rate_limit_error", "Too many requests, slow down."), {"retry-after": "1"})
        if fault == "broken":
            return self.answer(500, dialect.error(500, "server_error", "Something is broken here."))
        if fault == "silent":
            # Until the client goes away.
            self.connection.settimeout(120)
            try:
                while self.connection.recv(1):
                    pass
            except OSError:
                pass
            self.close_connection = True
            return None
        tool = None if has_result(asked) else known_tool(asked.get("tools"))
        if asked.get("stream"):
            return self.events(dialect.events(model, tool, asked), cut=fault == "cut")
        whole = dialect.whole(model, tool)
        return self.cut(whole) if fault == "cut" else self.answer(200, whole)

    def body(self):
        if self.headers["transfer-encoding"] != "chunked":
            return self.rfile.read(int(self.headers["content-length"] or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, status, body, headers=None):
        data = json.dumps(body).encode()
        self.head(status, {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self, body):
        data = json.dumps(body).encode()
        self.head(200, {"content-type": "application/json", "content-length": str(len(data))})
        self.wfile.write(data[: len(data) // 2])
        self.tear()

    def events(self, events, cut):
        self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number, event in enumerate(events):
            if cut and number == 4:
                return self.tear()
            name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            data = f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def tear(self):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


if __name__ == "__main__":
    log = open(sys.argv[1], "a") if len(sys.argv) > 1 else None
    server = Server(("127.0.0.1", 0), Provider)
    print(server.server_address[1], flush=True)
    server.serve_forever()
