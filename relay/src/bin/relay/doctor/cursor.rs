use std::time::Duration;

use outbox::admin::{AdminStore, CursorInfo, Facts};

use super::finding::Findings;
use crate::output::span;

/// Longer than this nothing should wait while a relay is at work.
const WAITING: Duration = Duration::from_secs(60);

pub(super) fn look<C: AdminStore>(
    conn: &mut C,
    name: &str,
    facts: &Facts,
    findings: &mut Findings,
) {
    let cursors = match conn.cursors() {
        Ok(cursors) => cursors,
        Err(error) => {
            let remedy = "grant SELECT on outbox_cursors".to_owned();
            return findings.fail("cursor", format!("cannot be read: {error}"), remedy);
        }
    };
    identity(facts, &cursors, findings);
    let Some(cursor) = cursors.iter().find(|cursor| cursor.name == name) else {
        let text = format!("there is no cursor {name:?}");
        let remedy = format!("`relay cursors add {name}`, or correct [relay] cursor");
        return findings.fail("cursor", text, remedy);
    };
    holder(cursor, findings);
    backlog(conn, cursor, findings);
    dead(conn, name, findings);
}

/// Transaction numbers mean nothing in another cluster.
fn identity(facts: &Facts, cursors: &[CursorInfo], findings: &mut Findings) {
    let rebase = || "stop the relays and run `relay rebase`".to_owned();
    if facts.rows_ahead {
        let text = "the log has rows of transactions that this cluster has not begun: it was restored or copied";
        return findings.fail("identity", text.to_owned(), rebase());
    }
    if facts.highest_cursor_xid > facts.next_xid {
        let text = "a cursor names transactions that this cluster has not begun: it was restored or copied";
        return findings.fail("identity", text.to_owned(), rebase());
    }
    let Some(here) = &facts.identity else { return };
    for cursor in cursors {
        let Some(stored) = &cursor.identity else { continue };
        if stored.system_id != here.system_id {
            let text = format!(
                "cursor {:?} was moved in the cluster {}, and this is {}",
                cursor.name, stored.system_id, here.system_id
            );
            return findings.fail("identity", text, rebase());
        }
        if stored.timeline != here.timeline {
            let text = format!(
                "cursor {:?} was last claimed on timeline {}, and this is {}: a standby was promoted",
                cursor.name, stored.timeline, here.timeline
            );
            let remedy = "none needed: the relay takes its place from this database when it claims";
            return findings.warn("identity", text, remedy.to_owned());
        }
    }
    findings.ok("identity", format!("cluster {}, timeline {}", here.system_id, here.timeline));
}

fn holder(cursor: &CursorInfo, findings: &mut Findings) {
    if let Some(pause) = &cursor.paused {
        let text = format!("paused by an operator: {}", pause.reason);
        findings.warn("pause", text, "`relay resume` when the reason is gone".to_owned());
    }
    let text = crate::cursors::state(cursor);
    match &cursor.holder {
        Some(holder) if holder.remaining.is_some() => findings.ok("lease", text),
        Some(_) | None => {
            findings.warn("lease", text, "start a relay of this cursor: `relay run`".to_owned());
        }
    }
}

fn backlog<C: AdminStore>(conn: &mut C, cursor: &CursorInfo, findings: &mut Findings) {
    let within = Duration::from_secs(30);
    match conn.backlog(&cursor.name, 1_000_000, within) {
        Ok(backlog) => {
            let more = if backlog.more { "more than " } else { "" };
            let oldest = backlog.oldest.unwrap_or_default();
            let text =
                format!("{more}{} messages, the oldest {} old", backlog.messages, span(oldest));
            if oldest > WAITING {
                let remedy =
                    "see whether a relay runs, is paused, or waits for its broker".to_owned();
                findings.warn("backlog", text, remedy);
            } else {
                findings.ok("backlog", text);
            }
        }
        Err(error) => {
            let remedy = "grant SELECT on outbox_messages".to_owned();
            findings.warn("backlog", format!("cannot be counted: {error}"), remedy);
        }
    }
}

fn dead<C: AdminStore>(conn: &mut C, name: &str, findings: &mut Findings) {
    let Ok(counts) = conn.hold_counts() else { return };
    let ours = counts.iter().filter(|group| group.cursor == name);
    let (mut waiting, mut dead) = (0, 0);
    for group in ours {
        if group.state == "dead" { dead += group.count } else { waiting += group.count }
    }
    if dead > 0 {
        let text = format!("{dead} dead, {waiting} waiting");
        let remedy =
            "`relay holds list --state dead`, then `relay holds retry` or `discard`".to_owned();
        findings.warn("holds", text, remedy);
    } else {
        findings.ok("holds", format!("none dead, {waiting} waiting"));
    }
}
