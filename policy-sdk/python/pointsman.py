"""What a Pointsman policy in Python imports: the query's packed rows behind names, words instead of numbers, and
constructors for decisions.

    import pointsman
    from pointsman import primary, wait

    class FirstReady:
        def __init__(self, settings, table):
            self.primaries = table.pool("primary")

        def decide(self, query):
            ready = query.ready(self.primaries)
            return primary(ready[0]) if ready else wait("primary", 1000)

    WitWorld = pointsman.policy(FirstReady)

A decision is a function of the query and of `state`: time.time() is `query.now_ms`, and `query.dice()` draws from the
query's seed (the module `random` was seeded when the component was built; use it only through `query.dice()`). What an
instance keeps in memory is a cache; any of several instances may be asked.

Backends are meant by their index in `table.backends`, everywhere.
"""

import gc
import json
import random
import traceback

from componentize_py_types import Err
from wit_world.imports import log as _log
from wit_world.imports import request as _request
from wit_world.imports import state as _state
from wit_world.imports import types as _types

#: "Unlimited" or "unknown" where a row has an amount.
NONE = 4294967295

# generated from host/core by its test sdk_lists

#: The words behind a row's `state`, by number.
_STATES = (
    "ready", "throttled", "cooling", "probing", "drained", "unsuited",
)

#: The columns of a row that this file knows, each with what stands for "unknown" where the host does not have it.
_COLUMNS = {
    "state": NONE,
    "cooldown_ms": 0,
    "cooldown_reason": NONE,
    "ready_ms": NONE,
    "requests_left": NONE,
    "tokens_left": NONE,
    "in_flight": 0,
    "concurrency_left": NONE,
    "latency_ms": 0,
    "first_token_ms": 0,
    "error_permille": 0,
    "failures": 0,
    "emergency_ms": NONE,
    "queued": 0,
    "home": 0,
}

# end of what is generated

_LANES = {"primary": _types.Lane.PRIMARY, "fallback": _types.Lane.FALLBACK, "emergency": _types.Lane.EMERGENCY}
_LANE_WORDS = ("primary", "fallback", "emergency")
_DECISIONS = {
    _types.Decision_Primary,
    _types.Decision_Fallback,
    _types.Decision_Emergency,
    _types.Decision_Wait,
    _types.Decision_Reject,
}
_RESUMES = {"none": _types.Resume.NONE, "splice": _types.Resume.SPLICE, "prefill": _types.Resume.PREFILL}


def policy(cls):
    """Makes the two functions of the contract out of a class: `cls(settings, table)` once per instance (an exception
    refuses the configuration with its message), `decide(query)` for every question."""

    class WitWorld:
        def configure(self, settings, raw):
            global _instance, _query
            try:
                table = Table(raw)
                _instance = cls(json.loads(settings), table)
                _query = Query(table)
                # What is there now stays; without it, a collection now and then would look at all of Python.
                gc.freeze()
            except Exception as error:
                raise Err(_message(error)) from None

        def decide(self, raw):
            try:
                answer = _instance.decide(_query._over(raw))
                if type(answer) not in _DECISIONS:
                    raise TypeError(
                        "decide() must return primary(), fallback(), emergency(), wait(), reject() or exhausted(), "
                        f"not {answer!r}"
                    )
                return answer
            except BaseException as error:
                # The last error in the log becomes the message of the fault.
                _log.log(_log.Level.ERROR, _told(error))
                raise

    return WitWorld


_instance = None
_query = None


def _message(error):
    """The words of a refusal: an author's own as they are, anything else with where it happened."""
    return str(error) if isinstance(error, ValueError) else _told(error)


def _told(error):
    """An exception and where it happened, innermost first, on one line."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    calls = " < ".join(f"{f.name} ({f.filename.rpartition('/')[2]}:{f.lineno})" for f in frames)
    return f"{type(error).__name__}: {error}; in {calls}"


class Backend:
    """The unchanging facts of one backend. A limit that is not set is None; `labels` and `attributes` are dicts."""

    __slots__ = (
        "id", "tier", "dialect", "weight", "rpm", "tpm", "max_concurrency", "routes", "any_model", "labels",
        "capabilities", "attributes",
    )  # fmt: skip

    def __init__(self, raw):
        self.id = raw.id
        self.tier = "primary" if raw.tier == _types.Tier.PRIMARY else "fallback"
        self.dialect = raw.dialect
        self.weight = raw.weight
        self.rpm = raw.rpm
        self.tpm = raw.tpm
        self.max_concurrency = raw.max_concurrency
        #: Each has `model` (an index into `table.models`), `sent`, `input_per_mtok`, `output_per_mtok`.
        self.routes = raw.routes
        self.any_model = raw.any_model
        self.labels = dict(raw.labels)
        self.capabilities = raw.capabilities
        self.attributes = dict(raw.attributes)

    def serves(self, model):
        """May it serve this model (an index)?"""
        return self.any_model or any(route.model == model for route in self.routes)


class Table:
    """Everything that rarely changes."""

    def __init__(self, raw):
        self.backends = [Backend(backend) for backend in raw.backends]
        self.models = raw.models
        self.clients = raw.clients
        self.attributes = dict(raw.attributes)
        self.columns = raw.columns
        self.operations = raw.operations
        self.outcomes = raw.outcomes

    def pool(self, tier, model=None):
        """The backends of a tier ("primary" or "fallback") that may serve a model (an index), in the order of the table.
        Without a model: all of the tier; the state of their rows says which serve what was asked for."""
        return [i for i, b in enumerate(self.backends) if b.tier == tier and (model is None or b.serves(model))]

    def model(self, name):
        """The index of a model by its name; None when the table has no such model."""
        return self.models.index(name) if name in self.models else None


class Attempt:
    """One attempt that has ended; `lane` and `outcome` are words ("rate_limited", "too_long", ...)."""

    __slots__ = ("backend", "lane", "outcome", "status", "elapsed_ms", "waits_before")

    def __init__(self, raw, outcomes):
        self.backend = raw.backend
        self.lane = _LANE_WORDS[raw.lane.value]
        self.outcome = outcomes[raw.outcome] if raw.outcome < len(outcomes) else "unknown"
        self.status = raw.status
        self.elapsed_ms = raw.elapsed_ms
        self.waits_before = raw.waits_before


class Query:
    """One question. The same object is used for every question, so nothing may be kept of it.

    A number of a backend's row is read with the method of its name: `query.latency_ms(backend)`; `column` reads any.
    """

    __slots__ = (
        "now_ms", "seed", "first", "model", "operation", "client", "streaming", "priority", "prompt_tokens", "max_tokens",
        "session", "elapsed_ms", "remaining_ms", "_table", "_rows", "_stride", "_told", "_missing", "_at",
        "_state", "_load", "_weights", "_past",
    )  # fmt: skip

    def __init__(self, table):
        self._table = table
        # A column the host does not have is put after those it has, as unknown.
        missing = [name for name in _COLUMNS if name not in table.columns]
        self._told = len(table.columns)
        self._missing = [_COLUMNS[name] for name in missing]
        self._stride = self._told + len(missing)
        self._at = {name: i for i, name in enumerate([*table.columns, *missing])}
        self._state = self._at["state"]
        self._load = tuple(self._at[name] for name in ("in_flight", "error_permille", "failures"))
        self._weights = [backend.weight for backend in table.backends]

    def _over(self, raw):
        #: Milliseconds since 1970-01-01 UTC: the only clock. A random number, new for every question.
        self.now_ms = raw.now_ms
        self.seed = raw.seed
        #: Is this the first question about the exchange?
        self.first = raw.first
        self._rows = self._widened(raw.rows) if self._missing else raw.rows
        self._past = None
        request = raw.request
        #: Index into `table.models`; None when the name is not listed there. `client` likewise.
        self.model = None if request.model == NONE else request.model
        self.client = None if request.client == NONE else request.client
        #: "chat", "completion", "response", "message", "embedding", or another word of the table.
        operations = self._table.operations
        self.operation = operations[request.operation] if request.operation < len(operations) else "unknown"
        self.streaming = request.streaming
        #: -100..100, larger is more urgent.
        self.priority = request.priority
        #: Estimated tokens of the prompt; the most the client lets the answer have (0: did not say).
        self.prompt_tokens = request.prompt_tokens
        self.max_tokens = request.max_tokens
        #: A hash of the client's session; 0: none.
        self.session = request.session
        #: Since arrival, and what is left of the exchange's total time, in ms.
        self.elapsed_ms = request.elapsed_ms
        self.remaining_ms = request.remaining_ms
        return self

    # What came before

    @property
    def attempts(self):
        """The attempts that have ended, oldest first."""
        return self._history()[0]

    @property
    def waits(self):
        """How many waits the exchange has had."""
        return 0 if self.first else self._history()[1]

    @property
    def waited_ms(self):
        """How long they took together."""
        return 0 if self.first else self._history()[2]

    def tries(self, backend):
        """How many attempts this backend has had in the exchange."""
        return 0 if self.first else sum(a.backend == backend for a in self.attempts)

    def _history(self):
        if self._past is None:
            if self.first:
                self._past = ((), 0, 0)
            else:
                past = _request.past()
                outcomes = self._table.outcomes
                self._past = ([Attempt(a, outcomes) for a in past.attempts], past.waits, past.waited_ms)
        return self._past

    # A backend's live numbers

    def column(self, backend, name, unknown=NONE):
        """The number of this name, also of one newer than this file; `unknown` where the host has no such column."""
        at = self._at.get(name, self._told)
        return unknown if at >= self._told else self._rows[backend * self._stride + at]

    def _number(self, backend, name):
        return self._rows[backend * self._stride + self._at[name]]

    def _widened(self, rows):
        starts = range(0, len(rows), self._told)
        return [number for start in starts for number in [*rows[start : start + self._told], *self._missing]]

    def state(self, backend):
        """"ready", "throttled", "cooling", "probing", "drained" or "unsuited"; "unknown" for a newer one."""
        number = self._rows[backend * self._stride + self._state]
        return _STATES[number] if number < len(_STATES) else "unknown"

    def is_ready(self, backend):
        """Would it be sent at once?"""
        return self._rows[backend * self._stride + self._state] == 0

    def is_candidate(self, backend):
        """May it take this request, now or later?"""
        return self._rows[backend * self._stride + self._state] <= 3

    def cooldown_ms(self, backend):
        """Milliseconds left of its cooldown; 0: none."""
        return self._number(backend, "cooldown_ms")

    def cooldown_reason(self, backend):
        """Why it cools, as an outcome's word; "answered" when it does not."""
        number = self._number(backend, "cooldown_reason")
        return self._table.outcomes[number] if number < len(self._table.outcomes) else "unknown"

    def ready_ms(self, backend):
        """Milliseconds until it could take this request; 0 now, NONE unknown."""
        return self._number(backend, "ready_ms")

    def requests_left(self, backend):
        """Requests left before its rpm limit bites; NONE unlimited."""
        return self._number(backend, "requests_left")

    def tokens_left(self, backend):
        """Tokens left before its tpm limit bites; NONE unlimited."""
        return self._number(backend, "tokens_left")

    def concurrency_left(self, backend):
        """Free slots of its concurrency limit; NONE unlimited."""
        return self._number(backend, "concurrency_left")

    def in_flight(self, backend):
        """Attempts under way."""
        return self._number(backend, "in_flight")

    def latency_ms(self, backend):
        """Moving average of the time to the whole answer; 0 unknown."""
        return self._number(backend, "latency_ms")

    def first_token_ms(self, backend):
        """Moving average of the time to the first content; 0 unknown."""
        return self._number(backend, "first_token_ms")

    def error_permille(self, backend):
        """Moving average of the share of failed attempts, in 1/1000."""
        return self._number(backend, "error_permille")

    def failures(self, backend):
        """Failures since the last answer."""
        return self._number(backend, "failures")

    def emergency_ms(self, backend):
        """Milliseconds until the emergency lane may use it; 0 now, NONE never."""
        return self._number(backend, "emergency_ms")

    def queued(self, backend):
        """Exchanges that wait for capacity that it could give."""
        return self._number(backend, "queued")

    def home(self, backend):
        """What the request builds on is here: 0 nothing, 1 its session's prompt cache, 2 things that no other has."""
        return self._number(backend, "home")

    # Choosing among backends

    def ready(self, pool):
        """Those of a pool that would be sent at once."""
        rows, stride, state = self._rows, self._stride, self._state
        return [backend for backend in pool if rows[backend * stride + state] == 0]

    def least_loaded(self, pool):
        """The one with the least under way for its weight, where failures count like load; equal ones by the seed. None
        of an empty pool."""
        if not pool:
            return None
        rows, stride, weights = self._rows, self._stride, self._weights
        in_flight, error_permille, failures = self._load
        start = self.seed % len(pool)
        best, least = None, float("inf")
        for backend in pool[start:] + pool[:start]:
            row = backend * stride
            trouble = 100 + rows[row + error_permille] + 100 * rows[row + failures]
            cost = (rows[row + in_flight] + 1) * trouble / weights[backend]
            if cost < least:
                best, least = backend, cost
        return best

    def draw(self, pool, weight_of=None):
        """One of a pool at random, by weight; None of an empty pool or where all weights are 0."""
        if weight_of is None:
            backends = self._table.backends
            weights = [backends[backend].weight for backend in pool]
        else:
            weights = [weight_of(backend) for backend in pool]
        if sum(weights) <= 0:
            return None
        return self.dice().choices(pool, weights)[0]

    def soonest_ready(self, pool):
        """The one that will be ready first, and in how many ms; None where none says when."""
        known = [(self.ready_ms(b), b) for b in pool if self.is_candidate(b)]
        ms, backend = min(known, default=(NONE, None))
        return None if ms == NONE else (backend, ms)

    def dice(self):
        """A `random.Random` of this question's seed."""
        return random.Random(self.seed)


# Decisions


def primary(backend=None, **options):
    """Send to this backend (None: the host's choice within the lane). Options, each as configured when left out:
    `model` (an index: ask for that one from now on), `first_byte_ms`, `first_token_ms`, `idle_ms`, `total_ms`, `commit`
    ("headers", "first-content", "complete", or a number of tokens), `resume` ("none", "splice", "prefill")."""
    return _types.Decision_Primary(_dispatch(backend, **options))


def fallback(backend=None, **options):
    """The same, to a fallback backend."""
    return _types.Decision_Fallback(_dispatch(backend, **options))


def emergency(backend=None, **options):
    """The same, to any backend, under the emergency rate."""
    return _types.Decision_Emergency(_dispatch(backend, **options))


def wait(lane, max_ms):
    """Wait for capacity in a lane, at most so long; the host wakes the exchange as soon as there is some."""
    return _types.Decision_Wait(_types.Hold(max_ms, _LANES[lane]))


def reject(status=0, kind="", message="", retry_after_ms=None):
    """Refuse the request. `status` 400..599, `kind` and `message` are what the client reads."""
    return _types.Decision_Reject(_types.Rejection(status, kind, message, retry_after_ms))


def exhausted():
    """Refuse with 503 in the host's own words."""
    return reject()


def _dispatch(
    backend, model=None, first_byte_ms=None, first_token_ms=None, idle_ms=None, total_ms=None, commit=None, resume=None
):
    if backend is not None and not (isinstance(backend, int) and backend >= 0):
        raise TypeError(f"a backend is named by its index in the table, not by {backend!r}")
    gate = None if commit is None else _commit(commit)
    then = None if resume is None else _RESUMES[resume]
    return _types.Dispatch(backend, model, first_byte_ms, first_token_ms, idle_ms, total_ms, gate, then)


def _commit(gate):
    if isinstance(gate, int):
        return _types.Commit_Tokens(gate)
    return {
        "headers": _types.Commit_Headers,
        "first-content": _types.Commit_FirstContent,
        "complete": _types.Commit_Complete,
    }[gate]()


# Settings


def settings_with(defaults, given):
    """The settings with defaults filled in. An unknown key, or a value of another type than its default, is an error
    that names it. `emergency_rpm_fraction` is the host's and always allowed."""
    for key, value in given.items():
        if key == "emergency_rpm_fraction":
            continue
        if key not in defaults:
            raise ValueError(f'unknown setting "{key}"; there are {", ".join(sorted(defaults))}')
        wanted = type(defaults[key])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f'the setting "{key}" must be {_TYPE_WORDS[wanted]}, not {json.dumps(value)}')
        if wanted in (int, float) and value < 0:
            raise ValueError(f'the setting "{key}" must not be negative, but is {value}')
    return {**defaults, **given}


_TYPE_WORDS = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list", dict: "a table",
}  # fmt: skip

# The host


def note(text):
    """Leaves a line in the explanation of the exchange being decided."""
    _log.note(text)


def log(level, message):
    """Writes to the host's log; `level` is "debug", "info", "warn" or "error"."""
    _log.log(_log.Level[level.upper()], message)


#: The request's texts: `model()`, `path()`, `session()`, `label(name)` (None when absent), and `spending()` with
#: `today_microusd` and `budget_microusd`.
request = _request

#: Small numbers shared by all instances, kept when the policy is swapped: `get(key)` (None when absent),
#: `set(key, value, ttl_ms)`, `add(key, delta, ttl_ms)` answers the sum. A ttl of 0 keeps it until the host needs the room.
state = _state
