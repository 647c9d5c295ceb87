/* {{name}}: the least loaded primary that is ready; a wait while one recovers soon enough; a fallback; the end. */
#include "pointsman.h"

/* Tries a backend gets for one request, and waits a request gets. */
#define MAX_TRIES 3
#define MAX_WAITS 8

/* How long a request waits for a primary, all its waits together: `primary_wait_ms` of [policy.settings]. */
static uint32_t primary_wait_ms = 3000;
static pm_pool primaries, fallbacks;

/* Any other key of the settings is refused: it may be a slip of the pen. */
bool policy_configure(pm_text settings, const pm_table *table, pm_error *error) {
  pm_setting setting;
  while (pm_next_setting(&settings, &setting)) {
    if (pm_is(setting.key, "primary_wait_ms")) {
      if (!pm_whole(setting.value, 600000, &primary_wait_ms))
        return pm_refuse(error, "`primary_wait_ms` must be a whole number from 0 to 600000");
    } else if (!pm_is(setting.key, "emergency_rpm_fraction")) { /* that one is the host's */
      return pm_refuse(error, "unknown setting `%.*s`; there is primary_wait_ms", (int)setting.key.len, setting.key.ptr);
    }
  }
  primaries = pm_pool_of(table, PM_PRIMARY, PM_NONE);
  fallbacks = pm_pool_of(table, PM_FALLBACK, PM_NONE);
  return true;
}

/* Of the ready backends of a pool the one with the least under way; PM_NONE when none is ready. */
static uint32_t best(const pm_query *query, pm_pool pool) {
  uint32_t found = PM_NONE, least = PM_NONE;
  for (size_t i = 0; i < pool.len; i++) {
    uint32_t backend = pool.backends[i];
    if (!pm_is_ready(query, backend) || pm_tries(query, backend) >= MAX_TRIES) continue;
    uint32_t load = pm_in_flight(query, backend) + pm_failures(query, backend);
    if (load < least) {
      least = load;
      found = backend;
    }
  }
  return found;
}

/* Will one of a pool be ready within this time, as far as anybody knows? */
static bool one_recovers_within(const pm_query *query, pm_pool pool, uint32_t ms) {
  for (size_t i = 0; i < pool.len; i++) {
    uint32_t backend = pool.backends[i], ready_ms = pm_ready_ms(query, backend);
    bool in_time = ready_ms == PM_NONE || ready_ms <= ms;
    if (pm_is_candidate(query, backend) && in_time && pm_tries(query, backend) < MAX_TRIES) return true;
  }
  return false;
}

pm_decision policy_decide(const pm_query *query) {
  uint32_t backend = best(query, primaries);
  if (backend != PM_NONE) return pm_primary(backend);

  uint32_t left_ms = query->waited_ms < primary_wait_ms ? primary_wait_ms - query->waited_ms : 0;
  if (left_ms > 0 && query->waits < MAX_WAITS && one_recovers_within(query, primaries, left_ms))
    return pm_wait(PM_PRIMARY, left_ms);

  backend = best(query, fallbacks);
  if (backend == PM_NONE) return pm_exhausted();
  pm_note("no primary recovers within %u ms", left_ms);
  return pm_fallback(backend);
}
