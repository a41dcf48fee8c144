use std::collections::HashSet;

use fastrand::Rng;

const MERCHANTS: usize = 100;
/// One payment in so many is told a second time under another event id.
const AGAIN_ONE_IN: usize = 10;
/// One payment in so many is told once more with another amount.
const ALTERED_ONE_IN: usize = 200;

/// One order with its payment, and what will be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sale {
    pub(crate) order_id: String,
    pub(crate) payment_id: String,
    pub(crate) merchant: String,
    pub(crate) cents: i64,
    pub(crate) again: bool,
    /// The amount of a contradicting announcement.
    pub(crate) altered: Option<i64>,
}

/// All sales of a run, the same for the same seed.
pub(crate) fn sales(orders: usize, seed: u64) -> Vec<Sale> {
    let mut rng = Rng::with_seed(seed);
    let pick = |rng: &mut Rng, one_in: usize| -> HashSet<usize> {
        rng.choose_multiple(0..orders, (orders / one_in).max(1)).into_iter().collect()
    };
    let again = pick(&mut rng, AGAIN_ONE_IN);
    let altered = pick(&mut rng, ALTERED_ONE_IN);
    let sale = |number: usize| {
        let cents = rng.i64(100..=20_000);
        Sale {
            order_id: format!("order_{number:06}"),
            payment_id: format!("pay_{number:06}"),
            merchant: format!("merchant_{:02}", rng.usize(0..MERCHANTS)),
            cents,
            again: again.contains(&number),
            altered: altered.contains(&number).then(|| cents + rng.i64(1..=5_000)),
        }
    };
    (0..orders).map(sale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything_and_every_kind_occurs() {
        let one = sales(400, 7);
        assert_eq!(one, sales(400, 7));
        assert_ne!(one, sales(400, 8));
        assert_eq!(one.iter().filter(|sale| sale.again).count(), 40);
        assert_eq!(one.iter().filter(|sale| sale.altered.is_some()).count(), 2);
        assert!(one.iter().all(|sale| sale.altered != Some(sale.cents)));
    }
}
