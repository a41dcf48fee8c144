use std::fmt::Write;

use super::{Label, Machine, Verdict};

/// What leaves an entity where it is, in the order in which diagrams name it.
const STAYS: [&str; 4] = ["duplicate", "stale", "early", "review"];

impl<S: Label, E: Label> Machine<S, E> {
    /// The machine as a Mermaid state diagram, which GitHub and many editors draw: arrows for moves,
    /// and a note at each state for the events that do not move it.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut out = String::new();
        // A JSON string is a YAML string.
        line(
            &mut out,
            format_args!("---\ntitle: {}\n---", serde_json::Value::from(self.title(": "))),
        );
        line(&mut out, format_args!("stateDiagram-v2"));
        for (index, state) in S::ALL.iter().enumerate() {
            line(&mut out, format_args!("    state \"{}\" as s{index}", entities(state.name())));
        }
        line(&mut out, format_args!("    [*] --> s{}", index_of(self.initial)));
        for (from, event, to) in self.moves() {
            let label = entities(event.name());
            line(&mut out, format_args!("    s{from} --> s{to} : {label}"));
        }
        for (index, state) in S::ALL.iter().enumerate() {
            let stays = self.stays(*state);
            if stays.is_empty() {
                continue;
            }
            line(&mut out, format_args!("    note right of s{index}"));
            for (verdict, events) in stays {
                let events: Vec<_> = events.into_iter().map(entities).collect();
                line(&mut out, format_args!("        {verdict}: {}", events.join(", ")));
            }
            line(&mut out, format_args!("    end note"));
        }
        out
    }

    /// The machine in Graphviz' DOT language: full arrows for moves, dashed ones for the events that do
    /// not move it, by verdict.
    #[must_use]
    pub fn graphviz(&self) -> String {
        let mut out = String::new();
        line(&mut out, format_args!("digraph {} {{", quoted(self.name)));
        line(&mut out, format_args!("    label={};", quoted(&self.title("\n"))));
        line(&mut out, format_args!("    rankdir=LR;"));
        line(&mut out, format_args!("    node [shape=box, style=rounded];"));
        line(&mut out, format_args!("    start [shape=point];"));
        for (index, state) in S::ALL.iter().enumerate() {
            line(&mut out, format_args!("    s{index} [label={}];", quoted(state.name())));
        }
        line(&mut out, format_args!("    start -> s{};", index_of(self.initial)));
        for (from, event, to) in self.moves() {
            let label = quoted(event.name());
            line(&mut out, format_args!("    s{from} -> s{to} [label={label}];"));
        }
        for (index, state) in S::ALL.iter().enumerate() {
            for (verdict, events) in self.stays(*state) {
                let label = quoted(&format!("{verdict}: {}", events.join("\n")));
                line(
                    &mut out,
                    format_args!("    s{index} -> s{index} [label={label}, style=dashed];"),
                );
            }
        }
        line(&mut out, format_args!("}}"));
        out
    }

    fn title(&self, separator: &str) -> String {
        format!("{}{separator}any other event: {}", self.name, self.otherwise)
    }

    /// Where each rule that moves leads, in the order of the rules.
    fn moves(&self) -> impl Iterator<Item = (usize, E, usize)> {
        self.rules.iter().filter_map(|(from, event, verdict)| match verdict {
            Verdict::To(to) => Some((index_of(*from), *event, index_of(*to))),
            Verdict::Duplicate | Verdict::Stale | Verdict::Early | Verdict::Review => None,
        })
    }

    /// The events that leave a state as it is, by verdict.
    fn stays(&self, state: S) -> Vec<(&'static str, Vec<&'static str>)> {
        let events = |verdict: &str| {
            let rules =
                self.rules.iter().filter(|rule| rule.0 == state && rule.2.as_str() == verdict);
            rules.map(|(_, event, _)| event.name()).collect::<Vec<_>>()
        };
        let all = STAYS.into_iter().map(|verdict| (verdict, events(verdict)));
        all.filter(|(_, events)| !events.is_empty()).collect()
    }
}

/// Declaring has checked that every state is listed.
fn index_of<S: Label>(state: S) -> usize {
    S::ALL.iter().position(|other| *other == state).unwrap_or_default()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "{text}");
}

/// A name with everything that Mermaid could read as its own written as a character code. Blanks too:
/// `end note` and `direction LR` are commands wherever they stand.
fn entities(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_alphanumeric() || "._-".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

/// A DOT string. A backslash begins an escape in labels, and `&` an entity.
fn quoted(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Duplicate, Early, Review, Stale, To};
    use super::*;
    use crate::transition::labels;

    labels! {
        enum Order { Pending = "pending", Paid = "paid", Cancelled = "cancelled" }
        enum Event { Pay = "order.paid", Ship = "shipped", Cancel = "cancel" }
    }

    labels! {
        enum Odd { First = "a \"quoted\" state; end note", Second = "direction LR: {x} %% #1;" }
        enum Sign { Only = "<b> & \\n --> [*]\u{1F4A5}ä" }
    }

    fn orders() -> Machine<Order, Event> {
        let rules = [
            (Order::Pending, Event::Pay, To(Order::Paid)),
            (Order::Pending, Event::Ship, Early),
            (Order::Pending, Event::Cancel, To(Order::Cancelled)),
            (Order::Paid, Event::Pay, Duplicate),
            (Order::Paid, Event::Ship, To(Order::Paid)),
            (Order::Cancelled, Event::Ship, Stale),
            (Order::Cancelled, Event::Cancel, Duplicate),
            (Order::Cancelled, Event::Pay, Review),
        ];
        Machine::new("order", Order::Pending, rules, Review).expect("valid")
    }

    fn odd() -> Machine<Odd, Sign> {
        let rules =
            [(Odd::First, Sign::Only, To(Odd::Second)), (Odd::Second, Sign::Only, Duplicate)];
        Machine::new("the \"odd\" & the \\", Odd::First, rules, Stale).expect("valid")
    }

    #[test]
    fn in_mermaid() {
        let expected = r#"---
title: "order: any other event: review"
---
stateDiagram-v2
    state "pending" as s0
    state "paid" as s1
    state "cancelled" as s2
    [*] --> s0
    s0 --> s1 : order.paid
    s0 --> s2 : cancel
    s1 --> s1 : shipped
    note right of s0
        early: shipped
    end note
    note right of s1
        duplicate: order.paid
    end note
    note right of s2
        duplicate: cancel
        stale: shipped
        review: order.paid
    end note
"#;
        assert_eq!(orders().mermaid(), expected);
    }

    #[test]
    fn in_graphviz() {
        let expected = r#"digraph "order" {
    label="order\nany other event: review";
    rankdir=LR;
    node [shape=box, style=rounded];
    start [shape=point];
    s0 [label="pending"];
    s1 [label="paid"];
    s2 [label="cancelled"];
    start -> s0;
    s0 -> s1 [label="order.paid"];
    s0 -> s2 [label="cancel"];
    s1 -> s1 [label="shipped"];
    s0 -> s0 [label="early: shipped", style=dashed];
    s1 -> s1 [label="duplicate: order.paid", style=dashed];
    s2 -> s2 [label="duplicate: cancel", style=dashed];
    s2 -> s2 [label="stale: shipped", style=dashed];
    s2 -> s2 [label="review: order.paid", style=dashed];
}
"#;
        assert_eq!(orders().graphviz(), expected);
    }

    #[test]
    fn names_cannot_break_out_of_mermaid() {
        let expected = r##"---
title: "the \"odd\" & the \\: any other event: stale"
---
stateDiagram-v2
    state "a#32;#34;quoted#34;#32;state#59;#32;end#32;note" as s0
    state "direction#32;LR#58;#32;#123;x#125;#32;#37;#37;#32;#35;1#59;" as s1
    [*] --> s0
    s0 --> s1 : #60;b#62;#32;#38;#32;#92;n#32;--#62;#32;#91;#42;#93;#128165;ä
    note right of s1
        duplicate: #60;b#62;#32;#38;#32;#92;n#32;--#62;#32;#91;#42;#93;#128165;ä
    end note
"##;
        assert_eq!(odd().mermaid(), expected);
    }

    #[test]
    fn names_cannot_break_out_of_graphviz() {
        let text = odd().graphviz();
        for expected in [
            r#"digraph "the \"odd\" &amp; the \\" {"#,
            r#"label="the \"odd\" &amp; the \\\nany other event: stale";"#,
            r#"s0 [label="a \"quoted\" state; end note"];"#,
            "s0 -> s1 [label=\"<b> &amp; \\\\n --> [*]\u{1F4A5}ä\"];",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
