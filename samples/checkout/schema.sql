-- The shop's own tables, in the same database as durable's. One row an order and step: undoing a step that has not happened (yet)
-- leaves its row in the undone state, and a step that comes too late finds that row and does nothing.
create schema shop;
comment on schema shop is 'durable sample: checkout';

create table shop.items (
    sku         text primary key,
    name        text    not null,
    price_cents integer not null check (price_cents > 0),
    stock       integer not null check (stock >= 0),
    on_hand     integer not null check (on_hand between 0 and stock)
);

create table shop.reservations (
    order_id text primary key,
    state    text not null check (state in ('taken', 'returned'))
);

create table shop.reservation_lines (
    order_id text    not null references shop.reservations,
    sku      text    not null references shop.items,
    quantity integer not null check (quantity > 0),
    primary key (order_id, sku)
);

create table shop.payments (
    order_id     text primary key,
    state        text    not null check (state in ('captured', 'refunded')),
    charge_id    text,
    amount_cents integer not null check (amount_cents >= 0)
);

create table shop.shipments (
    order_id text primary key,
    state    text not null check (state in ('sent', 'recalled')),
    tracking text not null
);

create table shop.notifications (
    order_id  text not null,
    recipient text not null check (recipient in ('customer', 'warehouse')),
    message   text not null,
    primary key (order_id, recipient)
);

-- What ran, by the idempotency key of the activity call: a second attempt finds the first one's answer here.
create table shop.effects (
    idempotency_key text primary key,
    order_id        text not null,
    answer          json
);
