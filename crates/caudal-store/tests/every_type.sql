-- A table with a column of every type that comes with PostgreSQL, of types made by users, and rows with each type's odd values.
create schema types;
create type types.mood as enum ('sad', 'ok', 'it''s "fine"');
create type types.pair as (a int, "b c" text);
create type types.pairs as (one types.pair, many types.pair[]);
create domain types.postcode as text check (value ~ '^\d+$');
create domain types.amount as numeric(12, 4);
create domain types.codes as types.postcode[];
create type types.spread as range (subtype = float8);

create table types."every type" (
  id bigint primary key,
  int2 smallint, int4 integer, int8 bigint, float4 real, float8 double precision, "numeric" numeric,
  numeric_10_2 numeric(10, 2), money money, bool boolean,
  text text, "varchar" varchar(20), bpchar char(5), one "char", name name, bytea bytea,
  date date, time time, timetz time with time zone, "timestamp" timestamp, timestamptz timestamptz, "interval" interval,
  timestamp_0 timestamp(0),
  uuid uuid, json json, jsonb jsonb, jsonpath jsonpath, xml xml,
  inet inet, cidr cidr, macaddr macaddr, macaddr8 macaddr8, bit bit(4), varbit bit varying,
  point point, line line, lseg lseg, box box, path path, polygon polygon, circle circle,
  tsvector tsvector, tsquery tsquery, oid oid, regclass regclass, regtype regtype, pg_lsn pg_lsn, xid xid, tid tid,
  txid_snapshot txid_snapshot,
  int4range int4range, numrange numrange, tstzrange tstzrange, daterange daterange, int4multirange int4multirange,
  spread types.spread,
  ints integer[], texts text[], grid integer[][], times timestamp[], jsons json[], moods types.mood[], composites types.pair[],
  mood types.mood, pair types.pair, pairs types.pairs, postcode types.postcode, amount types.amount, codes types.codes,
  generated integer generated always as (int4 * 2) stored,
  "Odd ""name"" é" integer
);

insert into types."every type" values (
  1, -3, 5, 9007199254740993, 0.1, 1.5, 12345678901234567890.12345678901234567890,
  1.50, '12.34', true,
  'a', 'v', 'c', 'x', 'n', '\x00ff10',
  '2024-02-29', '12:34:56.5', '12:34:56+02', '2024-02-29 12:34:56.000001', '2024-02-29 12:34:56.5+02', '1 mon 2 days 03:04:05.6',
  '2024-02-29 12:34:56',
  '018f9c00-0000-7000-8000-000000000001', '{"b": 1.0,  "a": "\u0041", "b": 2}', '{"k": [1.50, null]}', '$.a', '<a>1</a>',
  '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', b'1010', b'10',
  '(1,2)', '{1,-1,0}', '[(0,0),(1,1)]', '((1,1),(0,0))', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),1>',
  'fat:2 cat:3A', 'fat & cat', 26, 'pg_class', 'integer', '16/B374D848', '1234', '(0,1)', '10:20:10,14,15',
  '[1,5)', '(0.5,)', '["2024-01-01 00:00:00+00",)', '[2024-01-01,2024-02-01)', '{[1,3),[5,7)}', '[0.5,1.5)',
  '{1,null,3}', '{"a,b","q\"q",null,"null"}', '{{1,2},{3,4}}', '{"2024-01-01 00:00:00"}', '{"{\"a\": 1}"}', '{sad,"it''s \"fine\""}',
  array[(1, 'x')::types.pair, null], 'it''s "fine"', (1, 'it''s "b", \ '), ((1, null), '{}'), '01234', 1.5, '{"01","2"}',
  default, 7
), (
  2, 32767, -1073741824, -9223372036854775808, 'NaN', 1e300, 'NaN',
  -0.01, '-1', false,
  '', '', '', '', '', '',
  '0001-01-01', '24:00', '00:00:00-15:59', 'infinity', 'infinity', '-1 year',
  '-infinity',
  '00000000-0000-0000-0000-000000000000', '"\u0000 \ud83d\ude00"', 'null', '$', '',
  '::1', '::/0', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', b'0000', b'',
  '(1e300,-0)', '{0,1,2}', '[(1,2),(3,4)]', '((1,2),(0,0))', '((0,0),(1,1))', '((1,2))', '<(1,2),0>',
  '', 'a | !b', 4294967295, 'pg_type', 'types.mood', '0/0', '4294967295', '(4294967295,65535)', '1:1:',
  'empty', '[1.0,1.0]', '[-infinity,infinity]', '(,)', '{}', '(,)',
  '{}', '{}', '{}', '{}', '{}', '{}', '{}', 'sad', (null, null), (null, array[(2, 'y')::types.pair]), '0', 0, '{}',
  default, -1
), (
  3, null, null, null, 'Infinity', -1.25e-7, '-Infinity',
  null, null, null,
  E'line\nbreak "quote" \\ tab\t é ü 😀 \u2028', 'ñ', null, null, null, null,
  'infinity', null, null, '2024-01-01 00:00:00', '-infinity', null,
  null,
  null, null, '{"a": {"b": [1, 2.50, "x"]}}', null, null,
  null, null, null, null, null, null,
  null, null, null, null, null, null, null,
  null, null, null, null, null, null, null, null, null,
  null, null, null, null, null, null,
  '[0:1]={7,8}', null, null, null, null, null, null, null, null, null, null, null, null,
  default, null
);
