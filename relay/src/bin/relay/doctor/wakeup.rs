use outbox::admin::Facts;
use relay::Wake;

use super::finding::Findings;

/// Whether who would tell and who would be told agree.
pub(super) fn look(wake: Wake, facts: &Facts, findings: &mut Findings) {
    let Some(on) = facts.wakeup else { return };
    match (wake, on) {
        (Wake::Poll, false) => findings.ok("wake-up", "off: the relay polls".to_owned()),
        (Wake::Notify, true) => {
            findings.ok("wake-up", "producers tell a sleeping relay of their commits".to_owned());
        }
        (Wake::Notify, false) => findings.warn(
            "wake-up",
            "[relay] wake is \"notify\", and producers do not tell: the relay polls".to_owned(),
            "`relay wakeup on` as the owner of the tables, or set wake to \"poll\"".to_owned(),
        ),
        (Wake::Poll, true) => findings.warn(
            "wake-up",
            "it is on, and this relay does not ask to be told: each insert does some work in vain"
                .to_owned(),
            "set [relay] wake to \"notify\", or `relay wakeup off` where no relay has it"
                .to_owned(),
        ),
    }
    if on && facts.prepares {
        findings.warn(
            "wake-up",
            "the server allows PREPARE TRANSACTION, and a transaction that tells a relay cannot be prepared"
                .to_owned(),
            "`relay wakeup off` where transactions with messages are prepared; else nothing, or \
             max_prepared_transactions = 0"
                .to_owned(),
        );
    }
}
