-- Books, people and shelves: every kind of relation, in SQL that PostgreSQL and SQLite both speak.
create table writer (id integer primary key, name text not null, mentor_id integer references writer (id));
create table book (
  id integer primary key, title text not null, writer_id integer references writer (id), editor_id integer references writer (id),
  year integer, price double precision);
create table cover (book_id integer primary key references book (id), colour text not null);
create table tag (id integer primary key, word text not null unique);
create table book_tag (book_id integer not null references book (id), tag_id integer not null references tag (id), primary key (book_id, tag_id));
insert into writer values (1, 'Ana', null), (2, 'Ben', 1), (3, 'Cid', 1);
insert into book values
  (10, 'Rivers', 1, 2, 1999, 12.5), (11, 'Sand', 1, null, 2005, 8.75), (12, 'Tides', 2, 1, 2005, null), (13, 'Unsigned', null, null, null, 3.25);
insert into cover values (10, 'blue'), (12, 'grey');
insert into tag values (1, 'water'), (2, 'dry'), (3, 'unused');
insert into book_tag values (10, 1), (12, 1), (11, 2), (10, 2);
