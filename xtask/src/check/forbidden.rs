//! What must not be committed at all.

use super::Violation;
use super::lexer::{is_word, words};
use super::source::Source;

const LONGEST: usize = 350;
/// In two pieces, or this file would break its own rule.
const MACHINE: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const CODE: [(&str, &str); 5] = [
    ("todo!(", "finish it, or return an error"),
    ("unimplemented!(", "finish it, or return an error"),
    ("dbg!(", "remove it, or use tracing"),
    ("#[ignore", "make the test pass, or remove it"),
    ("#![ignore", "make the test pass, or remove it"),
];

/// Unfinished code, ignored tests, unsafe code, machine paths and long files.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources {
        paths(source, &mut violations);
        if source.is_rust() {
            code(source, &mut violations);
        }
    }
    violations
}

fn code(source: &Source, violations: &mut Vec<Violation>) {
    for (line, code) in source.code_lines() {
        for (text, remedy) in CODE.iter().filter(|(text, _)| code.contains(text)) {
            let message = format!("`{text}` must not be committed; {remedy}");
            violations.push(Violation::new(&source.path, line, message));
        }
        if words(code, "unsafe").next().is_some() {
            let message = "unsafe code is forbidden; use a safe library function";
            violations.push(Violation::new(&source.path, line, message));
        }
    }
    let lines = source.text.lines().count();
    if lines > LONGEST {
        let message = format!("{lines} lines; split it by nouns into files of at most {LONGEST}");
        violations.push(Violation::new(&source.path, LONGEST + 1, message));
    }
}

fn paths(source: &Source, violations: &mut Vec<Violation>) {
    for (index, line) in source.text.lines().enumerate() {
        for path in MACHINE.iter().filter(|path| is_absolute(line, path)) {
            let message = format!("`{path}` is a path of one machine; use a relative one");
            violations.push(Violation::new(&source.path, index + 1, message));
        }
    }
}

/// Inside a longer path or an address the same text names something else.
fn is_absolute(line: &str, path: &str) -> bool {
    let inside = |c: char| is_word(c) || "./-~}$".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    #[test]
    fn ordinary_text_passes() {
        let samples = [
            ("a.rs", "#![forbid(unsafe_code)]\n// todo!( in a comment\nlet a = \"dbg!(\";"),
            ("b.md", "see docs/work/ and https://example.org/home/"),
            ("c.rs", &"\n".repeat(LONGEST)),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn each_forbidden_text_is_found() {
        let path = format!("cd {}main", MACHINE[0]);
        let samples = [
            ("a.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\nlet a = dbg!(1);"),
            ("b.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\nunsafe { g() }"),
            ("c.sh", path.as_str()),
            ("d.rs", &"\n".repeat(LONGEST + 1)),
        ];
        let expected =
            [("a.rs", 1), ("a.rs", 2), ("a.rs", 3), ("b.rs", 2), ("b.rs", 4), ("c.sh", 1)];
        let mut expected: Vec<_> = expected.map(|(file, line)| (file.to_owned(), line)).into();
        expected.push(("d.rs".to_owned(), LONGEST + 1));
        assert_eq!(found(check, &samples), expected);
    }
}
