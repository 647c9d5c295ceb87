//! Files embedded for policy projects: the contract, and the SDK of each language.

/// Text of the contract, `policy.wit`.
pub const CONTRACT: &str = include_str!("../../../wit/policy.wit");

/// Files as (path, text) pairs.
pub type Files = &'static [(&'static str, &'static str)];

/// SDK for JavaScript, beside `policy.js`.
pub const JS: Files = &[("pointsman.js", include_str!("../../../policy-sdk/js/pointsman.js"))];

/// SDK for Python, beside `policy.py`.
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

/// Folder of the SDK in a C project.
pub const C_FOLDER: &str = "pointsman";
