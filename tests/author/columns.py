"""The SDK for Python, asked for columns that the host does not have. python3 columns.py FOLDER_OF_THE_SDK"""

import sys
from types import ModuleType, SimpleNamespace as Told
from unittest.mock import MagicMock

sys.dont_write_bytecode = True
for name in ("componentize_py_types", "wit_world", "wit_world.imports"):
    sys.modules[name] = ModuleType(name)
sys.modules["componentize_py_types"].Err = Exception
for name in ("log", "request", "state", "types"):
    setattr(sys.modules["wit_world.imports"], name, MagicMock())
sys.path.insert(0, sys.argv[1])

from pointsman import NONE, Query, Table  # noqa: E402

backend = Told(
    id="a", tier=None, dialect="openai", weight=1, rpm=None, tpm=None, max_concurrency=None, routes=[], any_model=True,
    labels=[], capabilities=[], attributes=[],
)  # fmt: skip
columns = ["novelty", "ready_ms", "state"]
table = Table(
    Told(
        backends=[backend, backend], models=[], clients=[], attributes=[], columns=columns, operations=[], outcomes=["answered"]
    )
)
request = Told(
    model=0, client=0, operation=9, streaming=True, priority=0, prompt_tokens=0, max_tokens=0, session=0, elapsed_ms=0,
    remaining_ms=0,
)  # fmt: skip
query = Query(table)._over(Told(now_ms=1, seed=1, first=True, rows=[1, 0, 0, 2, 80, 2], request=request))

assert query.state(1) == "cooling"
assert query.ready_ms(1) == 80
assert query.column(1, "novelty") == 2
for unlimited in ("emergency_ms", "tokens_left", "concurrency_left"):
    assert getattr(query, unlimited)(1) == NONE, unlimited
for none in ("queued", "in_flight", "failures", "latency_ms"):
    assert getattr(query, none)(1) == 0, none
assert query.cooldown_reason(1) == "unknown"
assert (query.column(0, "queued"), query.column(0, "queued", 5)) == (NONE, 5)
assert query.ready([0, 1]) == [0]
assert query.least_loaded([0, 1]) in (0, 1)
