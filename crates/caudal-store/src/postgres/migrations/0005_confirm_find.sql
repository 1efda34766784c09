-- One pending transaction is found by its id, however many others wait: receipts ask for it, and people who call it off. A hash
-- costs an append about half of what a tree does here, and nobody asks for ranges of ids.
create index _confirm_ready_tx on _confirm_ready using hash (tx);

-- How many have ended stands beside how many there were: outcomes are ever more, and nobody counts them all to show a number.
alter table _confirm_counts
    add column confirmed bigint not null default 0,
    add column rejected bigint not null default 0,
    add column void bigint not null default 0;
insert into _confirm_counts (lane, writer, enqueued, confirmed, rejected, void)
select lane, '0005', 0, count(*) filter (where state = 'confirmed'), count(*) filter (where state = 'rejected'),
       count(*) filter (where state = 'void')
from _confirm_outcomes group by lane;
