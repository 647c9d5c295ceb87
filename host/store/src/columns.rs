//! SQL whose columns are named: a name stands once beside its value or its field, and its position follows from the order.

/// `$sql`, an `INSERT` into these columns, and `$bind`, which executes it with their values.
macro_rules! insert {
    (
        $(#[$doc:meta])*
        $sql:ident = INTO $table:literal $(ON CONFLICT $conflict:literal)?;
        fn $bind:ident($($argument:ident: $type:ty),* $(,)?) {
            $first:ident: $first_value:expr $(, $column:ident: $value:expr)* $(,)?
        }
    ) => {
        $(#[$doc])*
        const $sql: &str = concat!(
            "INSERT INTO ", $table, " (", stringify!($first), $(", ", stringify!($column),)* ") VALUES (?",
            $($crate::columns::insert!(@another $column),)* ")" $(, " ON CONFLICT ", $conflict)?
        );

        fn $bind(statement: &mut rusqlite::Statement<'_>, $($argument: $type),*) -> rusqlite::Result<usize> {
            statement.execute(rusqlite::params![$first_value $(, $value)*])
        }
    };
    (@another $column:ident) => { ", ?" };
}

/// `COLUMNS` and `read` for a row type whose fields are columns, in this order. `with` names another reader of a column than
/// SQLite's own conversion; fields after `;` are no columns and begin empty.
macro_rules! columns {
    (
        $row:ident {
            $first:ident $(with $first_reader:path)? $(, $column:ident $(with $reader:path)?)* $(,)?
            $(; $($other:ident),+)?
        }
    ) => {
        impl $row {
            /// Columns of the row, for a `SELECT`.
            pub(crate) const COLUMNS: &'static str = concat!(stringify!($first) $(, ", ", stringify!($column))*);
            /// Number of the columns.
            #[allow(dead_code, reason = "only rows that are read together with other columns ask for it")]
            pub(crate) const COUNT: usize = [stringify!($first) $(, stringify!($column))*].len();

            /// Reads the row from the first of these columns on.
            pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
                let mut next = 0..;
                Ok(Self {
                    $first: $crate::columns::columns!(@get row, next $(, $first_reader)?),
                    $($column: $crate::columns::columns!(@get row, next $(, $reader)?),)*
                    $($($other: Default::default(),)+)?
                })
            }
        }
    };
    (@get $row:ident, $next:ident) => { $row.get($next.next().unwrap_or_default())? };
    (@get $row:ident, $next:ident, $reader:path) => { $reader($row, $next.next().unwrap_or_default())? };
}

pub(crate) use {columns, insert};

/// Converts to SQLite's integers, which are signed.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads an amount of money: stores of earlier versions have costs of -0.0.
pub(crate) fn money(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<f64> {
    Ok(row.get::<_, f64>(column)? + 0.0)
}
