//! E-mail: a mail server neither honours keys nor can be asked, so an unknown mail is a person's to decide about, who
//! looks for its `Message-ID` in the mailbox.

use std::net::SocketAddr;

use anyhow::Result;
use diesel::prelude::*;
use inbox::effect::admin::{Decision, Order, Selection, decide, list};
use inbox::effect::{CallFailure, ProviderKey};
use inbox::{Builder, Consumer, Context, Failure, Handler, OnReplay};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use message::Event;

use crate::events::InvoiceIssued;
use crate::mailbox::Mailbox;
use crate::shop::{Shop, mails};

struct Mailing {
    server: SocketAddr,
}

pub(crate) async fn consumer(shop: &Shop, mailbox: &Mailbox) -> Result<Builder<SqliteConnection>> {
    let mail = shop.consumer(Consumer("mail"), InvoiceIssued::KIND).await?;
    Ok(mail.handler(Mailing { server: mailbox.address }))
}

impl Handler<SqliteConnection> for Mailing {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = InvoiceIssued;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, issued: &InvoiceIssued, context: &Context<'_>) -> Result<(), Failure> {
        let effects = context.effects();
        let mail = effects.effect("invoice-mail").review();
        Ok(mail.once(|key| send(self.server, issued.clone(), key)).await?)
    }

    fn apply(
        &self,
        tx: &mut SqliteConnection,
        issued: &InvoiceIssued,
        _: &(),
        _: &Context<'_>,
    ) -> Result<(), Failure> {
        diesel::insert_into(mails::table).values(mails::order_id.eq(&issued.order)).execute(tx)?;
        Ok(())
    }
}

/// What the mail of a key is known by.
fn message_id(key: impl std::fmt::Display) -> String {
    format!("<{key}@shop.example>")
}

async fn send(
    server: SocketAddr,
    issued: InvoiceIssued,
    key: ProviderKey,
) -> Result<(), CallFailure> {
    let to = format!("{}@customers.example", issued.customer);
    let mail = Message::builder()
        .message_id(Some(message_id(key)))
        .from("Shop <shop@shop.example>".parse()?)
        .to(to.parse()?)
        .subject(format!("Invoice {}", issued.number))
        .body(format!("{} cents for {}.\n", issued.cents, issued.order))?;
    let host = server.ip().to_string();
    let client = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host);
    match client.port(server.port()).build().send(mail).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_permanent() => Err(CallFailure::refused(error.to_string())),
        Err(error) => Err(CallFailure::unknown(error)),
    }
}

/// Decides about the mails nobody knows about, as an operator does with `relay effects`; how many there were.
pub(crate) async fn look_them_up(shop: &Shop, mailbox: &Mailbox) -> Result<usize> {
    let arrived = mailbox.message_ids();
    let decided = shop.db.call(move |conn| {
        let mut which = Selection::default();
        which.in_review = true;
        let unknown = list(conn, &which)?;
        let order = Order::new("anna@desk", "looked for its Message-ID in the mailbox");
        for effect in &unknown {
            let there = arrived.contains(&message_id(effect.key));
            let decision = if there { Decision::Done(None) } else { Decision::NotDone };
            decide(conn, effect.id, &decision, &order)?;
        }
        anyhow::Ok(unknown.len())
    });
    match decided.await {
        Ok(decided) => Ok(decided),
        Err(error) => anyhow::bail!("the ledger cannot be used: {error}"),
    }
}
