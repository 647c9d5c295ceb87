"""Long prompts go where they fit. See README.md."""

import pointsman
from pointsman import exhausted, fallback, note, primary, settings_with, wait

DEFAULTS = {
    "long_tokens": 32000,
    "label": "context",
    "value": "long",
    "model": "",
    "primary_wait_ms": 5000,
    "primary_wait_max_retries": 6,
    "tries_per_backend": 2,
}

#: Another attempt at the same backend cannot come to anything else.
FINAL = ("too_long", "model_missing", "refused")


class LongContext:
    def __init__(self, given, table):
        self.settings = settings_with(DEFAULTS, given)
        self.ids = [backend.id for backend in table.backends]
        label, value = self.settings["label"], self.settings["value"]
        self.roomy = [backend.labels.get(label) == value for backend in table.backends]
        self.pools = {tier: table.pool(tier) for tier in ("primary", "fallback")}
        self.long_model = self._model(table)
        #: Without either, a long prompt is treated like any other.
        self.can_help = any(self.roomy) or self.long_model is not None

    def _model(self, table):
        """The index of the model that long prompts are sent to; None: the one asked for."""
        name = self.settings["model"]
        if not name:
            return None
        model = table.model(name)
        if model is None:
            listed = ", ".join(table.models) or "none"
            raise ValueError(f'no backend lists the model "{name}" of the setting "model"; listed are {listed}')
        self.model_pools = {tier: table.pool(tier, model) for tier in ("primary", "fallback")}
        return model

    def decide(self, query):
        is_long = self.can_help and self._is_long(query)
        if is_long and self.long_model is not None and query.model != self.long_model:
            return self._other_model(query)
        primaries = self._usable(query, "primary", is_long)
        return (
            self._send(query, primaries, primary, is_long)
            or self._hold(query, primaries)
            or self._send(query, self._usable(query, "fallback", is_long), fallback, is_long)
            or exhausted()
        )

    def _is_long(self, query):
        """By the estimate, or because a backend said so."""
        too_long = any(attempt.outcome == "too_long" for attempt in query.attempts)
        return too_long or query.prompt_tokens > self.settings["long_tokens"] or query.model == self.long_model

    def _other_model(self, query):
        """The rows are about the model asked for, so that the choice among the backends of the other one is the host's."""
        note(f"{query.prompt_tokens} tokens are too many: {self.settings['model']} instead")
        lane = primary if self.model_pools["primary"] else fallback
        return lane(model=self.long_model)

    def _usable(self, query, tier, is_long):
        pool = self.pools[tier]
        if is_long and any(self.roomy) and self.long_model is None:
            pool = [backend for backend in pool if self.roomy[backend]]
        if query.first:
            return pool
        ended = {a.backend for a in query.attempts if a.outcome in FINAL and query.model != self.long_model}
        most = self.settings["tries_per_backend"]
        return [backend for backend in pool if backend not in ended and query.tries(backend) < most]

    def _send(self, query, pool, lane, is_long):
        """To the best ready one: not tried yet; roomy ones are kept free for long prompts; then the least loaded."""
        ready = query.ready(pool)
        if not ready:
            return None
        if not query.first:
            ready = [backend for backend in ready if query.tries(backend) == 0] or ready
        if not is_long:
            ready = [backend for backend in ready if not self.roomy[backend]] or ready
        return lane(query.least_loaded(ready))

    def _hold(self, query, pool):
        soonest = query.soonest_ready(pool)
        longest = min(self.settings["primary_wait_ms"], query.remaining_ms)
        if soonest is None or soonest[1] > longest or query.waits >= self.settings["primary_wait_max_retries"]:
            return None
        note(f"wait: {self.ids[soonest[0]]} is ready in {soonest[1]} ms")
        return wait("primary", longest)


WitWorld = pointsman.policy(LongContext)
