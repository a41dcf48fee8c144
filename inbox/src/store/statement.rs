use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Binary, Bool, HasSqlType, Integer, Nullable, Text};

/// A statement whose text is constant, with `?` for each value in turn.
///
/// `sql_query` would do, but it is prepared anew on every call; this is prepared once per connection
/// and stays SQL to the reader.
pub(crate) struct Statement<'a, const N: usize, ST = (), Q = AnyText> {
    text: &'static str,
    binds: [Bind<'a>; N],
    row: PhantomData<fn() -> (ST, Q)>,
}

/// A statement's text as a type. diesel finds a prepared statement by its type at once, and by its text only
/// after putting that together and hashing it: for what every message or request runs.
pub(crate) trait Sql: 'static {
    /// The text; `None` where the type says nothing about it.
    const TEXT: Option<&'static str>;
}

/// Found by its text.
pub(crate) struct AnyText;

impl Sql for AnyText {
    const TEXT: Option<&'static str> = None;
}

/// Names a text.
#[cfg(any(feature = "postgres", feature = "http"))]
macro_rules! sql {
    ($name:ident = $text:expr) => {
        pub(crate) struct $name;

        impl $crate::store::statement::Sql for $name {
            const TEXT: Option<&'static str> = Some($text);
        }
    };
}
#[cfg(any(feature = "postgres", feature = "http"))]
pub(crate) use sql;

/// A value.
pub(crate) enum Bind<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
    MaybeBytes(Option<&'a [u8]>),
    Integer(i32),
    BigInt(i64),
    MaybeBigInt(Option<i64>),
    Bool(bool),
}

impl<'a, const N: usize, ST> Statement<'a, N, ST> {
    pub(crate) fn new(text: &'static str, binds: [Bind<'a>; N]) -> Self {
        Self::with(text, binds)
    }
}

impl<'a, const N: usize, ST, Q: Sql> Statement<'a, N, ST, Q> {
    /// The one that the type names.
    #[cfg(any(feature = "postgres", feature = "http"))]
    pub(crate) fn named(binds: [Bind<'a>; N]) -> Self {
        Self::with(const { Q::TEXT.expect("a type that names a text") }, binds)
    }

    fn with(text: &'static str, binds: [Bind<'a>; N]) -> Self {
        debug_assert_eq!(text.matches('?').count(), N, "{text}");
        Self { text, binds, row: PhantomData }
    }
}

impl<const N: usize, ST, Q: Sql> QueryId for Statement<'_, N, ST, Q> {
    type QueryId = Q;
    const HAS_STATIC_QUERY_ID: bool = Q::TEXT.is_some();
}

impl<const N: usize, ST, Q> Query for Statement<'_, N, ST, Q> {
    type SqlType = ST;
}

impl<C, const N: usize, ST, Q> RunQueryDsl<C> for Statement<'_, N, ST, Q> {}

impl<DB, const N: usize, ST, Q> QueryFragment<DB> for Statement<'_, N, ST, Q>
where
    DB: Backend
        + HasSqlType<Text>
        + HasSqlType<Binary>
        + HasSqlType<Integer>
        + HasSqlType<BigInt>
        + HasSqlType<Bool>,
    str: ToSql<Text, DB>,
    for<'x> Option<&'x str>: ToSql<Nullable<Text>, DB>,
    [u8]: ToSql<Binary, DB>,
    for<'x> Option<&'x [u8]>: ToSql<Nullable<Binary>, DB>,
    i32: ToSql<Integer, DB>,
    i64: ToSql<BigInt, DB>,
    Option<i64>: ToSql<Nullable<BigInt>, DB>,
    bool: ToSql<Bool, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut binds = self.binds.iter();
        let mut first = true;
        for text in self.text.split('?') {
            if !first {
                match binds.next() {
                    Some(Bind::Text(value)) => out.push_bind_param::<Text, str>(value)?,
                    Some(Bind::MaybeText(value)) => {
                        out.push_bind_param::<Nullable<Text>, _>(value)?
                    }
                    Some(Bind::Bytes(value)) => out.push_bind_param::<Binary, [u8]>(value)?,
                    Some(Bind::MaybeBytes(value)) => {
                        out.push_bind_param::<Nullable<Binary>, _>(value)?
                    }
                    Some(Bind::Integer(value)) => out.push_bind_param::<Integer, _>(value)?,
                    Some(Bind::BigInt(value)) => out.push_bind_param::<BigInt, _>(value)?,
                    Some(Bind::MaybeBigInt(value)) => {
                        out.push_bind_param::<Nullable<BigInt>, _>(value)?
                    }
                    Some(Bind::Bool(value)) => out.push_bind_param::<Bool, _>(value)?,
                    None => {}
                }
            }
            first = false;
            out.push_sql(text);
        }
        Ok(())
    }
}
