//! Versions of the schema, and views that show an older store in the columns of the latest.

/// Statements that lead from one version (`PRAGMA user_version`) to the next. Published ones are never edited.
pub(super) const MIGRATIONS: [&str; 11] = [
    V1,
    V2,
    V3,
    V_POLICY_EVENTS,
    V_POLICY_SETTINGS,
    V_DENIALS,
    V_UPSTREAM_IDS,
    V_HOMES,
    V_SCOPES,
    V_GENERATION,
    V_USAGE,
];

/// The tables `exchange`, `earlier_attempt` and `cooldown` are made to be written cheaply; the views `exchanges`, `attempts`
/// and `cooldowns` are made to be read, and are what everything outside `insert.rs` and `retention.rs` asks.
///
/// - `ended_us` is the key: rows arrive in the order of their end, so that the newest, a time range and the oldest are all
///   at hand without an index, which every insert would pay for (one over the id more than doubled the cost). Two
///   exchanges of one microsecond are told apart by moving the later one on.
/// - The last attempt, mostly the only one, lives in the exchange's row; a `last_*` column that is NULL has the value that
///   the exchange has.
const V1: &str = "
CREATE TABLE exchange (
    ended_us                 INTEGER PRIMARY KEY,
    id                       TEXT    NOT NULL,
    started_ms               INTEGER NOT NULL,
    elapsed_ms               INTEGER NOT NULL,
    client                   TEXT,
    session                  TEXT,
    operation                TEXT    NOT NULL,
    path                     TEXT    NOT NULL,
    model                    TEXT    NOT NULL,
    streaming                INTEGER NOT NULL,
    status                   INTEGER NOT NULL,
    end                      TEXT    NOT NULL,
    lane                     TEXT,
    backend                  TEXT,
    attempts                 INTEGER NOT NULL,
    waits                    INTEGER NOT NULL,
    waited_ms                INTEGER NOT NULL,
    first_byte_ms            INTEGER,
    policy                   TEXT    NOT NULL,
    policy_faults            INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cached_input_tokens      INTEGER NOT NULL,
    estimated                INTEGER NOT NULL,
    cost_usd                 REAL    NOT NULL,
    notes                    TEXT,
    error                    TEXT,
    last_started_ms          INTEGER,
    last_elapsed_ms          INTEGER,
    last_first_byte_ms       INTEGER,
    last_first_token_ms      INTEGER,
    last_outcome             TEXT,
    last_retry_after_ms      INTEGER,
    last_message             TEXT,
    last_backend             TEXT,
    last_lane                TEXT,
    last_model_sent          TEXT,
    last_status              INTEGER,
    last_input_tokens        INTEGER,
    last_output_tokens       INTEGER,
    last_cached_input_tokens INTEGER,
    last_estimated           INTEGER,
    last_cost_usd            REAL
) STRICT;

CREATE TABLE earlier_attempt (
    ended_us                 INTEGER NOT NULL,
    number                   INTEGER NOT NULL,
    backend                  TEXT    NOT NULL,
    lane                     TEXT    NOT NULL,
    model_sent               TEXT    NOT NULL,
    started_ms               INTEGER NOT NULL,
    elapsed_ms               INTEGER NOT NULL,
    first_byte_ms            INTEGER,
    first_token_ms           INTEGER,
    outcome                  TEXT    NOT NULL,
    status                   INTEGER NOT NULL,
    retry_after_ms           INTEGER,
    message                  TEXT,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cached_input_tokens      INTEGER NOT NULL,
    estimated                INTEGER NOT NULL,
    cost_usd                 REAL    NOT NULL,
    PRIMARY KEY (ended_us, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE cooldown (
    backend                  TEXT    NOT NULL,
    model                    TEXT,
    until_ms                 INTEGER NOT NULL,
    reason                   TEXT    NOT NULL,
    failures                 INTEGER NOT NULL
) STRICT;

CREATE VIEW exchanges AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, id, client, session, operation, path,
    model, streaming, status, end, lane, backend, attempts, waits, waited_ms, first_byte_ms, elapsed_ms, policy,
    policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd, notes, error, ended_us
FROM exchange;

CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), ended_us
FROM exchange WHERE attempts > 0;

CREATE VIEW cooldowns AS
SELECT backend, model, strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS until, reason, failures, until_ms
FROM cooldown;
";

/// Policy revisions, few and small, and their components, few and large. Every revision has its component.
const V2: &str = "
CREATE TABLE policy_revision (
    number                   INTEGER PRIMARY KEY,
    sha256                   TEXT    NOT NULL UNIQUE,
    bytes                    INTEGER NOT NULL,
    origin                   TEXT    NOT NULL,
    file                     TEXT,
    taken_ms                 INTEGER NOT NULL,
    ended_ms                 INTEGER,
    end                      TEXT,
    why                      TEXT,
    decisions                INTEGER NOT NULL,
    faults                   INTEGER NOT NULL
) STRICT;

CREATE TABLE policy_component (
    sha256                   TEXT    PRIMARY KEY,
    component                BLOB    NOT NULL
) STRICT;

CREATE TABLE policy_source (
    file                     TEXT,
    sha256                   TEXT    NOT NULL
) STRICT;

CREATE VIEW policies AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', taken_ms / 1000.0, 'unixepoch') AS taken, substr(sha256, 1, 12) AS revision, origin,
    file, bytes, strftime('%Y-%m-%dT%H:%M:%fZ', ended_ms / 1000.0, 'unixepoch') AS ended, end, why, decisions, faults, sha256
FROM policy_revision;
";

/// The journal: a trail belongs to the exchange of the same key, and to the setup it ran under. `sampled` ones are a sample by
/// chance; the others are kept because of how they went. A body is there only where bodies are asked for; a NULL is no text.
const V3: &str = "
CREATE TABLE setup (
    id                       INTEGER PRIMARY KEY,
    setup                    TEXT    NOT NULL UNIQUE,
    last_ended_us            INTEGER NOT NULL
) STRICT;

CREATE TABLE trail (
    ended_us                 INTEGER PRIMARY KEY,
    setup                    INTEGER NOT NULL,
    sampled                  INTEGER NOT NULL,
    trail                    BLOB    NOT NULL
) STRICT;

CREATE TABLE body (
    ended_us                 INTEGER PRIMARY KEY,
    request                  TEXT,
    request_bytes            INTEGER NOT NULL,
    answer                   TEXT,
    answer_bytes             INTEGER NOT NULL
) STRICT;

CREATE TABLE trail_total (
    bytes                    INTEGER NOT NULL
) STRICT;
INSERT INTO trail_total VALUES (0);

CREATE VIEW trails AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ended_us / 1000000.0, 'unixepoch') AS ended, setup, sampled, length(trail) AS bytes, ended_us
FROM trail;
";

/// Steps of guarded promotions, few and small.
const V_POLICY_EVENTS: &str = "
CREATE TABLE policy_event (
    number                   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms                    INTEGER NOT NULL,
    step                     TEXT    NOT NULL,
    candidate                TEXT    NOT NULL,
    control                  TEXT    NOT NULL,
    why                      TEXT    NOT NULL,
    numbers                  TEXT    NOT NULL
) STRICT;

CREATE VIEW policy_events AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch') AS at, step, candidate, control, why, numbers
FROM policy_event;
";

/// A component may be there several times, each with settings of its own.
const V_POLICY_SETTINGS: &str = "
DROP VIEW policies;
ALTER TABLE policy_revision RENAME TO policy_revision_before;

CREATE TABLE policy_revision (
    number                   INTEGER PRIMARY KEY,
    sha256                   TEXT    NOT NULL,
    bytes                    INTEGER NOT NULL,
    origin                   TEXT    NOT NULL,
    file                     TEXT,
    taken_ms                 INTEGER NOT NULL,
    ended_ms                 INTEGER,
    end                      TEXT,
    why                      TEXT,
    decisions                INTEGER NOT NULL,
    faults                   INTEGER NOT NULL,
    name                     TEXT,
    settings                 TEXT
) STRICT;
INSERT INTO policy_revision
SELECT number, sha256, bytes, origin, file, taken_ms, ended_ms, end, why, decisions, faults, NULL, NULL
FROM policy_revision_before;
DROP TABLE policy_revision_before;

CREATE VIEW policies AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', taken_ms / 1000.0, 'unixepoch') AS taken, substr(sha256, 1, 12) AS revision, origin,
    file, bytes, strftime('%Y-%m-%dT%H:%M:%fZ', ended_ms / 1000.0, 'unixepoch') AS ended, end, why, decisions, faults, sha256,
    name, settings
FROM policy_revision;
";

/// Requests refused at the door, by their reason's word, and what answers saved. The index holds refusals only, and costs other
/// exchanges nothing: `retention.rs` bounds the refusals of strangers by it.
const V_DENIALS: &str = "
ALTER TABLE exchange ADD COLUMN denied TEXT;
ALTER TABLE exchange ADD COLUMN saved_usd REAL;
CREATE INDEX exchange_denied ON exchange (client IS NULL) WHERE denied IS NOT NULL;

DROP VIEW exchanges;
CREATE VIEW exchanges AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, id, client, session, operation, path,
    model, streaming, status, end, lane, backend, attempts, waits, waited_ms, first_byte_ms, elapsed_ms, policy,
    policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd, notes, error, denied, saved_usd,
    ended_us
FROM exchange;
";

/// The providers' own ids of requests.
const V_UPSTREAM_IDS: &str = "
ALTER TABLE exchange ADD COLUMN last_upstream_id TEXT;
ALTER TABLE earlier_attempt ADD COLUMN upstream_id TEXT;

DROP VIEW attempts;
CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, upstream_id, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), last_upstream_id, ended_us
FROM exchange WHERE attempts > 0;
";

/// The backend that holds a stored thing. The key is a hash of the thing's id, which nobody needs to read.
const V_HOMES: &str = "
CREATE TABLE home (
    key                      INTEGER PRIMARY KEY,
    backend                  TEXT    NOT NULL,
    until_ms                 INTEGER NOT NULL
) STRICT;

CREATE VIEW homes AS
SELECT key, backend, strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS until FROM home;
";

/// The parts that failed attempts are held against.
const V_SCOPES: &str = "
ALTER TABLE exchange ADD COLUMN last_scope TEXT;
ALTER TABLE earlier_attempt ADD COLUMN scope TEXT;

DROP VIEW attempts;
CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, upstream_id, scope, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), last_upstream_id, last_scope, ended_us
FROM exchange WHERE attempts > 0;
";

/// The mark of the file's content, of which `open_file.rs` tells.
const V_GENERATION: &str = "
CREATE TABLE generation (
    mark                     BLOB    NOT NULL
) STRICT;
INSERT INTO generation VALUES (randomblob(16));
";

/// Usage by the hour, of which `rollups.rs` tells. A member that is 0 is that of exchanges without one. Keys from `from_us` on are
/// summed.
const V_USAGE: &str = "
CREATE TABLE usage_hour (
    dimension                TEXT    NOT NULL,
    hour                     INTEGER NOT NULL,
    member                   ANY     NOT NULL,
    requests                 INTEGER NOT NULL,
    failures                 INTEGER NOT NULL,
    attempts                 INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cached_input_tokens      INTEGER NOT NULL,
    cost_usd                 REAL    NOT NULL,
    waits                    INTEGER NOT NULL,
    waited_ms                INTEGER NOT NULL,
    denied                   INTEGER NOT NULL,
    compared_waited          INTEGER NOT NULL,
    saved_waited_usd         REAL,
    compared                 INTEGER NOT NULL,
    saved_usd                REAL,
    PRIMARY KEY (dimension, hour, member)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_filled (
    from_us                  INTEGER NOT NULL
) STRICT;
INSERT INTO usage_filled SELECT coalesce(max(ended_us) + 1, 0) FROM exchange;

CREATE VIEW usage AS
SELECT dimension, strftime('%Y-%m-%dT%H:%M:%SZ', hour * 3600, 'unixepoch') AS hour,
    CASE typeof(member) WHEN 'text' THEN member END AS member, requests, failures, attempts, input_tokens, output_tokens,
    cached_input_tokens, cost_usd, waits, waited_ms, denied
FROM usage_hour;
";

/// The first schema with a journal.
pub(super) const JOURNAL_SINCE: i64 = 3;

/// The first schema with [`V_DENIALS`].
pub(super) const DENIALS_SINCE: i64 = 6;

/// The view of a store that is only read and older than [`DENIALS_SINCE`], with the columns it does not have; it hides the
/// store's own view from this connection.
pub(super) const EXCHANGES_BEFORE_DENIALS: &str =
    "CREATE TEMP VIEW exchanges AS SELECT *, NULL AS denied, NULL AS saved_usd FROM main.exchanges";

/// The first schema with [`V_UPSTREAM_IDS`].
pub(super) const UPSTREAM_IDS_SINCE: i64 = 7;

/// The same for a store older than [`UPSTREAM_IDS_SINCE`].
pub(super) const ATTEMPTS_BEFORE_UPSTREAM_IDS: &str =
    "CREATE TEMP VIEW attempts AS SELECT *, NULL AS upstream_id, NULL AS scope FROM main.attempts";

/// The first schema with [`V_SCOPES`].
pub(super) const SCOPES_SINCE: i64 = 9;

/// The same for a store older than [`SCOPES_SINCE`].
pub(super) const ATTEMPTS_BEFORE_SCOPES: &str =
    "CREATE TEMP VIEW attempts AS SELECT *, NULL AS scope FROM main.attempts";
