//! Rust text without what is not code: rules must not trip over comments and messages.

/// A string literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// Line of its first character, from 1.
    pub(crate) line: usize,
    /// What stands between the quotes, escapes as written.
    pub(crate) text: String,
}

/// Splits `text` into code, where comments and the contents of strings are blank and lines keep
/// their numbers, and its string literals.
pub(crate) fn split(text: &str) -> (String, Vec<Literal>) {
    let mut lexer = Lexer {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
        code: String::with_capacity(text.len()),
        literals: Vec::new(),
    };
    lexer.run();
    (lexer.code, lexer.literals)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    code: String,
    literals: Vec<Literal>,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.blank_while(|lexer| lexer.peek(0) != Some('\n')),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if self.starts_token() => self.raw_string(),
                ('\'', _) => self.quote(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn before(&self, back: usize) -> Option<char> {
        self.at.checked_sub(back).and_then(|at| self.chars.get(at)).copied()
    }

    /// Whether the current character begins a token; `b` and `c` may precede a raw string.
    fn starts_token(&self) -> bool {
        let word = |c: Option<char>| c.is_some_and(is_word);
        match self.before(1) {
            Some('b' | 'c') => !word(self.before(2)),
            other => !word(other),
        }
    }

    fn keep(&mut self) {
        if let Some(c) = self.peek(0) {
            self.line += usize::from(c == '\n');
            self.code.push(c);
            self.at += 1;
        }
    }

    fn blank(&mut self) {
        match self.peek(0) {
            Some('\n') => self.keep(),
            Some(_) => {
                self.code.push(' ');
                self.at += 1;
            }
            None => {}
        }
    }

    fn blank_while(&mut self, more: impl Fn(&Self) -> bool) {
        while self.peek(0).is_some() && more(self) {
            self.blank();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        self.keep();
        let start = self.at;
        while let Some(c) = self.peek(0) {
            match c {
                '"' => break,
                '\\' => {
                    self.blank();
                    self.blank();
                }
                _ => self.blank(),
            }
        }
        self.finish(line, start, self.at);
        self.keep();
    }

    fn raw_string(&mut self) {
        let hashes = self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count();
        if self.peek(1 + hashes) != Some('"') {
            // A raw identifier.
            return self.keep();
        }
        let line = self.line;
        for _ in 0..hashes + 2 {
            self.keep();
        }
        let start = self.at;
        let closes = |lexer: &Self| {
            lexer.peek(0) == Some('"') && (1..=hashes).all(|n| lexer.peek(n) == Some('#'))
        };
        self.blank_while(|lexer| !closes(lexer));
        self.finish(line, start, self.at);
        for _ in 0..=hashes {
            self.keep();
        }
    }

    fn finish(&mut self, line: usize, start: usize, end: usize) {
        let text = self.chars[start..end].iter().collect();
        self.literals.push(Literal { line, text });
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        self.keep();
        if self.peek(0) == Some('\\') {
            self.blank();
            self.blank();
            self.blank_while(|lexer| lexer.peek(0) != Some('\''));
            self.keep();
        } else if self.peek(1) == Some('\'') {
            self.blank();
            self.keep();
        }
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets at which `word` stands in `text` as a word of its own.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !text[..*at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"x // y\"; // lapin\n/* lapin /* b */\nlapin */ c r#\"q\"q\"# '\"' 'd";
        let (code, literals) = split(text);
        assert!(!code.contains("lapin") && !code.contains('y') && code.contains('c'), "{code}");
        assert_eq!(code.lines().count(), 3);
        let texts: Vec<_> = literals.iter().map(|literal| literal.text.as_str()).collect();
        assert_eq!(texts, ["x // y", "q\"q"]);
        assert_eq!(literals[1].line, 3);
    }

    #[test]
    fn a_lifetime_opens_no_character() {
        let (code, _) = split("fn f<'a>(x: &'a str) { '\\'' } // c");
        assert!(code.contains("fn f<'a>(x: &'a str)") && !code.contains("// c"), "{code}");
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }
}
