"""Every encoding of a table says the same: records of every type with nulls and edge values are published, read back by each
encoding with the readers that people have (DuckDB, pyarrow), and compared with what was published, on both stores. Runs the program
that `cargo test` has built. python3 -m unittest discover -s tests
"""

import csv
import datetime
import http.client
import io
import json
import os
import pty
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caudal-test"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"
CONFIG = """
[broker]
url = "none:"
[topics.things]
schema = "things.schema.json"
[topics.nothing]
schema = "things.schema.json"
[topics.loose]
"""
TYPES = {
    "i": ("BIGINT", {"type": ["integer", "null"]}),
    "f": ("DOUBLE", {"type": ["number", "null"]}),
    "t": ("VARCHAR", {"type": ["string", "null"]}),
    "b": ("BOOLEAN", {"type": ["boolean", "null"]}),
    "at": ("TIMESTAMP WITH TIME ZONE", {"type": ["string", "null"], "format": "date-time"}),
    "d": ("DATE", {"type": ["string", "null"], "format": "date"}),
    "u": ("UUID", {"type": ["string", "null"], "format": "uuid"}),
    "j": ("VARCHAR", {}),
}
SCHEMA = {"type": "object", "properties": {name: schema for name, (_, schema) in TYPES.items()}}
EDGES = {
    "i": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1],
    "f": [0.0, 0.1, -1.5, 5e-324, 1.7976931348623157e308, 1e15, 123456789.123456789],
    "t": ["", "null", "NULL", "a,b", 'say "hi"', "line\r\nbreak", "=1+1", "-", " padded ", "ñ🚀\u2028", "\\N", "x" * 70000],
    "b": [True, False],
    "at": ["1970-01-01T00:00:00Z", "2013-01-01T05:00:00.000001+05:30", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"],
    "d": ["1970-01-01", "2000-02-29", "0001-01-01", "9999-12-31", "1999-12-31"],
    "u": [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)), "01234567-89ab-cdef-0123-456789abcdef"],
    "j": [{}, [], {"a": [1, None, "ñ"], "b": {"c": 1.5}}, "text", True, 7],
}


def reader():
    """DuckDB and pyarrow, from their pinned environment; made when it is not there."""
    subprocess.run([HERE / "install-python", "duckdb"], check=True)
    requirements = (HERE / "requirements/duckdb.txt").read_text().splitlines()
    version = next(line for line in requirements if not line.startswith("#")).split("==")[1]
    found = sorted((CACHE / f"duckdb-{version}/lib").glob("python*/site-packages"))
    sys.path.insert(0, str(found[-1]))
    import duckdb
    import pyarrow.ipc

    return duckdb, pyarrow


def binary() -> Path:
    """Caudal as `cargo test` left it."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    described = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True).stdout
    built = Path(json.loads(described)["target_directory"]) / "debug/caudal"
    if not built.exists():
        subprocess.run(["cargo", "build", "--quiet", "-p", "caudal"], cwd=HERE.parent, check=True)
    return built


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def database() -> str:
    """A PostgreSQL database of its own, on the server that ./test starts."""
    server = os.environ.get("CAUDAL_TEST_POSTGRES")
    if not server:
        raise AssertionError("CAUDAL_TEST_POSTGRES names no PostgreSQL server; ./test starts one")
    name = "files_" + secrets.token_hex(6)
    subprocess.run(["psql", "-qX", "-d", server, "-c", f"create database {name}"], check=True)
    return server.rsplit("/", 1)[0] + "/" + name


class Caudal:
    """A server of its own."""

    def __init__(self, program: Path, store: str, config: str = CONFIG):
        self.program = program
        self.home = Path(tempfile.mkdtemp(prefix="caudal-test"))
        (self.home / "caudal.toml").write_text(config)
        (self.home / "things.schema.json").write_text(json.dumps(SCHEMA))
        self.url = f"http://127.0.0.1:{free_port()}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CAUDAL_", "DATABASE_URL"))}
        own |= {"CAUDAL_HTTP__LISTEN": self.url.removeprefix("http://"), "CAUDAL_DATA_DIR": str(self.home / "data")}
        self.environment = own = own | {"CAUDAL_STORE__URL": store}
        self.log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(
            [program, "serve"], cwd=self.home, env=own, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=5)
                return
            except OSError:
                time.sleep(0.02)
        log = (self.home / "log").read_text(errors="replace")
        self.stop()
        raise AssertionError("Caudal did not start:\n" + log)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.kill()
        self.log.close()
        shutil.rmtree(self.home)

    def publish(self, topic: str, records: list):
        body = "".join(json.dumps(record) + "\n" for record in records).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        request = urllib.request.Request(f"{self.url}/v1/topics/{topic}/messages", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 201, answer.status

    def read(self, path: str, accept: str) -> bytes:
        request = urllib.request.Request(self.url + "/rest/v1/" + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Type"].split(";")[0] == accept, answer.headers["Content-Type"]
            return answer.read()

    def query(self, *arguments: str, **options):
        return subprocess.run([self.program, "query", "--url", self.url, *arguments], capture_output=True, timeout=60, **options)


def records() -> list:
    """Each edge value once, in a record with other values and without; then records of random edges."""
    made = [{name: value} for name, values in EDGES.items() for value in values]
    made += [{name: None for name in TYPES if name != "j"}, {}]
    chance = random.Random(7)
    made += [{name: chance.choice(values + [None]) for name, values in EDGES.items()} for _ in range(2000)]
    # An explicit null of free JSON is a value of its own in jsonb; leave those to the tests of ingest.
    return [{name: value for name, value in record.items() if (name, value) != ("j", None)} for record in made]


def plain(value):
    """One spelling a value, whichever reader it came from."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value))
    if isinstance(value, (datetime.date, uuid.UUID)):
        return str(value)
    if isinstance(value, float):
        return value.hex()
    return value


def expected(record: dict) -> tuple:
    found = []
    for name, (kind, _) in TYPES.items():
        value = record.get(name)
        if value is not None and name == "f":
            value = float(value).hex()
        elif value is not None and name == "at":
            value = plain(datetime.datetime.fromisoformat(value))
        elif value is not None and name == "j":
            value = canonical(json.dumps(value))
        found.append(value)
    return tuple(found)


def canonical(text: str) -> str:
    """PostgreSQL orders the members of jsonb anew."""
    return json.dumps(json.loads(text), sort_keys=True)


class Encodings(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.duckdb, cls.pyarrow = reader()
        cls.program = binary()

    def servers(self):
        for store in ("sqlite:caudal.db", database()):
            server = Caudal(self.program, store)
            self.addCleanup(server.stop)
            yield server

    def duck(self, sql: str, **tables) -> list:
        connection = self.duckdb.connect()
        connection.execute("set TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(sql).fetchall()

    def rows(self, found, names=tuple(TYPES)) -> list:
        """What a reader found, as `expected` has it, in one order."""
        json_at = names.index("j") if "j" in names else None
        made = []
        for row in found:
            row = [plain(value) for value in row]
            if json_at is not None and row[json_at] is not None:
                row[json_at] = canonical(row[json_at])
            made.append(tuple(row))
        return sorted(made, key=repr)

    def same(self, found, wanted, what: str):
        self.assertEqual(len(found), len(wanted), what)
        for one, other in zip(found, wanted):
            self.assertEqual(one, other, what)

    def test_every_encoding_has_the_published_values(self):
        published = records()
        wanted = sorted(map(expected, published), key=repr)
        columns = ",".join(TYPES)
        for server in self.servers():
            server.publish("things", published)
            path = f"things?select={columns}"
            file = server.home / "things"

            file.write_bytes(server.read(path, PARQUET))
            self.same(self.rows(self.duck(f"select * from read_parquet('{file}')")), wanted, "Parquet, DuckDB")
            described = self.duck(f"describe select * from read_parquet('{file}')")
            self.assertEqual({name: kind for name, kind, *_ in described}, {name: kind for name, (kind, _) in TYPES.items()})
            from pyarrow import parquet
            table = parquet.read_table(file)
            self.same(self.rows(zip(*[column.to_pylist() for column in table.columns])), wanted, "Parquet, pyarrow")

            table = self.pyarrow.ipc.open_stream(server.read(path, ARROW)).read_all()
            table.validate(full=True)
            self.assertEqual(str(table.schema.field("at").type), "timestamp[us, tz=UTC]")
            self.same(self.rows(zip(*[column.to_pylist() for column in table.columns])), wanted, "Arrow, pyarrow")
            self.same(self.rows(self.duck("select * from things", things=table)), wanted, "Arrow, DuckDB")
            described = self.duck("describe select * from things", things=table)
            self.assertEqual({name: kind for name, kind, *_ in described}, {name: kind for name, (kind, _) in TYPES.items()})

            file.write_bytes(server.read(path, "text/csv"))
            types = {name: kind for name, (kind, _) in TYPES.items()}
            sql = f"select * from read_csv('{file}', columns = {types}, header = true, allow_quoted_nulls = false, quote = '\"', escape = '\"', max_line_size = 1000000)"
            self.same(self.rows(self.duck(sql)), wanted, "CSV, DuckDB")

            for accept, read in [
                ("application/json", json.loads),
                ("application/x-ndjson", lambda body: [json.loads(line) for line in body.splitlines()]),
            ]:
                found = sorted((expected(row) for row in read(server.read(path, accept))), key=repr)
                self.same(found, wanted, accept)

    def test_every_column_is_there_and_an_empty_table_has_its_schema(self):
        for server in self.servers():
            server.publish("loose", [{"n": n} for n in range(3)])
            columns = list(csv.reader(io.StringIO(server.read("loose", "text/csv").decode())))[0]
            file = server.home / "loose"
            file.write_bytes(server.read("loose?order=_id", PARQUET))
            table = self.pyarrow.ipc.open_stream(server.read("loose?order=_id", ARROW)).read_all()
            self.assertEqual(table.column_names, columns)
            self.assertEqual(self.duck("select * from loose", loose=table), self.duck(f"select * from read_parquet('{file}')"))
            by_json = [row["_id"] for row in json.loads(server.read("loose?order=_id", "application/json"))]
            self.assertEqual([str(found) for (found,) in self.duck(f"select _id from read_parquet('{file}')")], by_json)

            file.write_bytes(server.read("nothing", PARQUET))
            self.assertEqual(self.duck(f"select count(*) from read_parquet('{file}')"), [(0,)])
            table = self.pyarrow.ipc.open_stream(server.read("nothing?select=i,u", ARROW)).read_all()
            self.assertEqual((table.num_rows, table.column_names), (0, ["i", "u"]))

    def test_the_command_writes_every_format_and_no_bytes_to_a_terminal(self):
        for server in self.servers():
            server.publish("things", records()[:100])
            wanted = json.loads(server.read("things?select=i,t&order=_id", "application/json"))
            wanted = [(row["i"], row["t"]) for row in wanted]
            terms = ("things", "select=i,t", "order=_id")
            for form in ("parquet", "arrow", "csv", "ndjson", "json"):
                done = server.query(*terms, "--format", form)
                self.assertEqual((done.returncode, done.stderr), (0, b""), form)
                file = server.home / "things"
                file.write_bytes(done.stdout)
                if form == "arrow":
                    table = self.pyarrow.ipc.open_stream(done.stdout).read_all()
                    found = self.duck("select * from things", things=table)
                elif form == "parquet":
                    found = self.duck(f"select * from read_parquet('{file}')")
                elif form == "csv":
                    sql = f"select * from read_csv('{file}', columns = {{'i': 'BIGINT', 't': 'VARCHAR'}}, header = true, allow_quoted_nulls = false)"
                    found = self.duck(sql)
                else:
                    rows = json.loads(done.stdout) if form == "json" else map(json.loads, done.stdout.splitlines())
                    found = [(row["i"], row["t"]) for row in rows]
                self.assertEqual(found, wanted, form)
        for form in ("parquet", "arrow"):
            ours, theirs = pty.openpty()
            self.addCleanup(os.close, ours)
            command = [self.program, "query", "--url", server.url, *terms, "--format", form]
            with os.fdopen(theirs, "wb") as terminal:
                done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(select.select([ours], [], [], 0)[0], [], "nothing was written to it")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"not for a terminal", done.stderr)
            done = server.query("nosuch", "--format", form)
            self.assertEqual((done.returncode, done.stdout), (3, b""), "an error is not written as a file")

    def test_what_is_not_offered_is_refused_by_name(self):
        server = Caudal(self.program, "sqlite:caudal.db")
        self.addCleanup(server.stop)
        request = urllib.request.Request(server.url + "/rest/v1/things", headers={"Accept": "application/vnd.ms-excel"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        self.assertEqual(refused.exception.code, 406)
        detail = json.load(refused.exception)["detail"]
        for media_type in (ARROW, PARQUET, "text/csv"):
            self.assertIn(media_type, detail)

    def test_a_read_that_broke_off_is_seen(self):
        """The server dies in the middle: the body has no end, and the bytes are not a file."""
        for server in self.servers():
            for _ in range(20):
                server.publish("loose", [{"noise": secrets.token_hex(512)} for _ in range(2500)])
            for accept in (PARQUET, ARROW):
                request = urllib.request.Request(server.url + "/rest/v1/loose", headers={"Accept": accept})
                whole = urllib.request.urlopen(request, timeout=60).read()
                answer = urllib.request.urlopen(request, timeout=60)
                begun = answer.read(4096)
                self.assertEqual(len(begun), 4096)
                answer.close()
                self.assertEqual(server.process.poll(), None, "a reader that goes away hurts nobody")
                self.assertGreater(len(whole), 16 << 20, "far more than what lies in buffers")
                self.assertTrue(whole.endswith(ARROW_END if accept == ARROW else b"PAR1"))
            answers = {}
            for accept in (PARQUET, ARROW):
                request = urllib.request.Request(server.url + "/rest/v1/loose", headers={"Accept": accept})
                answers[accept] = urllib.request.urlopen(request, timeout=60)
                answers[accept].read(1)
            server.kill()
            for accept, answer in answers.items():
                with self.assertRaises((http.client.IncompleteRead, ConnectionResetError), msg=accept) as broken:
                    answer.read()
                partial = getattr(broken.exception, "partial", b"")
                if accept == ARROW:
                    # pyarrow takes a stream that ends between two batches for whole; the mark is what tells.
                    self.assertFalse(partial.endswith(ARROW_END))
                    continue
                file = server.home / "partial"
                file.write_bytes(b"P" + partial)
                with self.assertRaises(self.duckdb.Error):
                    self.duck(f"select count(*) from read_parquet('{file}')")


if __name__ == "__main__":
    unittest.main()
