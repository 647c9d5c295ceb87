// {{name}}: the least loaded primary that is ready; a wait while one recovers soon enough; a fallback; the end.

import { NONE, exhausted, fallback, note, policy, primary, settingsWith, waitFor } from "./pointsman.js";

/// Tries a backend gets for one request, and waits a request gets.
const MAX_TRIES = 3;
const MAX_WAITS = 8;

/// `[policy.settings]` of pointsman.toml. Any other key is refused: it may be a slip of the pen.
const SETTINGS = {
  /// How long a request waits for a primary, all its waits together, in ms.
  primary_wait_ms: 3000,
};

class Chooser {
  constructor(settings, table) {
    this.settings = settingsWith(SETTINGS, settings);
    this.primaries = table.pool("primary");
    this.fallbacks = table.pool("fallback");
  }

  decide(query) {
    const backend = best(query, this.primaries);
    if (backend !== null) return primary(backend);

    const leftMs = this.settings.primary_wait_ms - query.waitedMs;
    const recovers = (b) => recoversWithin(query, b, leftMs);
    if (leftMs > 0 && query.waits < MAX_WAITS && this.primaries.some(recovers)) return waitFor("primary", leftMs);

    const paid = best(query, this.fallbacks);
    if (paid === null) return exhausted();
    note(`no primary recovers within ${Math.max(leftMs, 0)} ms`);
    return fallback(paid);
  }
}

/// The least loaded of the ready backends of a pool; null when none is ready.
function best(query, pool) {
  return query.leastLoaded(query.ready(pool).filter((b) => query.tries(b) < MAX_TRIES));
}

/// Will it be ready within this time, as far as anybody knows?
function recoversWithin(query, backend, ms) {
  const inTime = query.readyMs(backend) === NONE || query.readyMs(backend) <= ms;
  return query.isCandidate(backend) && inTime && query.tries(backend) < MAX_TRIES;
}

export const { configure, decide } = policy(Chooser);
