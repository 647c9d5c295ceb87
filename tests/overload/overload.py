"""Steady overload against a running proxy: see `run`."""

import asyncio
import json
import os
import re
import sys
import tempfile
import time

RPM = {"free-1": 20, "free-2": 20, "free-3": 15}
CAPACITY = sum(RPM.values())
ANSWER = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}).encode()


async def read_message(reader):
    """The head of a message and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"(?im)^content-length: *(\d+)", head)
    return head, await reader.readexactly(int(length[1])) if length else b""


class Provider:
    """Answers at once, and refuses what is beyond a key's limit in a sliding minute, as providers do."""

    def __init__(self):
        self.taken = {key: [] for key in RPM}
        self.refused = 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head, _ = await read_message(reader)
                key = re.search(r"(?im)^authorization: Bearer (\S+)", head)[1]
                status, body = "200 OK", ANSWER
                if key in RPM:
                    now = time.monotonic()
                    recent = [at for at in self.taken[key] if now - at < 60]
                    if len(recent) >= RPM[key]:
                        self.refused += 1
                        status, body = "429 Too Many Requests\r\nretry-after: 5", b"{}"
                    else:
                        recent.append(now)
                    self.taken[key] = recent
                writer.write(f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
                             f"content-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def configuration(folder, port):
    lines = ['[server]', 'listen = "127.0.0.1:0"', '[admin]', 'listen = "127.0.0.1:0"', '[store]', 'path = ":memory:"']
    for key, rpm in RPM.items():
        lines += ['[[backend]]', f'id = "{key}"', f'base_url = "http://127.0.0.1:{port}/v1"', f'api_key = "env:{key.replace("-", "_")}"',
                  'models = ["m"]', f'rpm = {rpm}']
    lines += ['[[backend]]', 'id = "paid"', 'tier = "fallback"', f'base_url = "http://127.0.0.1:{port}/v1"',
              'api_key = "env:paid"', 'models = ["m"]', '[backend.price.m]', 'input_per_mtok = 1.0',
              'output_per_mtok = 1.0']
    path = os.path.join(folder, "pointsman.toml")
    with open(path, "w") as file:
        file.write("\n".join(lines))
    return path


async def start_proxy(binary, folder, port):
    """The proxy, and the port it listens on."""
    keys = {key.replace("-", "_"): key for key in [*RPM, "paid"]}
    process = await asyncio.create_subprocess_exec(
        binary, "serve", "--config", configuration(folder, port), cwd=folder, env={**os.environ, **keys},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    told = []
    while line := (await asyncio.wait_for(process.stdout.readline(), 60)).decode():
        told.append(line)
        if found := re.search(r'"addr":"127\.0\.0\.1:(\d+)"', line):
            asyncio.ensure_future(drain(process.stdout))
            return process, int(found[1])
    raise SystemExit("the proxy did not start:\n" + "".join(told))


async def drain(stream):
    while await stream.readline():
        pass


async def ask(port):
    """The lane of one request, and how long it took."""
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
                 f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    head, _ = await read_message(reader)
    writer.close()
    status = int(head.split()[1])
    lane = re.search(r"(?im)^x-pointsman-lane: *(\S+)", head)
    return (lane[1] if status == 200 and lane else f"status {status}"), time.monotonic() - begin


async def overloaded(binary, per_minute, seconds):
    """Complaints about one run; none when all is well."""
    provider = Provider()
    with tempfile.TemporaryDirectory() as folder:
        process, port = await start_proxy(binary, folder, await provider.start())
        try:
            begin, asked = time.monotonic(), []
            for number in range(int(seconds * per_minute / 60)):
                await asyncio.sleep(max(0.0, begin + number * 60 / per_minute - time.monotonic()))
                asked.append(asyncio.ensure_future(ask(port)))
            answers = await asyncio.gather(*asked)
        finally:
            process.terminate()
            await process.wait()
    times = sorted(took for _, took in answers)
    p50, p95 = times[len(times) // 2], times[len(times) * 95 // 100]
    paid = sum(lane == "fallback" for lane, _ in answers) / len(answers)
    excess = max(0.0, 1 - CAPACITY * seconds / 60 / len(answers))
    lost = sorted({lane for lane, _ in answers} - {"primary", "fallback"})
    print(f"{per_minute} a minute before {CAPACITY}: {len(answers)} requests, {100 * paid:.1f} % paid for, excess "
          f"{100 * excess:.1f} %, p50 {p50:.2f} s, p95 {p95:.2f} s, {provider.refused} refused by a key", flush=True)
    return [complaint for complaint, is_so in [
        (f"{100 * (paid - excess):.1f} points more than the excess were paid for", paid > excess + 0.02),
        (f"p50 is {p50:.1f} s", p50 > 3.0),
        (f"some were answered otherwise: {lost}", bool(lost)),
        (f"{provider.refused} requests were beyond a key's limit", provider.refused > 0),
    ] if is_so]


async def main(binary, seconds):
    runs = await asyncio.gather(*(overloaded(binary, per_minute, seconds) for per_minute in (61, 83)))
    failed = 0
    for per_minute, complaints in zip((61, 83), runs):
        failed += bool(complaints)
        for complaint in complaints:
            print(f"FAILED at {per_minute} a minute: {complaint}")
    print(f"{len(runs) - failed} passed, {failed} failed")
    return failed


sys.exit(1 if asyncio.run(main(os.path.abspath(sys.argv[1]), float(sys.argv[2]))) else 0)
