// What a Pointsman policy in JavaScript imports: the query's packed rows behind names, words instead of numbers, and
// constructors for decisions.
//
//     import { policy, primary, waitFor } from "./pointsman.js";
//
//     class FirstReady {
//       constructor(settings, table) {
//         this.primaries = table.pool("primary");
//       }
//       decide(query) {
//         const backend = query.ready(this.primaries)[0];
//         return backend === undefined ? waitFor("primary", 1000) : primary(backend);
//       }
//     }
//
//     export const { configure, decide } = policy(FirstReady);
//
// A decision is a function of the query and of `state`: Date.now() is `query.nowMs`; instead of Math.random(), whose state
// lives on from one question to the next, `query.dice()` draws from the query's seed. What an instance keeps
// in memory is a cache; any of several instances may be asked.
//
// Backends are meant by their index in `table.backends`, everywhere.

import hostLog from "pointsman:policy/log@1.0.0";
import hostRequest from "pointsman:policy/request@1.0.0";
import hostState from "pointsman:policy/state@1.0.0";

/// "Unlimited" or "unknown" where a row has an amount.
export const NONE = 4294967295;

// generated from host/core by its test sdk_lists

/// The words behind a row's `state`, by number.
const STATES = [
  "ready", "throttled", "cooling", "probing", "drained", "unsuited",
];

/// The columns of a row that this file knows, each with what stands for "unknown" where the host does not have it.
const COLUMNS = {
  state: NONE,
  cooldown_ms: 0,
  cooldown_reason: NONE,
  ready_ms: NONE,
  requests_left: NONE,
  tokens_left: NONE,
  in_flight: 0,
  concurrency_left: NONE,
  latency_ms: 0,
  first_token_ms: 0,
  error_permille: 0,
  failures: 0,
  emergency_ms: NONE,
  queued: 0,
  home: 0,
};

// end of what is generated

/// Makes the two functions of the contract out of a class: `new Class(settings, table)` once per instance (an exception
/// refuses the configuration with its message), `decide(query)` for every question.
export function policy(Class) {
  let instance = null;
  let query = null;
  return {
    configure(settings, raw) {
      try {
        const table = new Table(raw);
        instance = new Class(JSON.parse(settings), table);
        query = new Query(table);
      } catch (error) {
        throw error instanceof TypeError || error instanceof ReferenceError ? told(error) : (error?.message ?? String(error));
      }
    },
    decide(raw) {
      try {
        return decision(instance.decide(query.over(raw)));
      } catch (error) {
        // The last error in the log becomes the message of the fault.
        hostLog.log("error", told(error));
        throw error;
      }
    },
  };
}

/// What a rule answered; a forgotten `return` is told as that.
function decision(answer) {
  if (typeof answer?.tag === "string") return answer;
  throw new TypeError(
    `decide() must return primary(), fallback(), emergency(), waitFor(), reject() or exhausted(), not ${answer}`,
  );
}

/// An exception and where it happened, on one line.
function told(error) {
  const calls = String(error?.stack ?? "").split("\n").map((line) => line.trim().replace(/^at /, "")).filter(Boolean);
  return calls.length === 0 ? String(error) : `${error}; in ${calls.join(" < ")}`;
}

/// Everything that rarely changes.
export class Table {
  constructor(raw) {
    /// { id, tier, dialect, weight, rpm, tpm, maxConcurrency, routes, anyModel, labels, capabilities, attributes };
    /// `labels` and `attributes` are objects, a limit that is not set is null, a route is
    /// { model, sent, inputPerMtok, outputPerMtok } with `model` an index into `models`.
    this.backends = raw.backends.map((b) => ({
      ...b,
      labels: Object.fromEntries(b.labels),
      attributes: Object.fromEntries(b.attributes),
    }));
    /// Names of the models that can be asked for, and of the client keys.
    this.models = raw.models;
    this.clients = raw.clients;
    this.attributes = Object.fromEntries(raw.attributes);
    this.columns = raw.columns;
    this.operations = raw.operations;
    this.outcomes = raw.outcomes;
  }

  /// The backends of a tier ("primary" or "fallback") that may serve a model (an index), in the order of the table.
  /// Without a model: all of the tier; the state of their rows says which serve what was asked for.
  pool(tier, model = null) {
    const serves = (b) => model === null || b.anyModel || b.routes.some((route) => route.model === model);
    return [...this.backends.keys()].filter((i) => this.backends[i].tier === tier && serves(this.backends[i]));
  }

  /// The index of a model by its name; null when the table has no such model.
  model(name) {
    const index = this.models.indexOf(name);
    return index < 0 ? null : index;
  }
}

/// One question. The same object is used for every question, so nothing may be kept of it.
export class Query {
  constructor(table) {
    // Not private fields: QuickJS reads those at twice the price.
    this._table = table;
    this._rows = [];
    this._request = null;
    this._past = null;
    this._stride = table.columns.length;
    // A column the host does not have is read past the end of all rows, where everything is undefined.
    const place = (name) => (table.columns.includes(name) ? table.columns.indexOf(name) : Infinity);
    this._at = Object.fromEntries(Object.keys(COLUMNS).map((name) => [name, place(name)]));
  }

  over(raw) {
    /// Milliseconds since 1970-01-01 UTC: the only clock.
    this.nowMs = raw.nowMs;
    /// A random number, new for every question. JavaScript's numbers keep its upper 53 bits.
    this.seed = raw.seed;
    /// Is this the first question about the exchange?
    this.first = raw.first;
    this._rows = raw.rows;
    this._request = raw.request;
    this._past = null;
    return this;
  }

  // ---- the request

  /// Index into `table.models`; null when the name is not listed there.
  get model() {
    return index(this._request.model);
  }
  /// "chat", "completion", "response", "message", "embedding", or another word of the table.
  get operation() {
    return this._table.operations[this._request.operation] ?? "unknown";
  }
  /// Index into `table.clients`; null when there is none.
  get client() {
    return index(this._request.client);
  }
  /// Does the client want a stream?
  get streaming() {
    return this._request.streaming;
  }
  /// -100..100, larger is more urgent.
  get priority() {
    return this._request.priority;
  }
  /// Estimated tokens of the prompt.
  get promptTokens() {
    return this._request.promptTokens;
  }
  /// The most tokens the client lets the answer have; 0: did not say.
  get maxTokens() {
    return this._request.maxTokens;
  }
  /// A hash of the client's session; 0: none.
  get session() {
    return this._request.session;
  }
  /// Milliseconds since arrival.
  get elapsedMs() {
    return this._request.elapsedMs;
  }
  /// Milliseconds left of the exchange's total time.
  get remainingMs() {
    return this._request.remainingMs;
  }

  // ---- what came before

  /// The attempts that have ended, oldest first: { backend, lane, outcome, status, elapsedMs, waitsBefore }; `outcome`
  /// is a word: "answered", "rate_limited", "timed_out", "too_long", ...
  get attempts() {
    return this._history().attempts;
  }
  /// How many waits the exchange has had.
  get waits() {
    return this.first ? 0 : this._history().waits;
  }
  /// How long they took together, in ms.
  get waitedMs() {
    return this.first ? 0 : this._history().waitedMs;
  }
  /// How many attempts this backend has had in the exchange.
  tries(backend) {
    return this.first ? 0 : this.attempts.filter((a) => a.backend === backend).length;
  }

  _history() {
    if (this._past === null) {
      this._past = this.first ? { attempts: [], waits: 0, waitedMs: 0 } : hostRequest.past();
      for (const attempt of this._past.attempts) {
        attempt.outcome = this._table.outcomes[attempt.outcome] ?? "unknown";
      }
    }
    return this._past;
  }

  // ---- a backend's live numbers

  /// "ready", "throttled", "cooling", "probing", "drained" or "unsuited"; "unknown" for one newer than this file.
  state(backend) {
    return STATES[this._number(backend, "state")] ?? "unknown";
  }
  /// Would it be sent at once?
  isReady(backend) {
    return this._rows[backend * this._stride + this._at.state] === 0;
  }
  /// May it take this request, now or later?
  isCandidate(backend) {
    return this._number(backend, "state") <= 3;
  }
  /// Milliseconds left of its cooldown; 0: none.
  cooldownMs(backend) {
    return this._number(backend, "cooldown_ms");
  }
  /// Why it cools, as an outcome's word; "answered" when it does not.
  cooldownReason(backend) {
    return this._table.outcomes[this._number(backend, "cooldown_reason")] ?? "unknown";
  }
  /// Milliseconds until it could take this request; 0 now, NONE unknown.
  readyMs(backend) {
    return this._number(backend, "ready_ms");
  }
  /// Requests, tokens and slots left before its limits bite; NONE unlimited.
  requestsLeft(backend) {
    return this._number(backend, "requests_left");
  }
  tokensLeft(backend) {
    return this._number(backend, "tokens_left");
  }
  concurrencyLeft(backend) {
    return this._number(backend, "concurrency_left");
  }
  /// Attempts under way.
  inFlight(backend) {
    return this._number(backend, "in_flight");
  }
  /// Moving averages of the time to the whole answer and to its first content, in ms; 0 unknown.
  latencyMs(backend) {
    return this._number(backend, "latency_ms");
  }
  firstTokenMs(backend) {
    return this._number(backend, "first_token_ms");
  }
  /// Moving average of the share of failed attempts, in 1/1000.
  errorPermille(backend) {
    return this._number(backend, "error_permille");
  }
  /// Failures since the last answer.
  failures(backend) {
    return this._number(backend, "failures");
  }
  /// Milliseconds until the emergency lane may use it; 0 now, NONE never.
  emergencyMs(backend) {
    return this._number(backend, "emergency_ms");
  }
  /// Exchanges that wait for capacity that it could give.
  queued(backend) {
    return this._number(backend, "queued");
  }
  /// What the request builds on is here: 0 nothing, 1 its session's prompt cache, 2 things that no other backend has.
  home(backend) {
    return this._number(backend, "home");
  }
  /// Any column by its name, also one newer than this file; `unknown` where the host has no such column.
  column(backend, name, unknown = NONE) {
    const offset = this._table.columns.indexOf(name);
    return offset < 0 ? unknown : (this._rows[backend * this._stride + offset] ?? unknown);
  }

  _number(backend, name) {
    return this._rows[backend * this._stride + this._at[name]] ?? COLUMNS[name];
  }

  // ---- choosing among backends

  /// Those of a pool that would be sent at once.
  ready(pool) {
    const rows = this._rows;
    const stride = this._stride;
    const state = this._at.state;
    const found = [];
    for (const backend of pool) {
      if (rows[backend * stride + state] === 0) found.push(backend);
    }
    return found;
  }

  /// The one with the least under way for its weight, where failures count like load; equal ones by the seed. Null of
  /// an empty pool.
  leastLoaded(pool) {
    const rows = this._rows;
    const { in_flight, error_permille, failures } = this._at;
    const backends = this._table.backends;
    const length = pool.length;
    const start = length === 0 ? 0 : this.seed % length;
    let best = null;
    let least = Infinity;
    for (let step = 0; step < length; step++) {
      const backend = pool[(start + step) % length];
      const row = backend * this._stride;
      const trouble = 1 + (rows[row + error_permille] ?? 0) / 100 + (rows[row + failures] ?? 0);
      const cost = (((rows[row + in_flight] ?? 0) + 1) * trouble) / backends[backend].weight;
      if (cost < least) {
        least = cost;
        best = backend;
      }
    }
    return best;
  }

  /// One of a pool at random, by weight; null of an empty pool or where all weights are 0.
  draw(pool, weightOf = (backend) => this._table.backends[backend].weight) {
    let total = 0;
    for (const backend of pool) total += weightOf(backend);
    let point = this.dice()() * total;
    let last = null;
    for (const backend of pool) {
      const weight = weightOf(backend);
      if (weight <= 0) continue;
      if (point < weight) return backend;
      point -= weight;
      last = backend;
    }
    return last;
  }

  /// The one that will be ready first, as { backend, ms }; null where none says when.
  soonestReady(pool) {
    let soonest = null;
    for (const backend of pool) {
      const ms = this.readyMs(backend);
      if (ms !== NONE && this.isCandidate(backend) && (soonest === null || ms < soonest.ms)) soonest = { backend, ms };
    }
    return soonest;
  }

  /// A function that gives random numbers in [0, 1), the same for the same seed.
  dice() {
    // Mulberry32 over both halves of the seed.
    let x = (this.seed ^ (this.seed / 4294967296)) | 0;
    return () => {
      x = (x + 0x6d2b79f5) | 0;
      let t = Math.imul(x ^ (x >>> 15), 1 | x);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
}

function index(number) {
  return number === NONE ? null : number;
}

// ---- decisions

/// Send to this backend (null: the host's choice within the lane). Options, each as configured when left out: `model`
/// (an index: ask for that one from now on), `firstByteMs`, `firstTokenMs`, `idleMs`, `totalMs`, `commit` ("headers",
/// "first-content", "complete" or { tokens: 20 }), `resume` ("none", "splice", "prefill").
export function primary(backend = null, options) {
  return { tag: "primary", val: dispatch(backend, options) };
}

/// The same, to a fallback backend.
export function fallback(backend = null, options) {
  return { tag: "fallback", val: dispatch(backend, options) };
}

/// The same, to any backend, under the emergency rate.
export function emergency(backend = null, options) {
  return { tag: "emergency", val: dispatch(backend, options) };
}

/// Wait for capacity in a lane, at most so long; the host wakes the exchange as soon as there is some.
export function waitFor(lane, maxMs) {
  return { tag: "wait", val: { maxMs, lane } };
}

/// Refuse the request. `status` 400..599, `kind` and `message` are what the client reads.
export function reject({ status = 0, kind = "", message = "", retryAfterMs = null } = {}) {
  return { tag: "reject", val: { status, kind, message, retryAfterMs } };
}

/// Refuse with 503 in the host's own words.
export function exhausted() {
  return reject();
}

const AS_CONFIGURED = {
  backend: null,
  model: null,
  firstByteMs: null,
  firstTokenMs: null,
  idleMs: null,
  totalMs: null,
  commit: null,
  resume: null,
};

function dispatch(backend, options) {
  if (backend !== null && !(Number.isInteger(backend) && backend >= 0)) {
    throw new TypeError(`a backend is named by its index in the table, not by ${JSON.stringify(backend)}`);
  }
  const made = { ...AS_CONFIGURED, ...options };
  made.backend = backend;
  const gate = made.commit;
  if (gate !== null) made.commit = typeof gate === "string" ? { tag: gate } : { tag: "tokens", val: gate.tokens };
  return made;
}

// ---- settings

/// The settings with defaults filled in. An unknown key, or a value of another type than its default, is an error that
/// names it. `emergency_rpm_fraction` is the host's and always allowed.
export function settingsWith(defaults, given) {
  for (const [key, value] of Object.entries(given)) {
    if (key === "emergency_rpm_fraction") continue;
    if (!Object.hasOwn(defaults, key)) {
      throw new Error(`unknown setting "${key}"; there are ${Object.keys(defaults).sort().join(", ")}`);
    }
    const wanted = typeOf(defaults[key]);
    if (typeOf(value) !== wanted) {
      throw new Error(`the setting "${key}" must be a ${wanted}, not ${JSON.stringify(value)}`);
    }
    if (wanted === "number" && value < 0) {
      throw new Error(`the setting "${key}" must not be negative, but is ${value}`);
    }
  }
  return { ...defaults, ...given };
}

function typeOf(value) {
  return Array.isArray(value) ? "list" : typeof value;
}

// ---- the host

// QuickJS has no console of its own.
const say = (level) => (...words) => hostLog.log(level, words.map((w) => (typeof w === "string" ? w : show(w))).join(" "));
globalThis.console ??= { debug: say("debug"), log: say("info"), info: say("info"), warn: say("warn"), error: say("error") };

function show(value) {
  return value instanceof Error ? `${value}\n${value.stack}` : (JSON.stringify(value) ?? String(value));
}

/// Leaves a line in the explanation of the exchange being decided.
export function note(text) {
  hostLog.note(text);
}

/// Writes to the host's log; `level` is "debug", "info", "warn" or "error".
export function log(level, message) {
  hostLog.log(level, message);
}

/// The request's texts: `model()`, `path()`, `session()`, `label(name)` (null when absent), and `spending()`:
/// { todayMicrousd, budgetMicrousd }.
export const request = hostRequest;

/// Small numbers shared by all instances, kept when the policy is swapped: `get(key)` (null when absent),
/// `set(key, value, ttlMs)`, `add(key, delta, ttlMs)` answers the sum. A ttl of 0 keeps it until the host needs the room.
export const state = hostState;
