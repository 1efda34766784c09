-- Random values that every process of a deployment has: kept here, so that nobody configures them.
create table _secrets (
    name text collate "C" primary key,
    secret text collate "C" not null
);
insert into _secrets values ('cursor', gen_random_uuid()::text || gen_random_uuid()::text);
