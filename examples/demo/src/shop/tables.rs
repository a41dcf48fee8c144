//! The shop's tables, as its own code sees them.

diesel::table! {
    orders (id) {
        id -> Text,
        merchant -> Text,
        cents -> BigInt,
        placed_at -> BigInt,
    }
}

diesel::table! {
    payments (id) {
        id -> Text,
        order_id -> Text,
        cents -> BigInt,
        paid_at -> BigInt,
    }
}

diesel::table! {
    announcements (event_id) {
        event_id -> Text,
        payment_id -> Text,
        story -> Text,
    }
}

diesel::table! {
    accounts (consumer, merchant) {
        consumer -> Text,
        merchant -> Text,
        cents -> BigInt,
    }
}

diesel::table! {
    // It has no key, on purpose; diesel wants to hear of one.
    credits (payment_id) {
        consumer -> Text,
        payment_id -> Text,
        cents -> BigInt,
        paid_at -> BigInt,
        credited_at -> BigInt,
    }
}
