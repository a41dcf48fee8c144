use message::InvalidMessage;

/// Why an event was not enqueued. The business transaction should be rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// No transaction is open on the connection: the event and the business change would commit
    /// apart, which is what an outbox is there to prevent.
    #[error(
        "no transaction is open on this connection; call enqueue inside `conn.transaction(|tx| …)` together with the business change"
    )]
    NoTransaction,
    /// The message breaks a limit. Nothing was sent to the database.
    #[error("the message cannot be enqueued: {0}")]
    Invalid(#[from] InvalidMessage),
    /// `serialized()` was asked for without an ordering key.
    #[error(
        "serialized() orders messages by their ordering key and this one has none; implement Event::ordering_key or call ordering_key(..)"
    )]
    NothingToSerialize,
    /// The table is missing.
    #[error(
        "there is no outbox on this connection's search path: {0}; run `relay migrate` on this database"
    )]
    MissingTable(#[source] diesel::result::Error),
    /// The same message id is stored already. After an unknown COMMIT this is the proof that the
    /// first attempt took effect: do not enqueue again.
    #[error("message {id} is in the outbox already; the transaction that enqueued it committed")]
    AlreadyEnqueued {
        /// The id.
        id: message::MessageId,
    },
    /// The database refused.
    #[error("the outbox row could not be written: {0}")]
    Database(#[from] diesel::result::Error),
}

impl EnqueueError {
    /// Gives a database error of an INSERT into the outbox its name.
    pub(crate) fn of_insert(
        error: diesel::result::Error,
        first: Option<message::MessageId>,
    ) -> Self {
        use diesel::result::{DatabaseErrorKind, Error};
        let Error::DatabaseError(kind, info) = &error else { return Self::Database(error) };
        let text = info.message();
        let about_id =
            text.contains("outbox_messages_id_unique") || text.contains("outbox_messages.id");
        match (kind, first) {
            (DatabaseErrorKind::UniqueViolation, Some(id)) if about_id => {
                Self::AlreadyEnqueued { id }
            }
            _ if text.contains("\"outbox_messages\" does not exist")
                || text.contains("no such table: outbox_messages") =>
            {
                Self::MissingTable(error)
            }
            _ => Self::Database(error),
        }
    }
}

/// Lets a business transaction whose error is diesel's use `?` on enqueue. The text is kept.
impl From<EnqueueError> for diesel::result::Error {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Database(error) | EnqueueError::MissingTable(error) => error,
            other => Self::QueryBuilderError(Box::new(other)),
        }
    }
}
