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
pub(crate) struct Statement<'a, const N: usize, ST = ()> {
    text: &'static str,
    binds: [Bind<'a>; N],
    row: PhantomData<fn() -> ST>,
}

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
        debug_assert_eq!(text.matches('?').count(), N, "{text}");
        Self { text, binds, row: PhantomData }
    }
}

impl<const N: usize, ST> QueryId for Statement<'_, N, ST> {
    type QueryId = ();
    // The text identifies it.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<const N: usize, ST> Query for Statement<'_, N, ST> {
    type SqlType = ST;
}

impl<C, const N: usize, ST> RunQueryDsl<C> for Statement<'_, N, ST> {}

impl<DB, const N: usize, ST> QueryFragment<DB> for Statement<'_, N, ST>
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
