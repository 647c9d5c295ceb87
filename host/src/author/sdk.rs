//! What an author's project needs of Pointsman, from inside this binary: the contract and the SDK of each language.

/// The contract, as `policy.wit`.
pub const CONTRACT: &str = include_str!("../../../wit/policy.wit");

/// Files as (path, text).
pub type Files = &'static [(&'static str, &'static str)];

/// Lies beside `policy.js`.
pub const JS: Files = &[("pointsman.js", include_str!("../../../policy-sdk/js/pointsman.js"))];

/// Lies beside `policy.py`.
pub const PYTHON: Files = &[("pointsman.py", include_str!("../../../policy-sdk/python/pointsman.py"))];

/// Lies in the folder [`C_FOLDER`] beside `policy.c`.
pub const C: Files = &[
    ("pointsman.h", include_str!("../../../policy-sdk/c/pointsman.h")),
    ("pointsman.c", include_str!("../../../policy-sdk/c/pointsman.c")),
    ("contract.h", include_str!("../../../policy-sdk/c/contract.h")),
    ("contract.c", include_str!("../../../policy-sdk/c/contract.c")),
    ("libc.c", include_str!("../../../policy-sdk/c/libc.c")),
    ("include/stdlib.h", include_str!("../../../policy-sdk/c/include/stdlib.h")),
    ("include/string.h", include_str!("../../../policy-sdk/c/include/string.h")),
];

/// Where a project in C keeps the SDK.
pub const C_FOLDER: &str = "pointsman";
