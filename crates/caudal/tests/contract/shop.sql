-- A small record shop, in SQL that PostgreSQL and SQLite both speak.
create table artist (id integer primary key, name varchar(120) not null);
create table album (id integer primary key, title text not null, artist_id integer not null references artist (id), price numeric(10, 1));
create table track (
  id integer primary key, name text, album_id integer references album (id), seconds integer, next_id integer references track (id));
create table "Mixed Case" ("a,b" integer, "Löwe" text);
create view "long track" as select name, seconds from track where seconds > 250;
insert into artist values (1, 'Zoo'), (2, 'AC/DC'), (3, 'Ñu "x"');
insert into album values (10, 'First', 1, 9.5), (11, 'Second, "live"', 2, null);
insert into track values (100, 'one', 10, 200, null), (101, 'two', 10, 300, 100), (102, null, 10, null, null);
insert into "Mixed Case" values (1, 'x'), (2, null);
