-- Keys of records that retention has removed: they go on deduplicating until they are forgotten.
create table _expired (
    _id text not null primary key,
    topic text not null,
    expired_at text not null
) without rowid;
create index _expired_at on _expired (topic, expired_at);

create table _retention (
    topic text not null primary key,
    expired integer not null
);
