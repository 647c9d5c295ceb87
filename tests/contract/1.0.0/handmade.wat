;; A policy that touches all of the contract 1.0.0. The prompt's tokens say what to answer:
;; 1 primary with everything left out · 2 primary with everything set · 3 fallback · 4 emergency, headers, no resume ·
;; 5 wait for as many ms as all that can be asked of the host adds up to · 6 reject · else primary.
(module
  (import "pointsman:policy/log@1.0.0" "log" (func $log (param i32 i32 i32)))
  (import "pointsman:policy/log@1.0.0" "note" (func $note (param i32 i32)))
  (import "pointsman:policy/request@1.0.0" "past" (func $past (param i32)))
  (import "pointsman:policy/request@1.0.0" "model" (func $model (param i32)))
  (import "pointsman:policy/request@1.0.0" "path" (func $path (param i32)))
  (import "pointsman:policy/request@1.0.0" "session" (func $session (param i32)))
  (import "pointsman:policy/request@1.0.0" "label" (func $label (param i32 i32 i32)))
  (import "pointsman:policy/request@1.0.0" "spending" (func $spending (param i32)))
  (import "pointsman:policy/state@1.0.0" "get" (func $get (param i32 i32 i32)))
  (import "pointsman:policy/state@1.0.0" "set" (func $set (param i32 i32 i64 i64)))
  (import "pointsman:policy/state@1.0.0" "add" (func $add (param i32 i32 i64 i64) (result i64)))
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 65536))
  ;; Backends and columns that `configure` was told of.
  (global $backends (mut i32) (i32.const 0))
  (global $columns (mut i32) (i32.const 0))
  (data (i32.const 512) "team")
  (data (i32.const 520) "count")
  (data (i32.const 528) "busy")
  (data (i32.const 536) "come later")
  (data (i32.const 552) "noted")
  (data (i32.const 560) "no settings")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))

  ;; Settings, and the seven lists of the table: backends, models, clients, columns, operations, outcomes, attributes.
  ;; Without settings it refuses.
  (func (export "configure") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (global.set $backends (local.get 3))
    (global.set $columns (local.get 9))
    (i32.store8 (i32.const 256) (i32.eqz (local.get 1)))
    (i32.store (i32.const 260) (i32.const 560))
    (i32.store (i32.const 264) (i32.const 11))
    (i32.const 256))

  (func $some (param $at i32) (param $value i32)
    (i32.store8 (local.get $at) (i32.const 1))
    (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $value)))

  (func $everything
    (call $some (i32.const 1028) (i32.const 0))      ;; backend
    (call $some (i32.const 1036) (i32.const 0))      ;; model
    (call $some (i32.const 1044) (i32.const 1000))   ;; first byte
    (call $some (i32.const 1052) (i32.const 2000))   ;; first token
    (call $some (i32.const 1060) (i32.const 3000))   ;; idle
    (call $some (i32.const 1068) (i32.const 4000))   ;; total
    (i32.store8 (i32.const 1076) (i32.const 1))      ;; commit: tokens(7)
    (i32.store8 (i32.const 1080) (i32.const 2))
    (i32.store (i32.const 1084) (i32.const 7))
    (i32.store16 (i32.const 1088) (i32.const 0x0201))) ;; resume: prefill

  ;; 1 + attempts * 100,000 + waits * 10,000 + model's, path's, session's and label's lengths + millionths spent
  ;; + what `state` counted + what it was set to.
  (func $all_that_is_told (result i32)
    (local $sum i32)
    (call $past (i32.const 2048))
    (call $model (i32.const 2080))
    (call $path (i32.const 2096))
    (call $session (i32.const 2112))
    (call $label (i32.const 512) (i32.const 4) (i32.const 2128))
    (call $spending (i32.const 2144))
    (call $log (i32.const 1) (i32.const 552) (i32.const 5))
    (call $note (i32.const 552) (i32.const 5))
    (local.set $sum (i32.wrap_i64 (call $add (i32.const 520) (i32.const 5) (i64.const 1) (i64.const 0))))
    (call $set (i32.const 528) (i32.const 4) (i64.const 40) (i64.const 60000))
    (call $get (i32.const 528) (i32.const 4) (i32.const 2176))
    (local.set $sum (i32.add (local.get $sum) (i32.wrap_i64 (i64.load (i32.const 2184)))))
    (local.set $sum (i32.add (local.get $sum) (i32.mul (i32.load (i32.const 2052)) (i32.const 100000))))
    (local.set $sum (i32.add (local.get $sum) (i32.mul (i32.load (i32.const 2056)) (i32.const 10000))))
    (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 2084))))
    (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 2100))))
    (if (i32.load8_u (i32.const 2112))
      (then (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 2120))))))
    (if (i32.load8_u (i32.const 2128))
      (then (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 2136))))))
    (local.set $sum (i32.add (local.get $sum) (i32.wrap_i64 (i64.load (i32.const 2144)))))
    (i32.add (local.get $sum) (i32.const 1)))

  ;; Now and seed; model, operation, client, streaming, priority, prompt's tokens, most tokens, session, elapsed,
  ;; remaining; whether it is the first question; the rows.
  (func (export "decide")
    (param i64 i64) (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (param i32) (param i32 i32) (result i32)
    (global.set $free (i32.const 65536))
    ;; As many numbers as there are backends and columns, or it is another contract.
    (if (i32.ne (local.get 14) (i32.mul (global.get $backends) (global.get $columns))) (then (unreachable)))
    (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
    (if (i32.eq (local.get 7) (i32.const 2)) (then (call $everything)))
    (if (i32.eq (local.get 7) (i32.const 3)) (then (i32.store8 (i32.const 1024) (i32.const 1))))
    (if (i32.eq (local.get 7) (i32.const 4)) (then
      (i32.store8 (i32.const 1024) (i32.const 2))
      (i32.store8 (i32.const 1076) (i32.const 1))        ;; commit: headers
      (i32.store8 (i32.const 1088) (i32.const 1))))      ;; resume: none
    (if (i32.eq (local.get 7) (i32.const 5)) (then
      (i32.store8 (i32.const 1024) (i32.const 3))
      (i32.store (i32.const 1028) (call $all_that_is_told))
      (i32.store8 (i32.const 1032) (i32.const 1))))      ;; lane: fallback
    (if (i32.eq (local.get 7) (i32.const 6)) (then
      (i32.store8 (i32.const 1024) (i32.const 4))
      (i32.store16 (i32.const 1028) (i32.const 429))
      (i32.store (i32.const 1032) (i32.const 528)) (i32.store (i32.const 1036) (i32.const 4))
      (i32.store (i32.const 1040) (i32.const 536)) (i32.store (i32.const 1044) (i32.const 10))
      (call $some (i32.const 1048) (i32.const 1500))))
    (i32.const 1024))
)
