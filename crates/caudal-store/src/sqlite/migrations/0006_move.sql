-- Records that came with a lane from another store and keep the time at which they were stored there: they are to be confirmed, although
-- that was before this lane began.
create table _confirm_brought (
    tx text not null primary key
) without rowid;
