//! One file per fault, named for what holds in spite of it. The listing of this folder is the list
//! of what is promised.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod no_committed_row_is_skipped_or_read_twice;
