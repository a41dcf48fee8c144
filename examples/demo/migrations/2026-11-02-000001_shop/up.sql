-- The shop's own tables, in SQL that PostgreSQL and SQLite both read. They stand beside Counterfoil's
-- and are migrated by the shop's own diesel harness.
-- Money in cents, times in microseconds since 1970.

CREATE TABLE orders (
    id        TEXT PRIMARY KEY NOT NULL,
    merchant  TEXT NOT NULL,
    cents     BIGINT NOT NULL,
    placed_at BIGINT NOT NULL
);

-- The truth: every payment the shop has taken.
CREATE TABLE payments (
    id       TEXT PRIMARY KEY NOT NULL,
    order_id TEXT NOT NULL REFERENCES orders (id),
    cents    BIGINT NOT NULL,
    paid_at  BIGINT NOT NULL
);

-- Every time the shop told the world of a payment. More than once for some: that is the demonstration.
CREATE TABLE announcements (
    event_id   TEXT PRIMARY KEY NOT NULL,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    story      TEXT NOT NULL CHECK (story IN ('first', 'again', 'altered'))
);

-- What a consumer owes each merchant.
CREATE TABLE accounts (
    consumer TEXT NOT NULL,
    merchant TEXT NOT NULL,
    cents    BIGINT NOT NULL,
    PRIMARY KEY (consumer, merchant)
);

-- How it came to that. Deliberately without a unique constraint: nothing here helps the naive consumer.
CREATE TABLE credits (
    consumer    TEXT NOT NULL,
    payment_id  TEXT NOT NULL,
    cents       BIGINT NOT NULL,
    paid_at     BIGINT NOT NULL,
    credited_at BIGINT NOT NULL
);
CREATE INDEX credits_consumer ON credits (consumer);
