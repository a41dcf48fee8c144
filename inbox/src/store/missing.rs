use diesel::result::Error;

/// Whether the table of operations is not there.
pub(crate) fn operations(error: &Error) -> bool {
    lacks(error, &["inbox_operations"])
}

/// Whether a table of state machines is not there.
pub(crate) fn transitions(error: &Error) -> bool {
    lacks(error, &["inbox_states", "inbox_transitions"])
}

fn lacks(error: &Error, tables: &[&str]) -> bool {
    let Error::DatabaseError(_, info) = error else { return false };
    let text = info.message();
    tables.iter().any(|table| {
        text.contains(&format!("\"{table}\" does not exist"))
            || text.contains(&format!("no such table: {table}"))
    })
}
