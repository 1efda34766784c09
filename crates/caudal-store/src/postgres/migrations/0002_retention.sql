-- Keys of records that retention has removed: they go on deduplicating until they are forgotten.
create table _expired (
    _id uuid primary key,
    topic text collate "C" not null,
    expired_at timestamptz not null
);
create index _expired_at on _expired (topic, expired_at);

create table _retention (
    topic text collate "C" primary key,
    expired bigint not null
) with (fillfactor = 50);
