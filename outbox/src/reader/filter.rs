/// Which messages of the log a cursor hands on; it passes over the others. A message must pass both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these kinds; `None` for every kind.
    pub kinds: Option<Vec<String>>,
    /// Only messages to these exchanges; `None` for every exchange.
    pub exchanges: Option<Vec<String>>,
}

impl Filter {
    /// Whether it lets everything pass.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.kinds.is_none() && self.exchanges.is_none()
    }
}
