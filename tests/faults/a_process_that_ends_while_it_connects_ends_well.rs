//! A process ends while connections of its pool are still being opened. The library that opens them computes with OpenSSL,
//! which cleans up behind itself when the process ends: whoever is inside of it then crashes the process, after everything
//! has gone well.

use std::process::Command;

use support::database::Database;
use support::process::binary;

#[test]
fn fifty_times() {
    let database = Database::postgres();
    for time in 1..=50 {
        let ended = Command::new(binary("brief_user")).arg(&database.url).output().expect("runs");
        assert!(ended.status.success(), "{time}: {ended:?}");
    }
}
