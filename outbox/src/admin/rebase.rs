/// What making a restored or copied database its own found and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebased {
    /// Cursors that start in this cluster now.
    pub cursors: u64,
    /// Messages below a cursor that it had not handed on, because their transactions committed late.
    pub late: u64,
    /// Messages above the first cursor.
    pub pending: u64,
}
