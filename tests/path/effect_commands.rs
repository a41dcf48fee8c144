//! What an operator sees of effects and decides about them, with the real program, on both databases.

use std::time::Duration;

use diesel::{PgConnection, SqliteConnection};
use inbox::effect::{CallFailure, EffectError, Effects, Policy, State};
use serde_json::Value;
use support::commands::{done, json, refused, says};
use support::effects::{CHARGE, all, die, effects, failed, lost, pass};
use support::inbox::Store;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    support::bounded(decided::<PgConnection>()).await;
    support::bounded(reconciled::<PgConnection>()).await;
    support::bounded(left_behind::<PgConnection>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    support::bounded(decided::<SqliteConnection>()).await;
    support::bounded(reconciled::<SqliteConnection>()).await;
    support::bounded(left_behind::<SqliteConnection>()).await;
}

async fn charge(effects: &Effects, answer: Result<u32, CallFailure>) -> Result<u32, EffectError> {
    effects.once(CHARGE, async |_| answer).await
}

async fn decided<C: Store>() {
    let database = C::database();
    says(&done(&database, &["effects", "list"]), &["no effects fit"]);
    says(&done(&database, &["effects", "counts"]), &["there are no effects"]);
    let known = effects::<C>(&database, "known");
    assert_eq!(charge(&known, Ok(4711)).await.expect("charged"), 4711);
    let [first, second, third] = ["o1", "o2", "o3"].map(|id| effects::<C>(&database, id));
    for effects in [&first, &second, &third] {
        failed(charge(effects, Err(lost())).await);
    }

    let list = ["effects", "list", "--in-review"];
    says(
        &done(&database, &list),
        &["billing", "order.placed o1", "charge", "for a person", "broke"],
    );
    let rows = json(&database, &[&list[..], &["--json"]].concat());
    let ids: Vec<String> =
        rows.as_array().expect("a list").iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(
        (ids.len(), &rows[0]["state"], &rows[0]["in_review"]),
        (3, &"unknown".into(), &true.into())
    );
    assert_eq!(rows[0]["key"], first.key(CHARGE).to_string());
    says(&done(&database, &["effects", "list", "--state", "done"]), &["order.placed known"]);
    says(&done(&database, &["effects", "list", "--effect", "email"]), &["no effects fit"]);
    says(&refused(&database, &["effects", "list", "--state", "lost"]), &["intended"]);
    says(&done(&database, &["effects", "list", "--limit", "1"]), &["--after"]);
    let counts = json(&database, &["effects", "counts", "--json", "--consumer", "billing"]);
    let counted: Vec<_> =
        counts.as_array().expect("a list").iter().map(|group| &group["count"]).collect();
    assert_eq!(counted, [1, 3]);

    let number = all(&mut C::connection(&database))[0].id.to_string();
    let shown = done(&database, &["effects", "show", &number]);
    says(&shown, &["order.placed known", "done", "--result"]);
    assert!(!shown.contains("4711"), "the result stays hidden: {shown}");
    says(&done(&database, &["effects", "show", &number, "--result"]), &["4711"]);
    assert_eq!(json(&database, &["effects", "show", &number, "--json"])["result"], Value::Null);
    let shown = json(&database, &["effects", "show", &number, "--result", "--json"]);
    assert_eq!(shown["result"], 4711);
    says(&refused(&database, &["effects", "show", "99"]), &["no effect has the number 99"]);

    let decide = |id: &str, rest: &[&'static str]| -> Vec<String> {
        let words = ["effects", "decide", id].into_iter().chain(rest.iter().copied());
        words.map(str::to_owned).collect()
    };
    let run =
        |words: Vec<String>| done(&database, &words.iter().map(|word| &**word).collect::<Vec<_>>());
    let refuses = |words: Vec<String>| {
        refused(&database, &words.iter().map(|word| &**word).collect::<Vec<_>>())
    };
    says(&refuses(decide(&ids[0], &["done"])), &["--reason"]);
    says(&refuses(decide(&ids[0], &["lost", "--reason", "r"])), &["not-done"]);
    says(&refuses(decide(&ids[0], &["failed", "--result", "1", "--reason", "r"])), &["say done"]);
    says(&refuses(decide(&ids[0], &["done", "--result", "{", "--reason", "r"])), &["no JSON"]);
    says(&refuses(decide(&ids[0], &["done", "--reason", "r"])), &["--result null"]);
    let again = decide(&number, &["done", "--result", "null", "--reason", "r"]);
    says(&refuses(again), &["is done", "not to be decided"]);
    let dry = decide(&ids[0], &["done", "--result", "5", "--dry-run"]);
    says(&run(dry), &["was unknown and would be done"]);
    let reason = ["--reason", "found in the console"];
    says(&run(decide(&ids[0], &[&["done", "--result", "5"], &reason[..]].concat())), &["is done"]);
    says(&run(decide(&ids[1], &[&["not-done"], &reason[..]].concat())), &["to be called again"]);
    let failed_json = run(decide(&ids[2], &[&["failed", "--json"], &reason[..]].concat()));
    assert_eq!(serde_json::from_str::<Value>(&failed_json).expect("JSON")["was"], "unknown");
    assert_eq!(charge(&first, Ok(9)).await.expect("decided"), 5);
    assert_eq!(charge(&second, Ok(9)).await.expect("called"), 9);
    let error = failed(charge(&third, Ok(9)).await).to_string();
    assert!(error.contains("found in the console"), "{error}");

    let audit = json(&database, &["audit", "--json"]);
    let actions: Vec<_> =
        audit.as_array().expect("a list").iter().map(|line| &line["action"]).collect();
    assert_eq!(actions, ["effect.failed", "effect.not_done", "effect.done"]);
    let line = &audit[2];
    assert_eq!((&line["actor"], &line["consumer"]), (&"anna@desk".into(), &"billing".into()));
    assert_eq!(line["detail"]["operation"], "o1");
    let shown = done(&database, &["effects", "show", &ids[0]]);
    says(&shown, &["by anna@desk: found in the console", "relay audit"]);
    let shown = json(&database, &["effects", "show", &ids[0], "--json"]);
    assert!(shown["decided_at"].as_str().is_some_and(|at| at.starts_with("20")), "{shown}");
}

/// Nobody looks after the effects of a service that has neither an inbox nor a reconciler.
async fn left_behind<C: Store>() {
    let database = C::database();
    let list = ["effects", "list", "--in-review"];
    die(&effects::<C>(&database, "o1"), Policy::Review).await;
    let under_way = done(&database, &list);
    assert!(!under_way.contains("outlasted"), "{under_way}");
    pass(&mut C::connection(&database), HOUR);
    says(&done(&database, &list), &["no effects fit", "1 further calls", "effects reconcile"]);
    says(&done(&database, &["effects", "list"]), &["its lease over since"]);
    done(&database, &["effects", "reconcile"]);
    let found = done(&database, &list);
    says(&found, &["for a person"]);
    assert!(!found.contains("outlasted"), "{found}");
}

async fn reconciled<C: Store>() {
    let database = C::database();
    says(&done(&database, &["effects", "reconcile"]), &["no effect is open"]);
    let lose = async |id: &str| {
        let effects = effects::<C>(&database, id);
        let effect = effects.effect(CHARGE).reconciled();
        failed(effect.once(async |_| Err::<u32, _>(lost())).await);
        effects.key(CHARGE)
    };
    let keys = [lose("done").await, lose("not-done").await, lose("unknown").await];
    pass(&mut C::connection(&database), HOUR);
    // A provider that knows one key as done and another as not done. {key} is filled in without a shell.
    let script = format!("case $1 in {}) echo 5;; {}) exit 3;; *) exit 1;; esac", keys[0], keys[1]);
    let ask = [
        "effects",
        "reconcile",
        "--json",
        "--effect",
        CHARGE,
        "--",
        "sh",
        "-c",
        &script,
        "x",
        "{key}",
    ];
    let told = json(&database, &ask);
    assert_eq!((&told[0]["consumer"], &told[0]["done"]), (&"billing".into(), &1.into()));
    assert_eq!((&told[0]["not_done"], &told[0]["still_unknown"]), (&1.into(), &1.into()));
    let states: Vec<_> = all(&mut C::connection(&database)).iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Done, State::Intended, State::Unknown]);
    let known = effects::<C>(&database, "done");
    assert_eq!(charge(&known, Ok(9)).await.expect("stored"), 5);

    // A program that cannot be started, or that prints no JSON, is no answer of the provider.
    for (program, fault) in [("no-such-program", "cannot start"), ("./", "cannot start")] {
        pass(&mut C::connection(&database), HOUR);
        let ask = ["effects", "reconcile", "--effect", CHARGE, "--", program];
        says(&refused(&database, &ask), &[fault, program]);
    }
    pass(&mut C::connection(&database), HOUR);
    let ask = ["effects", "reconcile", "--effect", CHARGE, "--deadline", "30s", "--", "echo", "{"];
    says(&refused(&database, &ask), &["no JSON", "still unknown"]);

    // Without a program: what has been unknown for too long is a person's.
    pass(&mut C::connection(&database), 25 * HOUR);
    says(
        &done(&database, &["effects", "reconcile", "--consumer", "billing"]),
        &["for a person", "1"],
    );
    says(&done(&database, &["effects", "list", "--in-review"]), &["order.placed unknown"]);
    says(&refused(&database, &["effects", "reconcile", "--effect", CHARGE]), &["PROGRAM"]);
}
