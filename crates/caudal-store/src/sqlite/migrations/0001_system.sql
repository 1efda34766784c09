create table _dead_letters (
    _id text not null primary key,
    topic text not null,
    transaction_id text not null,
    key text,
    source text not null,
    reason text not null,
    detail text not null,
    pointer text not null,
    payload text not null,
    payload_encoding text not null,
    attributes text,
    published_at text not null,
    dead_at text not null,
    state text not null,
    attempts integer not null,
    settled_at text,
    outcome text
);
create index _dead_letters_transaction_id on _dead_letters (transaction_id);
create index _dead_letters_topic on _dead_letters (topic, dead_at);

create table _ledger (
    topic text not null,
    writer text not null,
    accepted integer not null,
    stored integer not null,
    duplicate integer not null,
    rejected integer not null,
    dead integer not null,
    primary key (topic, writer)
) without rowid;

create table _positions (
    topic text not null,
    subscription text not null,
    incarnation text not null,
    position integer not null,
    updated_at text not null,
    primary key (topic, subscription, incarnation)
) without rowid;

create table _drift (
    topic text not null,
    field text not null,
    json_type text not null,
    count integer not null,
    first_seen text not null,
    last_seen text not null,
    primary key (topic, field, json_type)
) without rowid;
