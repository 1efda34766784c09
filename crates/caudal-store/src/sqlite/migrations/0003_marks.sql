-- Random values that every process of a deployment has: kept here, so that nobody configures them.
create table _secrets (
    name text not null primary key,
    secret text not null
) without rowid;
insert into _secrets values ('cursor', lower(hex(randomblob(32))));

-- The highest row number that each table ever had: SQLite gives the last ones out again when their rows are gone.
create table _numbers (
    name text not null primary key,
    number integer not null
) without rowid;
