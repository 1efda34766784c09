-- One pending transaction is found by its id, however many others wait: receipts ask for it, and people who call it off. A hash
-- costs an append about half of what a tree does here, and nobody asks for ranges of ids.
create index _confirm_ready_tx on _confirm_ready using hash (tx);
