-- Confirmation. What waits is in narrow tables that rows leave; what has ended is in one that rows only enter.

create table _confirm_lanes (
    lane integer generated always as identity primary key,
    topic text collate "C" not null,
    name text collate "C" not null,
    -- Records stored before were never to be confirmed.
    since timestamptz not null default clock_timestamp(),
    adopts boolean not null,
    paused_at timestamptz,
    paused_reason text collate "C",
    unique (topic, name)
);

-- Pending. `fresh`: nobody has had it yet, so nobody can have settled it.
create table _confirm_ready (
    lane integer not null,
    rank smallint not null,
    pos bigint generated always as identity,
    tx uuid not null,
    attempts integer not null,
    crashes integer not null,
    doubt boolean not null,
    fresh boolean not null,
    since timestamptz not null,
    first_sent timestamptz,
    primary key (lane, rank, pos)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- One row a batch. Its arrays are written once and read seldom: kept out of the row, so that a heartbeat rewrites little.
create table _confirm_leases (
    lease bigint generated always as identity primary key,
    worker text collate "C" not null,
    until timestamptz not null,
    lane integer not null,
    rank smallint not null,
    phase text collate "C" not null,
    called_at timestamptz,
    items integer not null,
    -- Items have left it other than by an outcome.
    shrunk boolean not null default false,
    txs uuid[] not null,
    attempts integer[] not null,
    crashes integer[] not null,
    doubts boolean[] not null,
    sinces timestamptz[] not null,
    first_sents timestamptz[] not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
        toast.autovacuum_vacuum_threshold = 5000, toast.autovacuum_vacuum_cost_delay = 0);
alter table _confirm_leases
    alter column txs set storage external, alter column attempts set storage external,
    alter column crashes set storage external, alter column doubts set storage external,
    alter column sinces set storage external, alter column first_sents set storage external;

-- Due later: not done, or in doubt.
create table _confirm_deferred (
    tx uuid primary key,
    lane integer not null,
    due timestamptz not null,
    doubt boolean not null,
    attempts integer not null,
    crashes integer not null,
    since timestamptz not null,
    first_sent timestamptz,
    code integer,
    detail text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index _confirm_deferred_due on _confirm_deferred (lane, due);

-- Held and dead: goes on only by a person's word, or a late fact.
create table _confirm_aside (
    tx uuid primary key,
    lane integer not null,
    state text collate "C" not null,
    maybe_done boolean not null,
    attempts integer not null,
    crashes integer not null,
    since timestamptz not null,
    first_sent timestamptz,
    code integer,
    detail text collate "C" not null,
    at timestamptz not null
);

-- The one row that a transaction ends with: its key is what makes it one.
create table _confirm_outcomes (
    tx uuid primary key,
    fence bigint not null,
    since timestamptz not null,
    at timestamptz not null,
    lane integer not null,
    attempts integer not null,
    code integer,
    state text collate "C" not null,
    detail text collate "C" not null
);

-- Answers that say something else than the outcome that stands.
create table _confirm_contradictions (
    tx uuid not null,
    lane integer not null,
    had text collate "C" not null,
    got text collate "C" not null,
    code integer,
    detail text collate "C" not null,
    fence bigint not null,
    at timestamptz not null,
    primary key (tx, got)
);

-- What did not lead to an outcome.
create table _confirm_tried (
    tx uuid not null,
    attempt integer not null,
    at timestamptz not null,
    state text collate "C" not null,
    code integer,
    detail text collate "C" not null
);
create index _confirm_tried_tx on _confirm_tried (tx, at);

create table _confirm_workers (
    worker text collate "C" primary key,
    until timestamptz not null
) with (fillfactor = 50);

-- One row a writer, as in _ledger.
create table _confirm_counts (
    lane integer not null,
    writer text collate "C" not null,
    enqueued bigint not null,
    primary key (lane, writer)
) with (fillfactor = 50);

-- Rows of tables that somebody else writes, and the transactions that stand for them.
create table _confirm_adopted (
    tx uuid primary key,
    lane integer not null,
    key text collate "C" not null,
    unique (lane, key)
);

-- An outcome beats whatever place the transaction has not left yet.
create view _confirmations as
select o.tx as _id, l.topic, l.name as lane, o.state, o.attempts::bigint as attempts, 0::bigint as crashes,
       false as maybe_done, o.since, null::timestamptz as first_sent, null::timestamptz as due, o.at,
       o.code::bigint as code, o.detail
  from _confirm_outcomes o join _confirm_lanes l on l.lane = o.lane
union all
select r.tx, l.topic, l.name, case when r.doubt then 'doubt' else 'pending' end collate "C", r.attempts, r.crashes,
       false, r.since, r.first_sent, null, null, null, ''
  from _confirm_ready r join _confirm_lanes l on l.lane = r.lane
 where r.fresh or not exists (select from _confirm_outcomes o where o.tx = r.tx)
union all
select u.tx, l.topic, l.name, s.phase, u.attempts, u.crashes,
       false, u.since, coalesce(u.first_sent, s.called_at), null, s.called_at, null, ''
  from _confirm_leases s join _confirm_lanes l on l.lane = s.lane
  cross join lateral unnest(s.txs, s.attempts, s.crashes, s.sinces, s.first_sents)
    as u(tx, attempts, crashes, since, first_sent)
 where not exists (select from _confirm_outcomes o where o.tx = u.tx)
union all
select d.tx, l.topic, l.name, case when d.doubt then 'doubt' else 'retry' end collate "C", d.attempts, d.crashes,
       false, d.since, d.first_sent, d.due, null, d.code, d.detail
  from _confirm_deferred d join _confirm_lanes l on l.lane = d.lane
 where not exists (select from _confirm_outcomes o where o.tx = d.tx)
union all
select a.tx, l.topic, l.name, a.state, a.attempts, a.crashes,
       a.maybe_done, a.since, a.first_sent, null, a.at, a.code, a.detail
  from _confirm_aside a join _confirm_lanes l on l.lane = a.lane
 where not exists (select from _confirm_outcomes o where o.tx = a.tx);
