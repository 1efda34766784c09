create type mood as enum ('sad', 'ok');
create type place as (x int, y int);
create table kinds (
  id int primary key, mood mood, price numeric(10, 2), tags text[], at timestamp, place place, within int4range, raw bytea,
  address inet, lasting interval, real real);
insert into kinds values
  (1, 'ok', 12.5, '{a,"b,c"}', '2024-02-29 12:00:00.5', (1, null), '[1,4]', '\x00ff', '10.0.0.1', '90 minutes', 0.1),
  (2, 'sad', -1, '{}', 'infinity', null, 'empty', '', '::1', '1 second', 'NaN');
create schema other;
create table other.artist (id int primary key, name text);
insert into other.artist values (77, 'another');
create table public.orders_by_others (id int);
