;; The smallest policy: every answer is "any primary". Tests put more into it, or take something away.
(module
  (import "pointsman:policy/log@1.0.0" "note" (func $note (param i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  ;; Ok, whatever it is told.
  (func (export "configure") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 256))
  ;; At 1024 all is zero: case `primary`, nothing chosen.
  (func (export "decide")
    (param i64 i64) (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (param i32) (param i32 i32) (result i32)
    (global.set $free (i32.const 65536))
    (i32.const 1024))
  ;; more
)
