-- Confirmations. A transaction is in one of ready, leased, deferred, aside and outcomes. Somebody's late fact may give one an
-- outcome while another's lease still has it: the outcome stands then, and the lease drops it.

create table _confirm_lanes (
    lane integer not null primary key,
    topic text not null,
    name text not null,
    -- Records stored before were never pending.
    since text not null,
    paused_at text,
    paused_reason text,
    unique (topic, name)
);

-- The last position given out. None is given out twice: claims go on from one after everything before it has left.
create table _confirm_positions (last integer not null);
insert into _confirm_positions (last) values (0);

create table _confirm_ready (
    lane integer not null,
    rank integer not null,
    pos integer not null,
    tx text not null unique,
    attempts integer not null,
    crashes integer not null,
    doubt integer not null,
    since text not null,
    first_sent text,
    primary key (lane, rank, pos)
) without rowid;

-- `autoincrement`: a number is never used twice.
create table _confirm_leases (
    lease integer not null primary key autoincrement,
    worker text not null,
    until text not null,
    lane integer not null,
    phase text not null,
    called_at text
);
create table _confirm_leased (
    lease integer not null,
    tx text not null,
    pos integer not null,
    attempts integer not null,
    crashes integer not null,
    doubt integer not null,
    since text not null,
    first_sent text,
    primary key (lease, tx)
) without rowid;

create table _confirm_deferred (
    tx text not null primary key,
    due text not null,
    lane integer not null,
    doubt integer not null,
    attempts integer not null,
    crashes integer not null,
    since text not null,
    first_sent text,
    code integer,
    detail text not null
) without rowid;
create index _confirm_deferred_due on _confirm_deferred (lane, due);

create table _confirm_aside (
    tx text not null primary key,
    lane integer not null,
    state text not null,
    maybe_done integer not null,
    attempts integer not null,
    crashes integer not null,
    since text not null,
    first_sent text,
    code integer,
    detail text not null,
    at text not null
) without rowid;

-- `fence`: the lease that reported it; 0, a person.
create table _confirm_outcomes (
    tx text not null primary key,
    lane integer not null,
    state text not null,
    attempts integer not null,
    code integer,
    fence integer not null,
    since text not null,
    at text not null,
    detail text not null
) without rowid;

create table _confirm_contradictions (
    tx text not null,
    had text not null,
    got text not null,
    code integer,
    detail text not null,
    fence integer not null,
    at text not null,
    primary key (tx, got)
) without rowid;

create table _confirm_tried (
    number integer not null primary key,
    tx text not null,
    attempt integer not null,
    at text not null,
    state text not null,
    code integer,
    detail text not null
);
create index _confirm_tried_tx on _confirm_tried (tx);

create table _confirm_workers (
    worker text not null primary key,
    until text not null
) without rowid;

create table _confirm_counts (
    lane integer not null,
    writer text not null,
    enqueued integer not null,
    confirmed integer not null,
    rejected integer not null,
    void integer not null,
    primary key (lane, writer)
) without rowid;

-- Rows of tables that others write. `key` has no type: it is whatever the table's own column holds.
create table _confirm_adopted (
    tx text not null primary key,
    lane integer not null,
    key not null,
    unique (lane, key)
) without rowid;

create view _confirmations as
select s._id, n.topic, n.name as lane, s.state, s.attempts, s.crashes, s.maybe_done, s.since, s.first_sent, s.due, s.at,
       s.code, s.detail, s.lane as lane_number
  from (
    select tx as _id, lane, state, attempts, 0 as crashes, 0 as maybe_done, since, null as first_sent, null as due, at, code, detail
      from _confirm_outcomes
    union all
    select tx, lane, state, attempts, crashes, maybe_done, since, first_sent, null, at, code, detail
      from _confirm_aside
    union all
    select tx, lane, iif(doubt, 'doubt', 'retry'), attempts, crashes, 0, since, first_sent, due, null, code, detail
      from _confirm_deferred
    union all
    select tx, lane, iif(doubt, 'doubt', 'pending'), attempts, crashes, 0, since, first_sent, null, null, null, ''
      from _confirm_ready
    union all
    select l.tx, c.lane, c.phase, l.attempts, l.crashes, 0, l.since, l.first_sent, null, c.called_at, null, ''
      from _confirm_leases c cross join _confirm_leased l on l.lease = c.lease
     where not exists (select 1 from _confirm_outcomes o where o.tx = l.tx)
  ) s
  join _confirm_lanes n on n.lane = s.lane;
