use std::borrow::Cow;

use message::OperationKey;

use crate::park::clean;
use crate::{Consumer, Context};

/// Who brought an event, and with which message; kept with the history. A handler passes its
/// [`Context`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause<'a> {
    pub(crate) consumer: Option<Cow<'a, str>>,
    pub(crate) scope: Option<Cow<'a, str>>,
    pub(crate) operation: Option<Cow<'a, str>>,
    pub(crate) message_id: Option<Cow<'a, str>>,
}

// Each in a form that can be stored: a foreign producer may have written anything.
impl<'a> Cause<'a> {
    /// Nothing known, to begin with: for events that no message brings.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Names the consumer.
    #[must_use]
    pub fn consumer(mut self, consumer: Consumer<'a>) -> Self {
        self.consumer = Some(clean(consumer.0));
        self
    }

    /// Names the business operation.
    #[must_use]
    pub fn operation(mut self, operation: &'a OperationKey) -> Self {
        self.scope = Some(clean(operation.scope()));
        self.operation = Some(clean(operation.id()));
        self
    }

    /// Names the message.
    #[must_use]
    pub fn message_id(mut self, id: &'a str) -> Self {
        self.message_id = Some(clean(id));
        self
    }
}

impl<'a> From<&'a Context<'_>> for Cause<'a> {
    fn from(context: &'a Context<'_>) -> Self {
        let cause = Self::unknown().consumer(context.consumer()).operation(context.operation());
        match context.message_id() {
            Some(id) => cause.message_id(id),
            None => cause,
        }
    }
}
