// Sends a request to the backends that match its labels, `x-pointsman-label-NAME: VALUE`. See README.md.

import { exhausted, fallback, note, policy, primary, reject, request, settingsWith, waitFor } from "./pointsman.js";

const DEFAULTS = {
  must: [],
  prefer: ["region"],
  primary_wait_ms: 5000,
  primary_wait_max_retries: 6,
  tries_per_backend: 2,
};

/// Another attempt at the same backend cannot come to anything else.
const FINAL = ["too_long", "model_missing", "refused"];

class ByLabel {
  constructor(given, table) {
    this.settings = settingsWith(DEFAULTS, given);
    this.must = this.settings.must.map(rule);
    this.prefer = this.settings.prefer.map(rule);
    this.ids = table.backends.map((backend) => backend.id);
    // A backend's label may have several values: region = "eu,us".
    this.labels = table.backends.map(({ labels }) => {
      const values = Object.entries(labels).map(([name, text]) => [name, text.split(",").map((v) => v.trim())]);
      return Object.fromEntries(values);
    });
    this.primaries = table.pool("primary");
    this.fallbacks = table.pool("fallback");
  }

  decide(query) {
    const must = wanted(this.must);
    const allowed = (backend) => this.matches(backend, must) && this.mayTry(query, backend);
    const primaries = must.length === 0 && query.first ? this.primaries : this.primaries.filter(allowed);
    const fallbacks = () => this.fallbacks.filter(allowed);
    return (
      this.send(query, primaries, primary) ??
      this.hold(query, primaries) ??
      this.send(query, fallbacks(), fallback) ??
      this.giveUp(must)
    );
  }

  /// To the best ready one: not tried yet, then preferred, then least loaded.
  send(query, pool, lane) {
    let ready = query.ready(pool);
    if (ready.length === 0) return null;
    if (!query.first) ready = orAll(ready, (backend) => query.tries(backend) === 0);
    const prefer = wanted(this.prefer);
    if (prefer.length > 0) ready = orAll(ready, (backend) => this.matches(backend, prefer));
    return lane(query.leastLoaded(ready));
  }

  hold(query, pool) {
    const { primary_wait_ms, primary_wait_max_retries } = this.settings;
    const soonest = query.soonestReady(pool);
    const longest = Math.min(primary_wait_ms, query.remainingMs);
    if (soonest === null || soonest.ms > longest || query.waits >= primary_wait_max_retries) return null;
    note(`wait: ${this.ids[soonest.backend]} is ready in ${soonest.ms} ms`);
    return waitFor("primary", longest);
  }

  /// A label that no backend has at all is the client's mistake, or the operator's; anything else is want of capacity.
  giveUp(must) {
    const serves = (backend) => this.matches(backend, must);
    if (this.primaries.some(serves) || this.fallbacks.some(serves)) return exhausted();
    const labels = must.map(({ name, value }) => `${name}=${value}`).join(", ");
    return reject({ status: 400, kind: "no_backend_for_label", message: `No backend may serve ${labels}.` });
  }

  matches(backend, labels) {
    return labels.every(({ name, value }) => this.labels[backend][name]?.includes(value));
  }

  mayTry(query, backend) {
    if (query.first) return true;
    const tries = query.attempts.filter((attempt) => attempt.backend === backend);
    return tries.length < this.settings.tries_per_backend && !tries.some(({ outcome }) => FINAL.includes(outcome));
  }
}

/// "region" holds for every value of the label, "region=eu" only for that one.
function rule(text) {
  if (typeof text !== "string" || !/^[^=\s]+(=[^=]*)?$/.test(text)) {
    throw new Error(`a rule is "NAME" or "NAME=VALUE", not ${JSON.stringify(text)}`);
  }
  const [name, only = null] = text.split("=");
  return { name, only };
}

/// What this request's labels ask for by these rules.
function wanted(rules) {
  const found = [];
  for (const { name, only } of rules) {
    const value = request.label(name);
    if (value !== null && (only === null || only === value)) found.push({ name, value });
  }
  return found;
}

/// Those of a list that fit; all when none does.
function orAll(list, fits) {
  const some = list.filter(fits);
  return some.length === 0 ? list : some;
}

export const { configure, decide } = policy(ByLabel);
