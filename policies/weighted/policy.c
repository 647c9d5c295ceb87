/* Shares the requests among the primaries by weight, smoothly. See README.md. */
#include "pointsman.h"

/* Where the turns are counted, for all instances of all policies of this kind. */
#define TURN "weighted/turn"

static struct {
  uint32_t primary_wait_ms, primary_wait_max_retries, tries_per_backend, sick_failures, sick_permille;
  bool by_seed;
} settings = {5000, 6, 2, 3, 300, false};

static const pm_table *table;
static pm_pool primaries, fallbacks;

static bool read_share(pm_text value, pm_error *error) {
  settings.by_seed = pm_is(value, "seed");
  if (settings.by_seed || pm_is(value, "turn")) return true;
  return pm_refuse(error, "`share` must be \"turn\" or \"seed\", not %.*s", (int)value.len, (char *)value.ptr);
}

static bool read_setting(pm_setting setting, pm_error *error) {
  const struct {
    const char *key;
    uint32_t most, *number;
  } numbers[] = {
    {"primary_wait_ms", 600000, &settings.primary_wait_ms},
    {"primary_wait_max_retries", 1000, &settings.primary_wait_max_retries},
    {"tries_per_backend", 100, &settings.tries_per_backend},
    {"sick_failures", 1000, &settings.sick_failures},
    {"sick_permille", 1000, &settings.sick_permille},
  };
  const char *key = (const char *)setting.key.ptr, *value = (const char *)setting.value.ptr;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (!pm_is(setting.key, numbers[i].key)) continue;
    if (pm_whole(setting.value, numbers[i].most, numbers[i].number)) return true;
    return pm_refuse(error, "`%.*s` must be a whole number from 0 to %u, not %.*s", (int)setting.key.len, key,
                     numbers[i].most, (int)setting.value.len, value);
  }
  if (pm_is(setting.key, "share")) return read_share(setting.value, error);
  if (pm_is(setting.key, "emergency_rpm_fraction")) return true; /* the host's */
  return pm_refuse(error,
                   "unknown setting `%.*s`; there are primary_wait_ms, primary_wait_max_retries, tries_per_backend, "
                   "sick_failures, sick_permille, share",
                   (int)setting.key.len, key);
}

bool policy_configure(pm_text text, const pm_table *given, pm_error *error) {
  pm_setting setting;
  while (pm_next_setting(&text, &setting)) {
    if (!read_setting(setting, error)) return false;
  }
  table = given;
  primaries = pm_pool_of(table, PM_PRIMARY, PM_NONE);
  fallbacks = pm_pool_of(table, PM_FALLBACK, PM_NONE);
  return true;
}

/* Another attempt at the same backend cannot come to anything else. */
static bool is_final(pm_outcome outcome) {
  return outcome == PM_TOO_LONG || outcome == PM_MODEL_MISSING || outcome == PM_REFUSED;
}

static bool may_try(const pm_query *query, uint32_t backend) {
  for (size_t i = 0; i < query->attempt_count; i++) {
    const pm_attempt *attempt = &query->attempts[i];
    if (attempt->backend == backend && is_final(attempt->outcome)) return false;
  }
  return pm_tries(query, backend) < settings.tries_per_backend;
}

static bool is_healthy(const pm_query *query, uint32_t backend) {
  return pm_failures(query, backend) < settings.sick_failures &&
         pm_error_permille(query, backend) < settings.sick_permille;
}

/* How good a ready backend is; 0 it cannot be used. Only those of the best kind share. */
static uint32_t grade(const pm_query *query, uint32_t backend) {
  if (!pm_is_ready(query, backend) || !may_try(query, backend)) return 0;
  return pm_tries(query, backend) == 0 ? 2 : 1;
}

/* A backend's part of its pool: by its weight, and a tenth of that while it is sick. Nothing at all would leave it sick
 * for ever, because only requests can show that it is well. */
static uint64_t part(const pm_query *query, uint32_t backend) {
  uint64_t weight = table->backends.ptr[backend].weight;
  return is_healthy(query, backend) ? 10 * weight : weight;
}

/* A point below `total`. By turn, the points are those of the golden ratio's sequence, which never leaves a gap much
 * larger than another: among a hundred requests, too, each backend has its share within one or two. */
static uint64_t point_below(const pm_query *query, uint64_t total) {
  uint64_t place = query->seed;
  if (!settings.by_seed) place = (uint64_t)pm_state_add(TURN, 1, 0) * 0x9E3779B97F4A7C15u;
  return ((place >> 32) * total) >> 32;
}

static uint32_t share(const pm_query *query, pm_pool pool) {
  uint32_t best = 0;
  uint64_t total = 0;
  for (size_t i = 0; i < pool.len; i++) {
    uint32_t backend = pool.backends[i], kind = grade(query, backend);
    if (kind > best) {
      best = kind;
      total = 0;
    }
    if (kind == best && kind != 0) total += part(query, backend);
  }
  if (best == 0) return PM_NONE;
  uint64_t point = point_below(query, total > UINT32_MAX ? UINT32_MAX : total);
  for (size_t i = 0; i < pool.len; i++) {
    uint32_t backend = pool.backends[i];
    if (grade(query, backend) != best) continue;
    uint64_t here = part(query, backend);
    if (point < here) return backend;
    point -= here;
  }
  return PM_NONE;
}

/* The first of the primaries that may be tried again is ready in so many ms; PM_NONE: nobody says. */
static uint32_t ready_in_ms(const pm_query *query) {
  uint32_t soonest = PM_NONE;
  for (size_t i = 0; i < primaries.len; i++) {
    uint32_t backend = primaries.backends[i], ms = pm_ready_ms(query, backend);
    if (pm_is_candidate(query, backend) && may_try(query, backend) && ms < soonest) soonest = ms;
  }
  return soonest;
}

pm_decision policy_decide(const pm_query *query) {
  uint32_t backend = share(query, primaries);
  if (backend != PM_NONE) return pm_primary(backend);
  uint32_t ms = ready_in_ms(query);
  uint32_t longest = settings.primary_wait_ms < query->remaining_ms ? settings.primary_wait_ms : query->remaining_ms;
  if (ms <= longest && query->waits < settings.primary_wait_max_retries) {
    pm_note("wait: a primary is ready in %u ms", ms);
    return pm_wait(PM_PRIMARY, longest);
  }
  backend = share(query, fallbacks);
  if (backend != PM_NONE) return pm_fallback(backend);
  pm_note("nothing left: no primary to try or to wait for, no fallback");
  return pm_exhausted();
}
