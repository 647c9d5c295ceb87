/* See pointsman.h. */
#include "pointsman.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

uint32_t pm_offsets[PM_COLUMNS];
uint32_t pm_stride;

static pm_table table;
static pm_outcome *outcomes;
static pm_operation *operations;
static pm_attempt *attempts;
static size_t attempts_room;

/* generated from host/core by its test sdk_lists */

static const char *const COLUMNS[PM_COLUMNS] = {
  "state", "cooldown_ms", "cooldown_reason", "ready_ms", "requests_left", "tokens_left", "in_flight",
  "concurrency_left", "latency_ms", "first_token_ms", "error_permille", "failures", "emergency_ms", "queued", "home",
};
static const char *const OUTCOMES[PM_OUTCOME_UNKNOWN] = {
  "answered", "rate_limited", "out_of_credit", "overloaded", "server_error", "refused", "too_long", "model_missing",
  "unauthorised", "connect_failed", "reset", "timed_out", "cut", "stalled", "malformed", "client_gone", "not_resumed",
};
static const char *const OPERATIONS[PM_OPERATION_UNKNOWN] = {
  "chat", "completion", "response", "message", "embedding", "other", "count_tokens", "input_tokens", "image", "audio",
  "moderation", "rerank", "stored", "anthropic_other", "plain",
};

/* end of what is generated */

/* The bindings ask for the object file that describes the contract; `pointsman policy build` adds that by itself. */
void __component_type_object_force_link_contract(void) {}

/* ---- the exports */

static void *allocate(size_t size) {
  void *block = malloc(size ? size : 1);
  if (!block) pm_fail("out of memory");
  return block;
}

/* The place of a word in a list of known ones; `count` when it is not there. */
static uint32_t word(pm_text text, const char *const *words, uint32_t count) {
  uint32_t i = 0;
  while (i < count && !pm_is(text, words[i])) i++;
  return i;
}

static void learn_columns(void) {
  pm_stride = table.columns.len;
  for (uint32_t c = 0; c < PM_COLUMNS; c++) pm_offsets[c] = PM_NONE;
  for (uint32_t i = 0; i < table.columns.len; i++) {
    uint32_t known = word(table.columns.ptr[i], COLUMNS, PM_COLUMNS);
    if (known < PM_COLUMNS) pm_offsets[known] = i;
  }
}

static void learn_words(void) {
  outcomes = allocate(table.outcomes.len * sizeof *outcomes);
  for (size_t i = 0; i < table.outcomes.len; i++) {
    outcomes[i] = word(table.outcomes.ptr[i], OUTCOMES, PM_OUTCOME_UNKNOWN);
  }
  operations = allocate(table.operations.len * sizeof *operations);
  for (size_t i = 0; i < table.operations.len; i++) {
    operations[i] = word(table.operations.ptr[i], OPERATIONS, PM_OPERATION_UNKNOWN);
  }
}

bool exports_contract_configure(contract_string_t *settings, contract_table_t *given, contract_string_t *err) {
  pm_error error = {""};
  table = *given;
  learn_columns();
  learn_words();
  bool accepted = policy_configure(*settings, &table, &error);
  contract_string_free(settings);
  if (!accepted) contract_string_dup(err, error.text);
  return accepted;
}

static pm_outcome outcome(uint32_t index) {
  return index < table.outcomes.len ? outcomes[index] : PM_OUTCOME_UNKNOWN;
}

static void read_past(pm_query *query) {
  pointsman_policy_types_past_facts_t past;
  pointsman_policy_request_past(&past);
  if (past.attempts.len > attempts_room) {
    free(attempts);
    attempts_room = past.attempts.len;
    attempts = allocate(attempts_room * sizeof *attempts);
  }
  for (size_t i = 0; i < past.attempts.len; i++) {
    pointsman_policy_types_attempt_t *a = &past.attempts.ptr[i];
    attempts[i] = (pm_attempt){a->backend, a->lane, outcome(a->outcome), a->status, a->elapsed_ms, a->waits_before};
  }
  query->attempts = attempts;
  query->attempt_count = past.attempts.len;
  query->waits = past.waits;
  query->waited_ms = past.waited_ms;
  pointsman_policy_types_past_facts_free(&past);
}

void exports_contract_decide(contract_query_t *raw, contract_decision_t *ret) {
  const pointsman_policy_types_request_facts_t *r = &raw->request;
  pm_query query = {
    .now_ms = raw->now_ms,
    .seed = raw->seed,
    .first = raw->first,
    .model = r->model,
    .operation = r->operation < table.operations.len ? operations[r->operation] : PM_OPERATION_UNKNOWN,
    .client = r->client,
    .streaming = r->streaming,
    .priority = r->priority,
    .prompt_tokens = r->prompt_tokens,
    .max_tokens = r->max_tokens,
    .session = r->session,
    .elapsed_ms = r->elapsed_ms,
    .remaining_ms = r->remaining_ms,
    .rows = raw->rows.ptr,
  };
  if (!raw->first) read_past(&query);
  *ret = policy_decide(&query);
  contract_query_free(raw);
}

/* ---- choosing among backends */

pm_outcome pm_cooldown_reason(const pm_query *query, uint32_t backend) {
  return outcome(pm_number(query, backend, PM_COL_COOLDOWN_REASON, PM_COL_COOLDOWN_REASON_UNKNOWN));
}

uint32_t pm_tries(const pm_query *query, uint32_t backend) {
  uint32_t tries = 0;
  for (size_t i = 0; i < query->attempt_count; i++) tries += query->attempts[i].backend == backend;
  return tries;
}

static bool serves(const pm_backend *backend, uint32_t model) {
  if (model == PM_NONE || backend->any_model) return true;
  for (size_t i = 0; i < backend->routes.len; i++) {
    if (backend->routes.ptr[i].model == model) return true;
  }
  return false;
}

pm_pool pm_pool_of(const pm_table *of, pm_lane tier, uint32_t model) {
  uint32_t *backends = allocate(of->backends.len * sizeof *backends);
  size_t len = 0;
  for (uint32_t i = 0; i < of->backends.len; i++) {
    const pm_backend *backend = &of->backends.ptr[i];
    if ((pm_lane)backend->tier == tier && serves(backend, model)) backends[len++] = i;
  }
  return (pm_pool){backends, len};
}

uint32_t pm_least_loaded(const pm_query *query, pm_pool pool) {
  uint32_t best = PM_NONE;
  uint64_t least = UINT64_MAX;
  size_t start = pool.len ? query->seed % pool.len : 0;
  for (size_t step = 0; step < pool.len; step++) {
    size_t place = start + step;
    uint32_t backend = pool.backends[place < pool.len ? place : place - pool.len];
    if (!pm_is_ready(query, backend)) continue;
    uint64_t trouble =
      1000 + (uint64_t)pm_error_permille(query, backend) * 10 + (uint64_t)pm_failures(query, backend) * 1000;
    uint64_t cost = (pm_in_flight(query, backend) + 1) * trouble / table.backends.ptr[backend].weight;
    if (cost < least) {
      least = cost;
      best = backend;
    }
  }
  return best;
}

uint32_t pm_draw(const pm_query *query, pm_pool pool) {
  uint64_t total = 0;
  for (size_t i = 0; i < pool.len; i++) {
    if (pm_is_ready(query, pool.backends[i])) total += table.backends.ptr[pool.backends[i]].weight;
  }
  uint64_t dice = query->seed;
  uint64_t point = pm_below(&dice, total > UINT32_MAX ? UINT32_MAX : (uint32_t)total);
  for (size_t i = 0; i < pool.len; i++) {
    if (!pm_is_ready(query, pool.backends[i])) continue;
    uint32_t weight = table.backends.ptr[pool.backends[i]].weight;
    if (point < weight) return pool.backends[i];
    point -= weight;
  }
  return PM_NONE;
}

uint32_t pm_soonest_ready(const pm_query *query, pm_pool pool, uint32_t *ms) {
  uint32_t soonest = PM_NONE;
  *ms = PM_NONE;
  for (size_t i = 0; i < pool.len; i++) {
    uint32_t ready_ms = pm_ready_ms(query, pool.backends[i]);
    if (pm_is_candidate(query, pool.backends[i]) && ready_ms < *ms) {
      *ms = ready_ms;
      soonest = pool.backends[i];
    }
  }
  return soonest;
}

uint32_t pm_below(uint64_t *dice, uint32_t bound) {
  *dice += 0x9E3779B97F4A7C15u;
  uint64_t z = *dice;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return (uint32_t)(((z >> 32) * bound) >> 32);
}

/* ---- decisions */

pm_decision pm_dispatch(pm_lane lane, uint32_t backend) {
  pm_decision decision = {.tag = (uint8_t)lane};
  decision.val.primary = (pointsman_policy_types_dispatch_t){.backend = {backend != PM_NONE, backend}};
  return decision;
}

pm_decision pm_with_model(pm_decision dispatch, uint32_t model) {
  dispatch.val.primary.model = (contract_option_u32_t){true, model};
  return dispatch;
}

pm_decision pm_wait(pm_lane lane, uint32_t max_ms) {
  pm_decision decision = {.tag = POINTSMAN_POLICY_TYPES_DECISION_WAIT};
  decision.val.wait = (pointsman_policy_types_hold_t){.max_ms = max_ms, .lane = (uint8_t)lane};
  return decision;
}

pm_decision pm_reject(uint32_t status, const char *kind, const char *message, uint32_t retry_after_ms) {
  pm_decision decision = {.tag = POINTSMAN_POLICY_TYPES_DECISION_REJECT};
  pointsman_policy_types_rejection_t *rejection = &decision.val.reject;
  rejection->status = (uint16_t)status;
  contract_string_dup(&rejection->kind, kind);
  contract_string_dup(&rejection->message, message);
  rejection->retry_after_ms = (contract_option_u32_t){retry_after_ms != PM_NONE, retry_after_ms};
  return decision;
}

pm_decision pm_exhausted(void) { return pm_reject(0, "", "", PM_NONE); }

/* ---- settings */

static void skip(pm_text *text, size_t count) {
  text->ptr += count;
  text->len -= count;
}

static void skip_space(pm_text *text) {
  while (text->len && (*text->ptr == ' ' || (*text->ptr >= '\t' && *text->ptr <= '\r') || *text->ptr == ',' ||
                       *text->ptr == ':')) {
    skip(text, 1);
  }
}

/* The length of the JSON value at the start of a text that is known to be JSON. */
static size_t value_length(pm_text text) {
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    uint8_t c = text.ptr[i];
    if (quoted) {
      if (c == '\\') i++;
      else if (c == '"') quoted = false;
      if (!quoted && depth == 0) return i + 1;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == ',' || c == ':' || c <= ' ')) {
      return i;
    }
  }
  return text.len;
}

static pm_text take_value(pm_text *text) {
  skip_space(text);
  pm_text value = {text->ptr, value_length(*text)};
  skip(text, value.len);
  if (value.len >= 2 && *value.ptr == '"') value = (pm_text){value.ptr + 1, value.len - 2};
  return value;
}

bool pm_next_setting(pm_text *settings, pm_setting *setting) {
  if (settings->len && *settings->ptr == '{') skip(settings, 1);
  skip_space(settings);
  if (settings->len == 0 || *settings->ptr != '"') return false;
  setting->key = take_value(settings);
  setting->value = take_value(settings);
  return true;
}

bool pm_is(pm_text text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

bool pm_whole(pm_text text, uint32_t most, uint32_t *number) {
  uint64_t value = 0;
  if (text.len == 0 || text.len > 10) return false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] < '0' || text.ptr[i] > '9') return false;
    value = value * 10 + (text.ptr[i] - '0');
  }
  if (value > most) return false;
  *number = (uint32_t)value;
  return true;
}

/* ---- words for people */

typedef struct {
  char *text;
  size_t len, room;
} buffer;

static void put(buffer *to, const char *text, size_t len) {
  if (len > to->room - to->len) len = to->room - to->len;
  memcpy(to->text + to->len, text, len);
  to->len += len;
}

static void put_number(buffer *to, uint32_t number) {
  char digits[10];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  put(to, digits + at, sizeof digits - at);
}

/* A small part of printf: %s, %.*s, %u, %d, %%. Answers the length; the text is not ended. */
static size_t format_text(char *text, size_t room, const char *format, va_list values) {
  buffer to = {text, 0, room};
  for (const char *c = format; *c; c++) {
    if (*c != '%') {
      put(&to, c, 1);
    } else if (*++c == 's') {
      const char *word = va_arg(values, const char *);
      put(&to, word, strlen(word));
    } else if (*c == '.' && c[1] == '*' && c[2] == 's') {
      int len = va_arg(values, int);
      put(&to, va_arg(values, const char *), len > 0 ? (size_t)len : 0);
      c += 2;
    } else if (*c == 'u') {
      put_number(&to, va_arg(values, unsigned));
    } else if (*c == 'd') {
      int number = va_arg(values, int);
      if (number < 0) put(&to, "-", 1);
      put_number(&to, number < 0 ? 0u - (unsigned)number : (unsigned)number);
    } else if (*c == '%') {
      put(&to, c, 1);
    } else {
      pm_fail("this format has something other than %%s, %%.*s, %%u, %%d and %%%%");
    }
  }
  return to.len;
}

bool pm_refuse(pm_error *error, const char *format, ...) {
  va_list values;
  va_start(values, format);
  size_t len = format_text(error->text, sizeof error->text - 1, format, values);
  va_end(values);
  error->text[len] = '\0';
  return false;
}

static void say(pm_level level, const char *format, va_list values) {
  char text[500];
  contract_string_t line = {(uint8_t *)text, format_text(text, sizeof text, format, values)};
  pointsman_policy_log_log((uint8_t)level, &line);
}

void pm_note(const char *format, ...) {
  char text[500];
  va_list values;
  va_start(values, format);
  contract_string_t line = {(uint8_t *)text, format_text(text, sizeof text, format, values)};
  va_end(values);
  pointsman_policy_log_note(&line);
}

void pm_log(pm_level level, const char *format, ...) {
  va_list values;
  va_start(values, format);
  say(level, format, values);
  va_end(values);
}

void pm_fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  say(PM_ERROR, format, values);
  va_end(values);
  abort();
}

/* ---- the rest of the host */

static contract_string_t borrowed(const char *text) { return (contract_string_t){(uint8_t *)text, strlen(text)}; }

pm_text pm_request_model(void) {
  pm_text text;
  pointsman_policy_request_model(&text);
  return text;
}

pm_text pm_request_path(void) {
  pm_text text;
  pointsman_policy_request_path(&text);
  return text;
}

bool pm_request_session(pm_text *session) { return pointsman_policy_request_session(session); }

bool pm_request_label(const char *name, pm_text *value) {
  contract_string_t key = borrowed(name);
  return pointsman_policy_request_label(&key, value);
}

void pm_free(pm_text text) { contract_string_free(&text); }

void pm_spending(uint64_t *today, uint64_t *budget) {
  pointsman_policy_types_spending_facts_t spending;
  pointsman_policy_request_spending(&spending);
  *today = spending.today_microusd;
  *budget = spending.budget_microusd.is_some ? spending.budget_microusd.val : UINT64_MAX;
}

bool pm_state_get(const char *key, int64_t *value) {
  contract_string_t k = borrowed(key);
  return pointsman_policy_state_get(&k, value);
}

void pm_state_set(const char *key, int64_t value, uint64_t ttl_ms) {
  contract_string_t k = borrowed(key);
  pointsman_policy_state_set(&k, value, ttl_ms);
}

int64_t pm_state_add(const char *key, int64_t delta, uint64_t ttl_ms) {
  contract_string_t k = borrowed(key);
  return pointsman_policy_state_add(&k, delta, ttl_ms);
}
