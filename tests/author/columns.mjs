// The SDK for JavaScript, asked for columns that the host does not have. node columns.mjs SDK
import { readFileSync } from "node:fs";
import { strict as assert } from "node:assert";

const sdk = readFileSync(process.argv[2], "utf8").replace(/^import (host\w+) from .*$/gm, "const $1 = {};");
const { Query, Table, NONE } = await import(`data:text/javascript,${encodeURIComponent(sdk)}`);

const backend = { tier: "primary", weight: 1, anyModel: true, routes: [], labels: [], attributes: [] };
const columns = ["novelty", "ready_ms", "state"];
const table = new Table({ backends: [backend, backend], columns, outcomes: ["answered"], operations: [], attributes: [] });
const query = new Query(table).over({ rows: [1, 0, 0, 2, 80, 2], request: {}, nowMs: 1, seed: 1, first: true });

assert.equal(query.state(1), "cooling");
assert.equal(query.readyMs(1), 80);
assert.equal(query.column(1, "novelty"), 2);
for (const unlimited of ["emergencyMs", "tokensLeft", "concurrencyLeft"]) assert.equal(query[unlimited](1), NONE, unlimited);
for (const none of ["queued", "inFlight", "failures", "latencyMs"]) assert.equal(query[none](1), 0, none);
assert.equal(query.cooldownReason(1), "unknown");
assert.equal(query.column(0, "queued"), NONE);
assert.equal(query.column(0, "queued", 5), 5);
assert.deepEqual(query.ready([0, 1]), [0]);
assert.ok([0, 1].includes(query.leastLoaded([0, 1])));
