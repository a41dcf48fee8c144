use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;
use inbox::InboxConnection;
use inbox::effect::State;
use inbox::effect::admin::{self, Effect, Selection};
use outbox::admin::AdminStore;
use serde_json::{Value, json};

use crate::config::Config;
use crate::operator::{Output, connection};
use crate::output::{self, or_dash, say, time};

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only this consumer's.
    #[arg(long)]
    consumer: Option<String>,
    /// Only effects of this name.
    #[arg(long)]
    effect: Option<String>,
    /// Only those in this state, as in unknown.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only those that wait for a person's decision.
    #[arg(long)]
    in_review: bool,
    /// Only those that were reported done after another attempt, or a decision, had followed.
    #[arg(long)]
    late: bool,
    /// Only numbers above this one.
    #[arg(long, default_value_t = 0)]
    after: i64,
    /// At most so many, in order of their numbers.
    #[arg(long, default_value_t = 1_000)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Counts {
    /// Only this consumer's.
    #[arg(long)]
    consumer: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Its number.
    id: i64,
    /// What the provider answered as well, which can be anybody's data.
    #[arg(long)]
    result: bool,
    #[command(flatten)]
    output: Output,
}

impl List {
    fn selection(&self) -> Selection {
        let mut which = Selection::default();
        which.consumer.clone_from(&self.consumer);
        which.effect.clone_from(&self.effect);
        (which.state, which.in_review, which.late) = (self.state, self.in_review, self.late);
        (which.after, which.limit) = (self.after, self.limit);
        which
    }
}

pub(super) fn list<C: AdminStore + InboxConnection>(config: &Config, options: &List) -> Result<()> {
    let effects = admin::list(&mut *connection::<C>(config)?, &options.selection())?;
    if options.output.json {
        return output::json(&effects.iter().map(as_json).collect());
    }
    let rows = effects.iter().map(|effect| {
        vec![
            effect.id.to_string(),
            effect.consumer.clone(),
            format!("{} {}", effect.scope, effect.operation),
            effect.effect.clone(),
            standing(effect),
            effect.attempts.to_string(),
            effect.key.to_string(),
            effect.error.clone(),
        ]
    });
    let headers = ["id", "consumer", "operation", "effect", "state", "calls", "key", "error"];
    output::table(&headers, rows.collect(), "no effects fit")?;
    if options.in_review || options.state == Some(State::Unknown) {
        tell_of_lapsed::<C>(config, options)?;
    }
    if effects.len() == options.limit as usize
        && let Some(last) = effects.last()
    {
        let (shown, last) = (effects.len(), last.id);
        say(format!("There may be more: only {shown} are shown; --after {last} goes on"))?;
    }
    Ok(())
}

/// A call whose process has died is unknown as soon as somebody looks: a service without a reconciler has nobody.
fn tell_of_lapsed<C: AdminStore + InboxConnection>(config: &Config, options: &List) -> Result<()> {
    let mut which = options.selection();
    (which.state, which.in_review, which.after) = (Some(State::Attempted), false, 0);
    // Those under way may come first.
    which.limit = 10_000;
    let calls = admin::list(&mut *connection::<C>(config)?, &which)?;
    let lapsed = calls.iter().filter(|effect| is_lapsed(effect)).count();
    if lapsed > 0 {
        say(format!(
            "{lapsed} further calls have outlasted their lease: relay effects reconcile takes them for unknown"
        ))?;
    }
    Ok(())
}

/// By this machine's clock, which is good enough to point somebody to a command.
fn is_lapsed(effect: &Effect) -> bool {
    effect.lease_until.is_some_and(|until| until < SystemTime::now())
}

pub(super) fn counts<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Counts,
) -> Result<()> {
    let counts = admin::counts(&mut *connection::<C>(config)?, options.consumer.as_deref())?;
    if options.output.json {
        let groups = counts.iter().map(|group| {
            json!({
                "consumer": group.consumer, "effect": group.effect, "state": group.state.as_str(),
                "in_review": group.in_review, "count": group.count, "oldest": time(group.oldest),
            })
        });
        return output::json(&groups.collect());
    }
    let rows = counts.iter().map(|group| {
        let review = if group.in_review { ", for a person" } else { "" };
        vec![
            group.consumer.clone(),
            group.effect.clone(),
            format!("{}{review}", group.state),
            group.count.to_string(),
            time(group.oldest),
        ]
    });
    let headers = ["consumer", "effect", "state", "effects", "oldest"];
    output::table(&headers, rows.collect(), "there are no effects")
}

pub(super) fn show<C: AdminStore + InboxConnection>(config: &Config, options: &Show) -> Result<()> {
    let id = options.id;
    let Some(effect) = admin::show(&mut *connection::<C>(config)?, id)? else {
        bail!("no effect has the number {id}; `relay effects list` shows what there is");
    };
    if options.output.json {
        let mut value = as_json(&effect);
        if options.result {
            value["result"] = result(effect.result.as_deref());
            value["late_result"] = result(effect.late_result.as_deref());
        }
        return output::json(&value);
    }
    let at = |moment: Option<_>| or_dash(moment.map(time));
    let decided = effect.decided.as_ref().map(|(who, why)| {
        format!("at {} by {who}: {why}; `relay audit` has what was before", at(effect.decided_at))
    });
    for (name, value) in [
        ("id", effect.id.to_string()),
        ("consumer", effect.consumer.clone()),
        ("operation", format!("{} {}", effect.scope, effect.operation)),
        ("effect", effect.effect.clone()),
        ("key at the provider", effect.key.to_string()),
        ("state", standing(&effect)),
        ("policy", effect.policy.to_string()),
        ("calls", format!("{}, the last by {}", effect.attempts, effect.owner)),
        ("questions", effect.asks.to_string()),
        ("error", effect.error.clone()),
        ("first wanted", time(effect.created_at)),
        ("last call", at(effect.attempted_at)),
        ("unknown since", at(effect.unknown_since)),
        ("in review since", at(effect.review_since)),
        ("settled", at(effect.settled_at)),
        ("reported late", at(effect.late_at)),
        ("decided", or_dash(decided)),
    ] {
        say(format!("{name:20} {value}"))?;
    }
    if !options.result {
        return say("What the provider answered is not shown: it can be anybody's data (--result)");
    }
    say(format!("result: {}", or_dash(effect.result.clone())))?;
    say(format!("late result: {}", or_dash(effect.late_result)))
}

fn as_json(effect: &Effect) -> Value {
    let moment = |moment: Option<_>| moment.map(time);
    json!({
        "id": effect.id, "consumer": effect.consumer, "scope": effect.scope, "operation": effect.operation,
        "effect": effect.effect, "key": effect.key.to_string(), "policy": effect.policy.as_str(),
        "state": effect.state.as_str(), "in_review": effect.review_since.is_some(), "attempts": effect.attempts,
        "asks": effect.asks, "owner": effect.owner, "error": effect.error, "created_at": time(effect.created_at),
        "attempted_at": moment(effect.attempted_at), "lease_until": moment(effect.lease_until),
        "ask_at": moment(effect.ask_at), "unknown_since": moment(effect.unknown_since),
        "review_since": moment(effect.review_since), "settled_at": moment(effect.settled_at),
        "late_at": moment(effect.late_at), "decided_by": effect.decided.as_ref().map(|decided| &decided.0),
        "decided_why": effect.decided.as_ref().map(|decided| &decided.1), "decided_at": moment(effect.decided_at),
    })
}

/// Stored as JSON; anything else is shown as the text it is.
fn result(json: Option<&str>) -> Value {
    json.map_or(Value::Null, |text| {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    })
}

fn standing(effect: &Effect) -> String {
    match (effect.state, effect.ask_at, effect.lease_until) {
        (State::Unknown, ..) if effect.review_since.is_some() => "unknown, for a person".to_owned(),
        (State::Unknown, Some(at), _) => format!("unknown, asked at {}", time(at)),
        (State::Attempted, _, Some(until)) if is_lapsed(effect) => {
            format!("attempted, its lease over since {}", time(until))
        }
        (State::Attempted, _, Some(until)) => format!("attempted, until {}", time(until)),
        (state, ..) => state.to_string(),
    }
}

fn state(text: &str) -> Result<State, String> {
    let all = State::ALL;
    let names = all.map(State::as_str).join(", ");
    all.into_iter().find(|state| state.as_str() == text).ok_or(format!("use one of {names}"))
}
