/// Who sends the request, as the application's authentication has found out: put it into the request's
/// extensions before [`Idempotent`](super::Idempotent) or [`IdempotencyLayer`](super::IdempotencyLayer)
/// sees it.
///
/// A key is known to the caller alone who sent it: the same key of another tenant or principal is
/// another key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub(crate) tenant: String,
    pub(crate) principal: String,
}

impl Caller {
    /// A caller by the tenant (account, organisation) and who acts in it (user, API client). Use names
    /// that stay: a caller whose name changes between a request and its repeat is another one.
    pub fn new(tenant: impl Into<String>, principal: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), principal: principal.into() }
    }
}
