create table _dead_letters (
    _id uuid primary key,
    topic text collate "C" not null,
    transaction_id uuid not null,
    key text collate "C",
    source text collate "C" not null,
    reason text collate "C" not null,
    detail text collate "C" not null,
    pointer text collate "C" not null,
    payload text collate "C" not null,
    payload_encoding text collate "C" not null,
    attributes jsonb,
    published_at timestamptz not null,
    dead_at timestamptz not null,
    state text collate "C" not null,
    attempts bigint not null,
    settled_at timestamptz,
    outcome text collate "C"
);
create index _dead_letters_transaction_id on _dead_letters (transaction_id);
create index _dead_letters_topic on _dead_letters (topic, dead_at);

-- One row a writer: writers never wait for each other here. Room in each page keeps the updates within it.
create table _ledger (
    topic text collate "C" not null,
    writer text collate "C" not null,
    accepted bigint not null,
    stored bigint not null,
    duplicate bigint not null,
    rejected bigint not null,
    dead bigint not null,
    primary key (topic, writer)
) with (fillfactor = 50);

create table _positions (
    topic text collate "C" not null,
    subscription text collate "C" not null,
    incarnation uuid not null,
    position bigint not null,
    updated_at timestamptz not null,
    primary key (topic, subscription, incarnation)
) with (fillfactor = 50);

create table _drift (
    topic text collate "C" not null,
    field text collate "C" not null,
    json_type text collate "C" not null,
    count bigint not null,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    primary key (topic, field, json_type)
);
