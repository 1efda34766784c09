-- One batch in the statements of caudal-store/src/postgres/confirm (claim.rs, settle.rs), with nobody called: claim, read the records, say that
-- calls begin, settle all as confirmed.
with taken as (
  delete from _confirm_ready where ctid = any(array(
    select ctid from _confirm_ready
    where lane = :lane and rank = 0 and pos > :pos and (select paused_at is null from _confirm_lanes where lane = :lane)
    order by pos limit :batch for update skip locked))
  returning pos, tx, attempts, crashes, doubt, fresh, since, first_sent),
kept as (
  select * from taken t where fresh or not exists (select from _confirm_outcomes o where o.tx = t.tx) order by pos),
lease as (
  insert into _confirm_leases
    (worker, until, lane, rank, phase, items, txs, attempts, crashes, doubts, sinces, first_sents)
  select 'limit-' || :client_id::text, clock_timestamp() + interval '30 s', :lane, 0, 'leased', count(*), array_agg(tx),
         array_agg(attempts), array_agg(crashes), array_agg(doubt), array_agg(since), array_agg(first_sent)
  from kept having count(*) > 0
  returning lease, txs, attempts, crashes, doubts, sinces, first_sents)
select (select max(pos) from taken) as pos, l.lease, l.txs, l.sinces from (select) one left join lease l on true \gset
select * from payments where _id = any(:txs::uuid[]);
update _confirm_leases set phase = 'calling', called_at = coalesce(called_at, clock_timestamp()),
  until = clock_timestamp() + interval '30 s'
where lease = :lease and worker = 'limit-' || :client_id::text returning 1;
\startpipeline
begin;
select l.lease, l.lane, l.rank, l.called_at, l.items, l.shrunk from _confirm_leases l
where l.lease = :lease and l.worker = 'limit-' || :client_id::text for update of l;
with put as (
  insert into _confirm_outcomes (tx, lane, state, attempts, code, fence, since, at, detail)
  select u.tx, :lane, 'confirmed', 1, 200, :lease, u.since, clock_timestamp(), ''
  from unnest(:txs::uuid[], :sinces::timestamptz[]) with ordinality as u(tx, since, n)
  order by u.tx, u.n on conflict (tx) do nothing returning lane, state),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued, confirmed, rejected)
  select lane, 'limit-' || :client_id::text, 0, count(*) filter (where state = 'confirmed'),
         count(*) filter (where state = 'rejected')
  from put group by lane order by lane
  on conflict (lane, writer) do update set
    confirmed = c.confirmed + excluded.confirmed, rejected = c.rejected + excluded.rejected)
select count(*) from put;
\endpipeline
\startpipeline
delete from _confirm_leases where lease = :lease;
commit;
\endpipeline
