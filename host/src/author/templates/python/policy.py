"""{{name}}: the least loaded primary that is ready; a wait while one recovers soon enough; a fallback; the end."""

import pointsman
from pointsman import NONE, exhausted, fallback, note, primary, settings_with, wait

# Tries a backend gets for one request, and waits a request gets.
MAX_TRIES = 3
MAX_WAITS = 8

# `[policy.settings]` of pointsman.toml. Any other key is refused: it may be a slip of the pen.
SETTINGS = {
    # How long a request waits for a primary, all its waits together, in ms.
    "primary_wait_ms": 3000,
}


class Chooser:
    def __init__(self, settings, table):
        self.settings = settings_with(SETTINGS, settings)
        self.primaries = table.pool("primary")
        self.fallbacks = table.pool("fallback")

    def decide(self, query):
        backend = best(query, self.primaries)
        if backend is not None:
            return primary(backend)

        left_ms = max(self.settings["primary_wait_ms"] - query.waited_ms, 0)
        recovers = any(recovers_within(query, b, left_ms) for b in self.primaries)
        if left_ms > 0 and query.waits < MAX_WAITS and recovers:
            return wait("primary", left_ms)

        backend = best(query, self.fallbacks)
        if backend is None:
            return exhausted()
        note(f"no primary recovers within {left_ms} ms")
        return fallback(backend)


def best(query, pool):
    """The least loaded of the ready backends of a pool; None when none is ready."""
    return query.least_loaded([b for b in query.ready(pool) if query.tries(b) < MAX_TRIES])


def recovers_within(query, backend, ms):
    """Will it be ready within this time, as far as anybody knows?"""
    in_time = query.ready_ms(backend) == NONE or query.ready_ms(backend) <= ms
    return query.is_candidate(backend) and in_time and query.tries(backend) < MAX_TRIES


WitWorld = pointsman.policy(Chooser)
