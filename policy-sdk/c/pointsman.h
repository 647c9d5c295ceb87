/* What a Pointsman policy in C includes: the query's packed rows behind names, words as enums, and constructors for
 * decisions. An author writes two functions:
 *
 *     #include "pointsman.h"
 *
 *     static pm_pool primaries;
 *
 *     bool policy_configure(pm_text settings, const pm_table *table, pm_error *error) {
 *       primaries = pm_pool_of(table, PM_PRIMARY, PM_NONE);
 *       return true;
 *     }
 *
 *     pm_decision policy_decide(const pm_query *query) {
 *       uint32_t backend = pm_least_loaded(query, primaries);
 *       return backend == PM_NONE ? pm_wait(PM_PRIMARY, 1000) : pm_primary(backend);
 *     }
 *
 * A decision is a function of the query and of the shared state: time is `query->now_ms`, randomness `query->seed`. What
 * an instance keeps in memory is a cache; any of several instances may be asked.
 *
 * Backends are meant by their index in `table->backends`, everywhere. The types behind the names are those that
 * `wit-bindgen` makes of the contract (contract.h); texts in them are not ended by a NUL. */
#ifndef POINTSMAN_H
#define POINTSMAN_H

#include "contract.h"

/* "Unlimited", "unknown" or "no such thing". */
#define PM_NONE UINT32_MAX

/* Tiers are the first two lanes. */
typedef enum { PM_PRIMARY, PM_FALLBACK, PM_EMERGENCY } pm_lane;

/* `ptr`, `len` */
typedef contract_string_t pm_text;
/* `id`, `tier`, `dialect`, `weight`, `rpm`, `tpm`, `max_concurrency`, `routes`, `any_model`, `labels`, `capabilities` */
typedef pointsman_policy_types_backend_t pm_backend;
/* `backends.ptr[i]`, `backends.len`, `models`, `clients`, `columns`; it lives as long as the instance. */
typedef contract_table_t pm_table;
typedef contract_decision_t pm_decision;

/* generated from host/core by its test sdk_lists */

/* What `pm_state` answers; a larger number is newer than this file. */
enum {
  PM_READY, PM_THROTTLED, PM_COOLING, PM_PROBING, PM_DRAINED, PM_UNSUITED,
};

typedef enum {
  PM_ANSWERED, PM_RATE_LIMITED, PM_OUT_OF_CREDIT, PM_OVERLOADED, PM_SERVER_ERROR, PM_REFUSED, PM_TOO_LONG,
  PM_MODEL_MISSING, PM_UNAUTHORISED, PM_CONNECT_FAILED, PM_RESET, PM_TIMED_OUT, PM_CUT, PM_STALLED, PM_MALFORMED,
  PM_CLIENT_GONE, PM_NOT_RESUMED, PM_OUTCOME_UNKNOWN,
} pm_outcome;

typedef enum {
  PM_CHAT, PM_COMPLETION, PM_RESPONSE, PM_MESSAGE, PM_EMBEDDING, PM_OTHER, PM_COUNT_TOKENS, PM_INPUT_TOKENS, PM_IMAGE,
  PM_AUDIO, PM_MODERATION, PM_RERANK, PM_STORED, PM_ANTHROPIC_OTHER, PM_PLAIN, PM_OPERATION_UNKNOWN,
} pm_operation;

/* The columns of a row that this file knows. */
typedef enum {
  PM_COL_STATE, PM_COL_COOLDOWN_MS, PM_COL_COOLDOWN_REASON, PM_COL_READY_MS, PM_COL_REQUESTS_LEFT, PM_COL_TOKENS_LEFT,
  PM_COL_IN_FLIGHT, PM_COL_CONCURRENCY_LEFT, PM_COL_LATENCY_MS, PM_COL_FIRST_TOKEN_MS, PM_COL_ERROR_PERMILLE,
  PM_COL_FAILURES, PM_COL_EMERGENCY_MS, PM_COL_QUEUED, PM_COL_HOME, PM_COLUMNS,
} pm_column;

/* What stands for "unknown" where the host has no such column. */
#define PM_COL_STATE_UNKNOWN PM_NONE
#define PM_COL_COOLDOWN_MS_UNKNOWN 0
#define PM_COL_COOLDOWN_REASON_UNKNOWN PM_NONE
#define PM_COL_READY_MS_UNKNOWN PM_NONE
#define PM_COL_REQUESTS_LEFT_UNKNOWN PM_NONE
#define PM_COL_TOKENS_LEFT_UNKNOWN PM_NONE
#define PM_COL_IN_FLIGHT_UNKNOWN 0
#define PM_COL_CONCURRENCY_LEFT_UNKNOWN PM_NONE
#define PM_COL_LATENCY_MS_UNKNOWN 0
#define PM_COL_FIRST_TOKEN_MS_UNKNOWN 0
#define PM_COL_ERROR_PERMILLE_UNKNOWN 0
#define PM_COL_FAILURES_UNKNOWN 0
#define PM_COL_EMERGENCY_MS_UNKNOWN PM_NONE
#define PM_COL_QUEUED_UNKNOWN 0
#define PM_COL_HOME_UNKNOWN 0

/* end of what is generated */

/* One attempt of the exchange that has ended. */
typedef struct {
  uint32_t backend;
  pm_lane lane;
  pm_outcome outcome;
  uint32_t status; /* 0: none */
  uint32_t elapsed_ms;
  uint32_t waits_before;
} pm_attempt;

/* One question. */
typedef struct {
  uint64_t now_ms; /* since 1970-01-01 UTC: the only clock */
  uint64_t seed;   /* new for every question: the only randomness */
  bool first;      /* the first question about this exchange? */
  uint32_t model;  /* index into `table->models`; PM_NONE when the name is not listed there */
  pm_operation operation;
  uint32_t client; /* index into `table->clients`; PM_NONE when there is none */
  bool streaming;
  int32_t priority; /* -100..100, larger is more urgent */
  uint32_t prompt_tokens;
  uint32_t max_tokens; /* 0: the client did not say */
  uint64_t session;    /* a hash; 0: none */
  uint32_t elapsed_ms, remaining_ms;
  const pm_attempt *attempts; /* oldest first */
  size_t attempt_count;
  uint32_t waits, waited_ms;
  const uint32_t *rows; /* read them with the functions below */
} pm_query;

/* ---- a backend's live numbers */

/* Where in a row each column is, worked out before `policy_configure`; PM_NONE where the host has no such column. */
extern uint32_t pm_offsets[PM_COLUMNS];
extern uint32_t pm_stride;

static inline uint32_t pm_number(const pm_query *query, uint32_t backend, pm_column column, uint32_t unknown) {
  uint32_t offset = pm_offsets[column];
  return offset == PM_NONE ? unknown : query->rows[backend * pm_stride + offset];
}

#define PM_NUMBER(name, column)                                               \
  static inline uint32_t pm_##name(const pm_query *query, uint32_t backend) { \
    return pm_number(query, backend, column, column##_UNKNOWN);               \
  }
/* PM_READY, ... */
PM_NUMBER(state, PM_COL_STATE)
/* Left of its cooldown; 0 none. */
PM_NUMBER(cooldown_ms, PM_COL_COOLDOWN_MS)
/* Until it could take this request; 0 now, PM_NONE unknown. */
PM_NUMBER(ready_ms, PM_COL_READY_MS)
/* Before its limits bite; PM_NONE unlimited. */
PM_NUMBER(requests_left, PM_COL_REQUESTS_LEFT)
PM_NUMBER(tokens_left, PM_COL_TOKENS_LEFT)
PM_NUMBER(concurrency_left, PM_COL_CONCURRENCY_LEFT)
/* Attempts under way. */
PM_NUMBER(in_flight, PM_COL_IN_FLIGHT)
/* Moving averages; 0 unknown. */
PM_NUMBER(latency_ms, PM_COL_LATENCY_MS)
PM_NUMBER(first_token_ms, PM_COL_FIRST_TOKEN_MS)
/* Moving average of the share of failed attempts, in 1/1000; failures since the last answer. */
PM_NUMBER(error_permille, PM_COL_ERROR_PERMILLE)
PM_NUMBER(failures, PM_COL_FAILURES)
/* Until the emergency lane may use it; 0 now, PM_NONE never. */
PM_NUMBER(emergency_ms, PM_COL_EMERGENCY_MS)
/* Exchanges that wait for capacity that it could give. */
PM_NUMBER(queued, PM_COL_QUEUED)
/* What the request builds on is here: 0 nothing, 1 its session's prompt cache, 2 things that no other backend has. */
PM_NUMBER(home, PM_COL_HOME)
#undef PM_NUMBER

/* Why it cools; PM_ANSWERED when it does not. */
pm_outcome pm_cooldown_reason(const pm_query *query, uint32_t backend);

/* Would it be sent at once? */
static inline bool pm_is_ready(const pm_query *query, uint32_t backend) { return pm_state(query, backend) == PM_READY; }

/* May it take this request, now or later? */
static inline bool pm_is_candidate(const pm_query *query, uint32_t backend) {
  return pm_state(query, backend) <= PM_PROBING;
}

/* How many attempts this backend has had in the exchange. */
uint32_t pm_tries(const pm_query *query, uint32_t backend);

/* ---- choosing among backends */

typedef struct {
  const uint32_t *backends;
  size_t len;
} pm_pool;

/* The backends of a tier that may serve a model, in the order of the table; PM_NONE: all of the tier, whose rows say
 * which serve what was asked for. Made once, in `policy_configure`. */
pm_pool pm_pool_of(const pm_table *table, pm_lane tier, uint32_t model);

/* Of the ready ones of a pool the one with the least under way for its weight, where failures count like load; equal
 * ones by the seed. PM_NONE when none is ready. */
uint32_t pm_least_loaded(const pm_query *query, pm_pool pool);

/* One of the ready ones of a pool, at random by weight. PM_NONE when none is ready. */
uint32_t pm_draw(const pm_query *query, pm_pool pool);

/* The one of a pool that will be ready first, and in how many ms. PM_NONE when none says when. */
uint32_t pm_soonest_ready(const pm_query *query, pm_pool pool, uint32_t *ms);

/* The next random number below `bound`; `dice` starts as the query's seed (SplitMix64). */
uint32_t pm_below(uint64_t *dice, uint32_t bound);

/* ---- decisions */

/* Send to this backend; PM_NONE: the host's choice within the lane. Everything else is as configured; the fields of
 * `.val.primary` (the same for every lane) can be set afterwards. */
pm_decision pm_dispatch(pm_lane lane, uint32_t backend);
static inline pm_decision pm_primary(uint32_t backend) { return pm_dispatch(PM_PRIMARY, backend); }
static inline pm_decision pm_fallback(uint32_t backend) { return pm_dispatch(PM_FALLBACK, backend); }
static inline pm_decision pm_emergency(uint32_t backend) { return pm_dispatch(PM_EMERGENCY, backend); }
/* The same dispatch, but for this model of the table from now on. */
pm_decision pm_with_model(pm_decision dispatch, uint32_t model);
/* Wait for capacity in a lane; the host wakes the exchange as soon as there is some. */
pm_decision pm_wait(pm_lane lane, uint32_t max_ms);
/* Refuse: `status` 400..599; the texts, which end with NUL, are copied. `retry_after_ms` PM_NONE: not said. */
pm_decision pm_reject(uint32_t status, const char *kind, const char *message, uint32_t retry_after_ms);
/* Refuse with 503 in the host's own words. */
pm_decision pm_exhausted(void);

/* ---- settings: a JSON object, member by member */

typedef struct {
  pm_text key;
  pm_text value; /* as it is written in the JSON; a text without its quotes */
} pm_setting;

/* The next member; `settings` is moved on. False at the end. */
bool pm_next_setting(pm_text *settings, pm_setting *setting);

/* The text is the same as this one, which ends with NUL? */
bool pm_is(pm_text text, const char *other);
/* Reads a whole number from 0 to `most`; false when it is none. */
bool pm_whole(pm_text text, uint32_t most, uint32_t *number);

/* Why a configuration is refused. */
typedef struct {
  char text[400];
} pm_error;

/* Fills the error in, like printf, and is false: `return pm_refuse(error, ...)`. Known are %s, %.*s, %u, %d and %%. */
__attribute__((format(printf, 2, 3))) bool pm_refuse(pm_error *error, const char *format, ...);

/* ---- the host */

/* Leaves a line in the explanation of the exchange being decided. */
__attribute__((format(printf, 1, 2))) void pm_note(const char *format, ...);

typedef enum { PM_DEBUG, PM_INFO, PM_WARN, PM_ERROR } pm_level;
/* Writes to the host's log. */
__attribute__((format(printf, 2, 3))) void pm_log(pm_level level, const char *format, ...);

/* Gives up: the words go to the log, the exchange is decided by the default policy, the instance is gone. */
__attribute__((format(printf, 1, 2))) _Noreturn void pm_fail(const char *format, ...);

/* The request's texts, to be given back with pm_free; those that answer false are absent. */
pm_text pm_request_model(void);
pm_text pm_request_path(void);
bool pm_request_session(pm_text *session);
bool pm_request_label(const char *name, pm_text *value);
void pm_free(pm_text text);

/* The client key's money today, in millionths of a USD; `budget` UINT64_MAX: no limit. */
void pm_spending(uint64_t *today, uint64_t *budget);

/* Small numbers shared by all instances, kept when the policy is swapped; `ttl_ms` 0: until the host needs the room. */
bool pm_state_get(const char *key, int64_t *value);
void pm_state_set(const char *key, int64_t value, uint64_t ttl_ms);
int64_t pm_state_add(const char *key, int64_t delta, uint64_t ttl_ms);

/* ---- what the author writes */

bool policy_configure(pm_text settings, const pm_table *table, pm_error *error);
pm_decision policy_decide(const pm_query *query);

#endif
