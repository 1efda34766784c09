-- Random values that every process of a deployment has: kept here, so that nobody configures them.
create table _secrets (
    name text not null primary key,
    secret text not null
) without rowid;
insert into _secrets values ('cursor', lower(hex(randomblob(32))));
