"""Drives coding agents and SDKs straight to a provider and through the proxy, well and with every provider failing, and compares.

drive.py TOOLS PROXY_BINARY [CLIENT...]. For each client and fault it expects what users do: the same result, at most 1.2 times the
upstream requests, and no more time than the direct run. Where every provider fails, the policy may try and wait for one exchange
as its settings say; to that, what the client repeats by itself may add no more than one try of each backend, and what it sleeps
because it was told when to come again is its own. The last line is "N passed, N failed".
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
FAULTS = os.environ.get("POINTSMAN_CLIENT_FAULTS", "well,limited,broken,cut,silent").split(",")
SAYS = "The provider says hello."

# A run of an agent that has no end is ended after so long; in both ways that is the same result.
RUN_LIMIT_S = 90

# The result of a run that was ended.
NO_END = "no end"

# What a busy machine of two cores adds to the exchanges of a run.
SLACK_S = 4.0

# Two tiers of one backend, and the attempts of an exchange at both together: a failure may be a hiccup, and who fails again is
# tried no more often than a client would.
BACKENDS = 2
ATTEMPTS = 4

PYTHON_SDKS = [
    "openai", "openai-plain", "openai-responses", "anthropic", "langchain", "langchain-anthropic", "pydantic-ai", "litellm",
]
NODE_SDKS = ["openai-js", "anthropic-js", "ai-sdk", "ai-sdk-responses", "ai-sdk-anthropic", "langchain-js"]
# Those that speak messages; the others speak chat completions or Responses.
ANTHROPIC = {"claude-code", "anthropic", "langchain-anthropic", "anthropic-js", "ai-sdk-anthropic"}
TASK = "Run the shell command `echo from-the-tool` and say what the provider says."


def environment(home, **more):
    """A process's environment: nothing of the operator's own settings and keys."""
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")}
    path = f"{TOOLS}/node/bin:{TOOLS}/node_modules/.bin:{os.environ['PATH']}"
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return {**kept, **loopback, "PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": f"{home}/.config", "CI": "true", **more}


def snippet(name, base, model):
    """The block of the page "clients" behind its mark, for this base URL and model."""
    block = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```\n", PAGE, re.DOTALL)
    if not block:
        raise KeyError(f"the page has no snippet {name}")
    return re.sub(r"\bMODEL\b", model, block[1].replace("http://127.0.0.1:8080", base))


def exports(name, base, model):
    """The variables that a snippet for the shell sets."""
    lines = [shlex.split(line, comments=True) for line in snippet(name, base, model).splitlines()]
    return dict(word.split("=", 1) for words in lines if words[:1] == ["export"] for word in words[1:])


# The agents as their users set them up; besides that, only how often and how long they try, so that a run has an end.


def claude_code(base, model, home):
    more = {"CLAUDE_CONFIG_DIR": f"{home}/claude", "API_TIMEOUT_MS": "6000", "CLAUDE_CODE_MAX_RETRIES": "2", "DISABLE_AUTOUPDATER": "1"}
    env = environment(home, **exports("claude-code", base, model), **more)
    return ["claude", "-p", TASK, "--allowedTools", "Bash(echo:*)", "--max-turns", "4"], env


def codex(base, model, home):
    (home / "codex").mkdir()
    tries = "request_max_retries = 2\nstream_max_retries = 2\nstream_idle_timeout_ms = 6000\n"
    (home / "codex" / "config.toml").write_text(snippet("codex", base, model) + tries)
    env = environment(home, CODEX_HOME=str(home / "codex"), POINTSMAN_KEY="key")
    return ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK], env


def opencode(base, model, home):
    config = json.loads(snippet("opencode", base, model))
    config["provider"]["pointsman"]["options"]["timeout"] = 6000
    config |= {"autoupdate": False, "share": "disabled"}
    env = environment(home, OPENCODE_CONFIG_CONTENT=json.dumps(config), OPENCODE_DISABLE_MODELS_FETCH="1")
    return ["opencode", "run", TASK], env


def aider(base, model, home):
    command = shlex.split(snippet("aider", base, model).splitlines()[-1])
    env = environment(home, LITELLM_LOCAL_MODEL_COST_MAP="True", **exports("aider", base, model))
    quiet = ["--yes-always", "--no-git", "--no-show-model-warnings", "--no-check-update", "--no-show-release-notes"]
    quiet += ["--no-pretty", "--no-detect-urls", "--analytics-disable"]
    return [f"{TOOLS}/aider/bin/{command[0]}", *command[1:], *quiet, "--timeout", "6", "--message", "Say hello."], env


AGENTS = {"claude-code": claude_code, "codex": codex, "opencode": opencode, "aider": aider}

# These repeat for longer than a check can take, so they are tried with faults only where they are named.
PERSISTENT = {"opencode", "aider"}


def faults_of(name):
    return ["well"] if name in PERSISTENT and name not in CLIENTS else FAULTS


def run_agent(name, base, fault):
    """One agent in a home of its own; its result in the words of the SDKs' scripts."""
    home = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-"))
    (home / "work").mkdir()
    command, env = AGENTS[name](base, f"{fault}-{name}", home)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, env=env, cwd=home / "work", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_LIMIT_S
        )
        said, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        text = [part.decode(errors="replace") if part else "" for part in (late.stdout, late.stderr)]
        said, errors, code = *text, NO_END
    took = time.monotonic() - begun
    shutil.rmtree(home, ignore_errors=True)
    if SAYS in said or SAYS in errors:
        return {"fault": fault, "took_s": round(took, 2), "says": SAYS}
    words = (said[-300:] + " | " + errors[-300:]).strip()
    return {"fault": fault, "took_s": round(took, 2), "fails": str(code), "words": words}


def run_sdk(name, base, faults):
    """One SDK with all faults at once, in one process."""
    command = [f"{TOOLS}/venv/bin/python", str(HERE / "sdk.py")]
    if name in NODE_SDKS:
        command = [f"{TOOLS}/node/bin/node", str(pathlib.Path(TOOLS) / "sdk.mjs")]
    home = tempfile.mkdtemp(prefix=f"{name}-")
    env = environment(home)
    try:
        done = subprocess.run(
            [*command, name, base, *faults], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
        )
        lines, errors = done.stdout.splitlines(), done.stderr
    except subprocess.TimeoutExpired as late:
        lines, errors = (late.stdout or b"").decode().splitlines(), "no end"
    shutil.rmtree(home, ignore_errors=True)
    results = [json.loads(line) for line in lines if line.startswith("{")]
    found = {result["fault"] for result in results}
    missing = [{"fault": f, "took_s": 180.0, "fails": "no result", "words": errors[-300:]} for f in faults if f not in found]
    return {result["fault"]: result for result in results + missing}


def toml(folder):
    """A configuration: for each client and fault a primary and a fallback of their own, so that what one run meets cools nothing
    that another uses. Everything else is as it is by default."""
    lines = ["[server]", 'listen = "127.0.0.1:0"', "[admin]", 'listen = "127.0.0.1:0"', "[store]", f'path = "{folder}/pointsman.db"']
    plain = [(f"plain-{name.split()[1]}", dialect) for name in SNIPPETS for dialect in ("openai", "anthropic")]
    runs = [(f"{fault}-{name}", "anthropic" if name in ANTHROPIC else "openai") for name in ALL for fault in FAULTS]
    for model, dialect in dict.fromkeys(plain + runs):
        for tier in ("primary", "fallback"):
            lines += ["[[backend]]", f'id = "{model}-{dialect}-{tier}"', f'tier = "{tier}"', f'dialect = "{dialect}"']
            lines += [f'base_url = "{PROVIDER}/proxied/v1"', 'api_key = "provider-key"', f'models = ["{model}"]']
    return "\n".join(lines) + "\n"


def start(command, log, wanted):
    """A process that writes to a file, and what `wanted` finds there once it does."""
    process = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT)
    for _ in range(600):
        found = re.search(wanted, pathlib.Path(log).read_text())
        if found:
            return process, found
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{command[0]} did not start:\n{pathlib.Path(log).read_text()}")


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def recorded(model, attempts):
    """The exchanges of a model and in how many forms it was asked, their time and the part of it that was waited, once the
    record has all their attempts."""
    sums = """SELECT count(*), count(DISTINCT streaming), coalesce(sum(elapsed_ms), 0), coalesce(sum(waited_ms), 0),
        coalesce(sum(attempts), 0) FROM exchanges WHERE model = ?"""
    for _ in range(100):
        with contextlib.closing(sqlite3.connect(f"file:{FOLDER}/pointsman.db?mode=ro", uri=True, timeout=20)) as store:
            exchanges, forms, elapsed, waited, tried = store.execute(sums, [model]).fetchone()
        if tried >= attempts:
            break
        time.sleep(0.1)
    return exchanges, forms, elapsed / 1000, waited / 1000


def judge(name, fault, direct, proxied):
    """Whether the run through the proxy is as good as the direct one; prints both."""
    model = f"{fault}-{name}"
    counts = get(f"{PROVIDER}/counts")
    asked, asked_through = counts.get(f"direct {model}", 0), counts.get(f"proxied {model}", 0)
    exchanges, forms, elapsed, waited = recorded(model, asked_through)
    wrong = []
    if (direct.get("says"), "fails" in direct) != (proxied.get("says"), "fails" in proxied):
        wrong.append(f"another result: direct {direct}, through the proxy {proxied}")
    if fault == "well" and direct.get("says") != SAYS:
        wrong.append(f"the direct run is not well: {direct}")
    most = math.ceil(1.2 * asked)
    if fault in ("limited", "broken", "cut"):
        # The same request in another form is another one, what was exhausted is remembered for a minute, and an answer that had begun
        # was not exhausted.
        begun = exchanges if fault == "cut" else min(exchanges, forms + int(proxied["took_s"] // 60))
        most = max(most, ATTEMPTS * begun + BACKENDS * (exchanges - begun))
    # A silent provider is waited for as long as the client waits; what was ended in the middle would have asked again.
    if asked_through > most and direct.get("fails") != NO_END:
        wrong.append(f"{asked_through} upstream requests, more than {most}")
    if elapsed > direct["took_s"] + waited + SLACK_S:
        wrong.append(f"{elapsed:.1f} s in exchanges, of which {waited:.1f} s were waits")
    through = f"{proxied['took_s']:6.1f} s {asked_through:3} through: {exchanges} exchanges, {elapsed:.1f} s, {waited:.1f} s waited"
    print(f"{'FAILED' if wrong else 'ok    '} {name:20} {fault:8} {direct['took_s']:6.1f} s {asked:3} requests direct, {through}", *wrong, sep="\n    ", flush=True)
    return not wrong


def compare(name):
    """All faults of one client, direct and through the proxy; how many held."""
    faults, bases = faults_of(name), (f"{PROVIDER}/direct", PROXY)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        if name in AGENTS:
            jobs = [(base, fault) for fault in faults for base in bases]
            results = list(pool.map(lambda job: run_agent(name, *job), jobs))
            direct, proxied = (dict(zip(faults, results[way::2])) for way in (0, 1))
        else:
            direct, proxied = pool.map(lambda base: run_sdk(name, base, faults), bases)
    return [judge(name, fault, direct[fault], proxied[fault]) for fault in faults]


def run_snippet(name):
    """A snippet in Python or JavaScript, through the proxy; whether it prints nothing but what the provider says."""
    language, sdk = name.split()
    source, home = snippet(name, PROXY, f"plain-{sdk}"), tempfile.mkdtemp()
    if language == "python":
        command = [f"{TOOLS}/venv/bin/python", "-c", source]
    else:
        script = pathlib.Path(TOOLS) / f"snippet-{sdk}.mjs"
        script.write_text(source)
        command = [f"{TOOLS}/node/bin/node", str(script)]
    done = subprocess.run(command, env=environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    shutil.rmtree(home, ignore_errors=True)
    lines = done.stdout.split("\n")[:-1]
    held = bool(lines) and set(lines) == {SAYS}
    print(f"{'ok    ' if held else 'FAILED'} the page's snippet {name}", *([] if held else [done.stdout, done.stderr[-1000:]]), flush=True)
    return held


def main():
    names = CLIENTS or ALL
    # Runs wait for the providers more than they work, so a few at a time; the slowest come first.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        compared, printed = pool.map(compare, names), pool.map(run_snippet, [] if CLIENTS else SNIPPETS)
        held = [result for results in compared for result in results] + list(printed)
    print(f"{sum(held)} passed, {len(held) - sum(held)} failed")
    return all(held)


TOOLS, BINARY, *CLIENTS = sys.argv[1:]
PAGE = (HERE / "../../host/CLIENTS.md").read_text()
SNIPPETS = re.findall(r"<!-- tested: ((?:python|javascript) \S+) -->", PAGE)
ALL = [*AGENTS, *PYTHON_SDKS, *NODE_SDKS]
with tempfile.TemporaryDirectory() as folder:
    provider, port = start([sys.executable, str(HERE / "provider.py")], f"{folder}/provider.log", r"^(\d+)\n")
    FOLDER, PROVIDER = folder, f"http://127.0.0.1:{port[1]}"
    pathlib.Path(f"{folder}/pointsman.toml").write_text(toml(folder))
    listening = r'"addr":"([^"]*)"'
    proxy, addresses = start([BINARY, "serve", "--config", f"{folder}/pointsman.toml"], f"{folder}/proxy.log", listening)
    PROXY = f"http://{addresses[1]}"
    try:
        held = main()
    finally:
        for process in (proxy, provider):
            process.terminate()
            process.wait(20)
    if not held:
        print("== the end of the proxy's log", *pathlib.Path(f"{folder}/proxy.log").read_text().splitlines()[-30:], sep="\n")
sys.exit(not held)
