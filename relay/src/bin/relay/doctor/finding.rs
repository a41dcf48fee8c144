/// What one check found.
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// The relay works, and somebody should look.
    Warn,
    /// The relay cannot do its work, or part of it.
    Fail,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, name: &'static str, text: String) {
        self.0.push(Finding { name, verdict: Verdict::Ok, text, remedy: None });
    }

    pub(super) fn warn(&mut self, name: &'static str, text: String, remedy: String) {
        self.0.push(Finding { name, verdict: Verdict::Warn, text, remedy: Some(remedy) });
    }

    pub(super) fn fail(&mut self, name: &'static str, text: String, remedy: String) {
        self.0.push(Finding { name, verdict: Verdict::Fail, text, remedy: Some(remedy) });
    }
}
