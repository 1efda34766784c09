"""PostgREST's own client for Python drives Caudal: every way of reading that it has, and inserts, on both stores. Runs the program
that `cargo test` has built. python3 -m unittest discover -s tests
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from test_aws_clients import CACHE, HERE, binary, free_port
from test_reference import postgres_database

REQUIREMENTS = HERE / "requirements/postgrest.txt"
LIBRARY = HERE.parent / "crates/caudal/tests/contract/library.sql"
# What only PostgreSQL has.
MORE = """
create table shelf (id integer primary key, words text[] not null, span int4range not null, facts jsonb not null, prose text not null);
insert into shelf values
  (1, '{a,b}', '[1,5)', '{"size": {"w": 2}, "tags": ["x", "y"]}', 'The fat cat sat on a mat'),
  (2, '{b,c}', '[5,9)', '{"size": {"w": 7}, "tags": []}', 'Dogs chase rivers');
analyze;
"""
CONFIG = """
[broker]
url = "none:"
[topics.notes]
schema = "notes.schema.json"
key = ["n"]
"""
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}, "said": {"type": ["string", "null"]}}}


def client():
    """The client, from its pinned environment; made when it is not there."""
    subprocess.run([HERE / "install-python", "postgrest"], check=True)
    version = next(line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")).split("==")[1]
    found = sorted((CACHE / f"postgrest-{version}/lib").glob("python*/site-packages"))
    sys.path.insert(0, str(found[-1]))
    import postgrest

    return postgrest


class Server:
    def __init__(self, store: str):
        self.home = tempfile.TemporaryDirectory(prefix="caudal-test")
        home = Path(self.home.name)
        (home / "caudal.toml").write_text(CONFIG)
        (home / "notes.schema.json").write_text(json.dumps(SCHEMA))
        (home / "data").mkdir()
        schema = "main"
        if store == "sqlite":
            database = sqlite3.connect(home / "data/caudal.db")
            database.executescript(LIBRARY.read_text())
            database.close()
            url = "sqlite:caudal.db"
        else:
            schema, url = "library", postgres_database()
            script = f"create schema library; set search_path = library; {LIBRARY.read_text()} {MORE}"
            subprocess.run(["psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", url], input=script, text=True, check=True)
        self.url = f"http://127.0.0.1:{free_port()}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CAUDAL_", "DATABASE_URL"))}
        own |= {
            "CAUDAL_HTTP__LISTEN": self.url.removeprefix("http://"),
            "CAUDAL_DATA_DIR": str(home / "data"),
            "CAUDAL_STORE__URL": url,
            "CAUDAL_READ__SCHEMAS": json.dumps([schema]),
        }
        self.log = home / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([binary(), "serve"], cwd=home, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("Caudal did not start:\n" + self.log.read_text(errors="replace"))
                time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.home.cleanup()


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.postgrest = client()

    def on(self, store: str):
        server = Server(store)
        self.addCleanup(server.stop)
        rest = self.postgrest.SyncPostgrestClient(server.url + "/rest/v1", schema="main" if store == "sqlite" else "library")
        self.addCleanup(rest.session.close)
        self.rest = rest
        return rest

    def titles(self, ask) -> str:
        rows = ask(self.rest.table("book").select("title")).order("title").execute().data
        return "".join(row["title"][0] for row in rows)

    def test_everything_that_both_stores_have(self):
        for store in ("sqlite", "postgres"):
            with self.subTest(store):
                rest = self.on(store)
                self.filters()
                self.shapes(rest)
                self.relations(rest)
                self.inserts(rest)

    def filters(self):
        cases = {
            "R": lambda q: q.eq("id", 10),
            "STU": lambda q: q.neq("title", "Rivers"),
            "TU": lambda q: q.gt("id", 11),
            "STU_": lambda q: q.gte("id", 11),
            "R_": lambda q: q.lt("id", 11),
            "RS": lambda q: q.lte("id", 11),
            "U": lambda q: q.is_("year", "null"),
            "U_": lambda q: q.is_("year", None),
            "RST": lambda q: q.not_.is_("year", "null"),
            "RTU_": lambda q: q.or_("title.like.*i*,year.is.null"),
            "RTU": lambda q: q.like("title", "%i%"),
            "RTU__": lambda q: q.ilike("title", "%I%"),
            "RT_": lambda q: q.like_any_of("title", "R%,%s"),
            "RT__": lambda q: q.like_all_of("title", "%i%,%s"),
            "RT___": lambda q: q.ilike_any_of("title", "r%,%S"),
            "RT____": lambda q: q.ilike_all_of("title", "%I%,%S"),
            "ST": lambda q: q.in_("title", ["Sand", "Tides", "no, not"]),
            "RU": lambda q: q.not_.in_("title", ["Sand", "Tides"]),
            "RS_": lambda q: q.or_("year.lt.2000,and(year.eq.2005,price.not.is.null)"),
            "RU_": lambda q: q.filter("year", "isdistinct", 2005),
            "S": lambda q: q.match({"year": 2005, "writer_id": 1}),
            "RS__": lambda q: q.filter("title", "match", "^[RS]"),
        }
        for expected, ask in cases.items():
            self.assertEqual(self.titles(ask), expected.rstrip("_"), expected)

    def shapes(self, rest):
        book = rest.table("book")
        everything = book.select("id", count="exact").order("id").execute()
        self.assertEqual((everything.count, [row["id"] for row in everything.data]), (4, [10, 11, 12, 13]))
        self.assertEqual([row["id"] for row in book.select("id").order("id", desc=True).limit(2).execute().data], [13, 12])
        self.assertEqual([row["id"] for row in book.select("id").order("id").offset(3).execute().data], [13])
        page = book.select("id", count="exact").order("id").range(1, 2).execute()
        self.assertEqual((page.count, [row["id"] for row in page.data]), (4, [11, 12]))
        nulls = book.select("id").order("year", nullsfirst=True).order("id").execute().data
        self.assertEqual([row["id"] for row in nulls], [13, 10, 11, 12])
        self.assertEqual(book.select("id", count="exact", head=True).execute().count, 4)
        self.assertEqual(book.select("name:title").eq("id", 10).single().execute().data, {"name": "Rivers"})
        self.assertIsNone(book.select("title").eq("id", 99).maybe_single().execute())
        self.assertEqual(book.select("title").eq("id", 10).maybe_single().execute().data, {"title": "Rivers"})
        with self.assertRaises(self.postgrest.APIError) as many:
            book.select("title").single().execute()
        self.assertEqual(many.exception.code, "PGRST116")
        with self.assertRaises(self.postgrest.APIError) as unknown:
            book.select("titel").execute()
        self.assertEqual(unknown.exception.code, "42703")
        self.assertIn("title", unknown.exception.message)
        self.assertEqual(book.select("id,title").eq("id", 10).csv().execute().data, "id,title\r\n10,Rivers\r\n")
        sums = book.select("year,count(),price.sum()").eq("year", 2005).execute().data
        self.assertEqual(sums, [{"year": 2005, "count": 2, "sum": 8.75}])

    def relations(self, rest):
        found = rest.table("writer").select("name,book!writer_id(title)").order("id").order("title", foreign_table="book")
        self.assertEqual(
            found.limit(1, foreign_table="book").execute().data,
            [
                {"name": "Ana", "book": [{"title": "Rivers"}]},
                {"name": "Ben", "book": [{"title": "Tides"}]},
                {"name": "Cid", "book": []},
            ],
        )
        found = rest.table("writer").select("name,book!writer_id!inner(title)").eq("book.year", 1999).execute().data
        self.assertEqual(found, [{"name": "Ana", "book": [{"title": "Rivers"}]}])
        found = rest.table("book").select("title,cover(colour),tag(word)").eq("id", 12).execute().data
        self.assertEqual(found, [{"title": "Tides", "cover": {"colour": "grey"}, "tag": [{"word": "water"}]}])
        found = rest.table("writer").select("name,book!writer_id(title)").order("id")
        found = found.or_("year.eq.2005,year.is.null", reference_table="book").execute().data
        self.assertEqual([len(row["book"]) for row in found], [1, 1, 0])

    def inserts(self, rest):
        # With the schema that the client names when nobody said one.
        default = self.postgrest.SyncPostgrestClient(str(rest.session.base_url))
        self.addCleanup(default.session.close)
        notes = default.table("notes")
        one = notes.insert({"n": 1, "said": "once"}).execute().data
        self.assertEqual([(row["n"], row["said"]) for row in one], [(1, "once")])
        many = notes.insert([{"n": 3, "said": "c"}, {"n": 2, "said": None}]).execute().data
        self.assertEqual([(row["n"], row["said"]) for row in many], [(3, "c"), (2, None)])
        self.assertEqual(notes.insert({"n": 4}, returning="minimal").execute().data, [])
        # The same again is the same record; other content under its key is refused, and nothing of that request is kept.
        again = notes.insert({"n": 1, "said": "once"}).execute().data
        self.assertEqual(again[0]["_id"], one[0]["_id"])
        for wrong in ([{"n": 9}, {"n": 1, "said": "other"}], [{"n": 9}, {"n": "nine"}]):
            with self.assertRaises(self.postgrest.APIError):
                notes.insert(wrong).execute()
        kept = notes.select("n", count="exact").order("n").execute()
        self.assertEqual([row["n"] for row in kept.data], [1, 2, 3, 4])

    def test_what_only_postgresql_has(self):
        shelf = self.on("postgres").table("shelf")
        cases = {
            "cs": (shelf.select("id").contains("words", ["a"]), [1]),
            "cd": (shelf.select("id").contained_by("words", ["b", "c", "d"]), [2]),
            "ov": (shelf.select("id").overlaps("words", ["c"]), [2]),
            "json": (shelf.select("id").contains("facts", {"tags": ["x"]}), [1]),
            "sl": (shelf.select("id").range_lt("span", [5, 10]), [1]),
            "sr": (shelf.select("id").range_gt("span", [0, 4]), [2]),
            "nxl": (shelf.select("id").range_gte("span", [4, 6]), [2]),
            "nxr": (shelf.select("id").range_lte("span", [1, 5]), [1]),
            "adj": (shelf.select("id").range_adjacent("span", [8, 12]), [2]),
            "fts": (shelf.select("id").fts("prose", "cat & mat"), [1]),
            "wfts": (shelf.select("id").wfts("prose", "rivers -cat"), [2]),
            "plfts": (shelf.select("id").plfts("prose", "fat mat"), [1]),
            "phfts": (shelf.select("id").phfts("prose", "fat cat"), [1]),
            "path": (shelf.select("id").eq("facts->size->>w", "7"), [2]),
        }
        for name, (query, expected) in cases.items():
            self.assertEqual([row["id"] for row in query.execute().data], expected, name)
        found = shelf.select("w:facts->size->w,first:facts->tags->>0,words,span").eq("id", 1).execute().data
        self.assertEqual(found, [{"w": 2, "first": "x", "words": ["a", "b"], "span": "[1,5)"}])


if __name__ == "__main__":
    unittest.main()
