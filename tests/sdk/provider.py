"""A provider for the SDK suites: what it does depends on the model asked for. Prints its port, then serves."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello from the provider"},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
}
EMBEDDINGS = {
    "object": "list", "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2},
    "data": [{"object": "embedding", "index": i, "embedding": [0.5, i, 0.25]} for i in range(2)],
}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "hello from claude"}],
    "usage": {"input_tokens": 9, "output_tokens": 4},
}
MESSAGE_EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "from claude"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]


seen = {}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
        model = asked.get("model") or ""
        seen[model] = seen.get(model, 0) + 1
        # Cut at the first request, then well.
        mended = model.startswith("mended") and seen[model] == 1
        if model.startswith("slow"):
            time.sleep(1)
        if model == "limited":
            error = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None}}
            return self.answer(429, error, {"retry-after": "60"})
        if model == "wrong":
            error = {"message": "messages is wrong", "type": "invalid_request_error", "param": "messages", "code": "bad"}
            return self.answer(400, {"error": error})
        if self.path.endswith("/embeddings"):
            return self.answer(200, EMBEDDINGS)
        if self.path.endswith("/messages"):
            if self.headers["x-api-key"] != "claude-key" or not self.headers["anthropic-version"]:
                return self.answer(401, {"type": "error", "error": {"type": "authentication_error", "message": "no"}})
            if not asked.get("stream") or model.startswith("json"):
                return self.answer(200, MESSAGE)
            return self.events(MESSAGE_EVENTS[:3] if mended else MESSAGE_EVENTS, named=True, cut=mended)
        if not asked.get("stream") or model == "json":
            return self.answer(200, CHAT)
        events = [chunk({"role": "assistant", "content": "hello "}), chunk({"content": "from "})]
        if model == "cut" or mended:
            return self.events(events, cut=True)
        events += [chunk({"content": "the provider"}), chunk({}, "stop")]
        if asked.get("stream_options", {}).get("include_usage"):
            events.append({**chunk({}), "choices": [], "usage": CHAT["usage"]})
        self.events(events + ["[DONE]"])

    def answer(self, status, body, headers=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def events(self, events, named=False, cut=False):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            data = f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
