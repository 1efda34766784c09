"""Exports have every record once, whatever happens to them: read back by DuckDB and compared with the table, on both stores, with
writers beside them and kills in the middle; to a directory and to S3 as moto emulates it. Runs the program that `cargo test` has built.
python3 -m unittest discover -s tests
"""

import datetime
import hashlib
import json
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

from test_files import CACHE, CONFIG, HERE, TYPES, Caudal, binary, canonical, database, free_port, plain, reader, records

WRITERS = 50
JSONS = ("j", "payload", "_extra")


class Exports(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.duckdb, _ = reader()
        cls.program = binary()

    def caudal(self, store: str, config: str = CONFIG) -> Caudal:
        server = Caudal(self.program, store, config)
        self.addCleanup(server.stop)
        return server

    def servers(self):
        for store in ("sqlite:caudal.db", database()):
            yield self.caudal(store)

    def start(self, server: Caudal, *arguments: str, **settings) -> subprocess.Popen:
        """An export under way, in a process of its own beside the server."""
        return subprocess.Popen(
            [self.program, "export", *arguments],
            cwd=server.home,
            env=server.environment | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def export(self, server: Caudal, *arguments: str, **settings) -> dict:
        """A whole export; its manifest, or None when there was nothing new."""
        done = self.start(server, *arguments, "--json", **settings)
        out, err = done.communicate(timeout=120)
        self.assertEqual((done.returncode, err), (0, b""))
        return json.loads(out)

    def refused(self, server: Caudal, *arguments: str) -> str:
        done = self.start(server, *arguments)
        out, err = done.communicate(timeout=60)
        self.assertEqual((done.returncode, out), (1, b""), err)
        return err.decode()

    def duck(self, sql: str) -> list:
        connection = self.duckdb.connect()
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute(sql)
        names = [column[0] for column in found.description]
        return sorted((from_duck(dict(zip(names, row))) for row in found.fetchall()), key=lambda row: row["_id"])

    def table(self, server: Caudal, name: str) -> list:
        rows = json.loads(server.read(name, "application/json"))
        return sorted(map(from_json, rows), key=lambda row: row["_id"])

    def manifests(self, place: Path, table: str) -> list:
        found = [json.loads(file.read_text()) for file in sorted((place / table / "_manifests").glob("*.json"))]
        self.assertEqual([manifest["sequence"] for manifest in found], list(range(1, len(found) + 1)))
        for before, after in zip(found, found[1:]):
            self.assertEqual(after["from"], before["mark"])
            self.assertEqual(after["total_rows"], before["total_rows"] + after["rows"])
        return found

    def check_files(self, place: Path, table: str) -> list:
        """The listed files, each as its manifest says, and no others."""
        files = [file for manifest in self.manifests(place, table) for file in manifest["files"]]
        for file in files:
            data = (place / file["path"]).read_bytes()
            self.assertEqual((len(data), hashlib.sha256(data).hexdigest()), (file["bytes"], file["sha256"]))
        there = {str(path.relative_to(place)) for path in (place / table).rglob("*") if path.is_file()}
        listed = {file["path"] for file in files}
        self.assertEqual({path for path in there if "/_manifests/" not in path}, listed)
        return [str(place / path) for path in sorted(listed)]

    def test_each_run_adds_what_is_new_and_duckdb_reads_the_table(self):
        everything = records()
        rounds = [everything[:50], everything[50:1000], everything[1000:]]
        columns = ", ".join(f'"{name}"' for name in ["_id", "_key", "_source", "_published_at", "_stored_at", "_extra", *TYPES])
        kinds = {"_id": "VARCHAR", "_key": "VARCHAR", "_source": "VARCHAR", "_published_at": "TIMESTAMPTZ", "_stored_at": "TIMESTAMPTZ"}
        for server in self.servers():
            parquet, text = server.home / "parquet", server.home / "csv"
            for place in (parquet, text):
                self.assertIsNone(self.export(server, "things", "--to", str(place), "--format", place.name))
            for number, batch in enumerate(rounds, 1):
                server.publish("things", batch)
                manifest = self.export(server, "things", "--to", str(parquet))
                self.assertEqual((manifest["sequence"], manifest["rows"]), (number, len(batch)))
                self.assertIsNone(self.export(server, "things", "--to", str(parquet)), "nothing is new")
                if number != 2:
                    self.export(server, "things", "--to", str(text), "--format", "csv", "--day-of", "d")
            wanted = self.table(server, "things")
            self.assertEqual(len(wanted), len(everything))

            files = self.check_files(parquet, "things")
            self.assertEqual(self.duck(f"select {columns} from read_parquet({files})"), wanted)
            partitioned = f"read_parquet('{parquet}/things/*/*.parquet', hive_partitioning = true)"
            self.assertEqual(self.duck(f"select {columns} from {partitioned} where caudal_day = cast(_stored_at as date)"), wanted)

            files = self.check_files(text, "things")
            order = [column["name"] for column in manifest["columns"]]
            typed = kinds | {"_extra": "VARCHAR"} | {name: kind for name, (kind, _) in TYPES.items()}
            typed = {name: typed[name] for name in order}
            options = "header = true, allow_quoted_nulls = false, quote = '\"', escape = '\"', max_line_size = 1000000, hive_partitioning = true"
            found = f"read_csv({files}, columns = {typed}, hive_types = {{'caudal_day': DATE}}, {options})"
            self.assertEqual(self.duck(f"select {columns} from {found}"), wanted)
            days = self.duckdb.connect().execute(f"select count(*) from {found} where caudal_day is distinct from d").fetchall()
            self.assertEqual(days, [(0,)], "the folders are the days of the chosen column, null among them")

            err = self.refused(server, "things", "--to", str(parquet), "--format", "csv")
            self.assertIn("export to another place", err)
            self.assertIn("there are _published_at, _stored_at, at, d", self.refused(server, "things", "--to", str(text), "--day-of", "t"))
            self.assertIn("does not exist", self.refused(server, "nosuch", "--to", str(text)))
            self.assertIn("only topics", self.refused(server, "_dead_letters", "--to", str(text)))
            self.assertIn("--to DIRECTORY", self.refused(server, "things"))
            self.assertIn("no place", self.refused(server, "things", "--to", "ftp://x/y"))

    def test_the_page_about_exports_loads_into_duckdb(self):
        page = (HERE.parent / "docs/export.md").read_text()
        sql = page.split("## DuckDB", 1)[1].split("```sql", 1)[1].split("```", 1)[0]
        for server in self.servers():
            for n in range(3):
                server.publish("loose", [{"n": n}] * 10)
                self.export(server, "loose", "--to", str(server.home / "exports"))
            # What a run that died has left is not read.
            (listed, *_) = self.check_files(server.home / "exports", "loose")
            shutil.copy(listed, Path(listed).with_name("00000004-" + "0" * 32 + "-0000.parquet"))
            connection = self.duckdb.connect()
            connection.execute(sql.replace("exports/", f"{server.home}/exports/").replace("flights", "loose"))
            self.assertEqual(connection.execute("select count(*), count(distinct _id), count(caudal_day) from loose").fetchall(), [(30, 30, 30)])
            # The next run takes that number and removes it.
            server.publish("loose", [{"n": 4}])
            self.export(server, "loose", "--to", str(server.home / "exports"))
            self.assertEqual(len(self.check_files(server.home / "exports", "loose")), 4)

    def test_killed_in_the_middle_with_fifty_writers_nothing_is_missed_or_repeated(self):
        server = self.caudal(database())
        server.publish("loose", [{"n": n} for n in range(40000)])
        place = server.home / "out"
        stop, failed = threading.Event(), []

        def write(name: int):
            chance, n = random.Random(name), 0
            try:
                while not stop.is_set():
                    size = chance.randint(1, 40)
                    server.publish("loose", [{"writer": name, "n": n + i} for i in range(size)])
                    n += size
            except Exception as error:
                failed.append(error)

        writers = [threading.Thread(target=write, args=[name]) for name in range(WRITERS)]
        for writer in writers:
            writer.start()
        killed, whole = 0, 0
        try:
            while killed < 6 or whole < 3:
                begun = self.start(server, "loose", "--to", str(place))
                if killed <= 2 * whole:
                    killed += self.kill_in_the_middle(begun, place)
                else:
                    self.assertEqual(begun.wait(120), 0, begun.stderr.read())
                    whole += 1
                begun.stdout.close()
                begun.stderr.close()
                # What the manifests list is whole at any time, abandoned files of killed runs or not.
                for manifest in self.manifests(place, "loose"):
                    for file in manifest["files"]:
                        self.assertEqual((place / file["path"]).stat().st_size, file["bytes"])
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        self.assertEqual(failed, [])
        self.export(server, "loose", "--to", str(place))
        wanted = self.table(server, "loose")
        self.assertGreater(len(wanted), 41000, "the writers wrote")
        found = self.duck(f"select * from read_parquet({self.check_files(place, 'loose')}, hive_partitioning = false)")
        self.assertEqual(len({row["_id"] for row in found}), len(found), "none twice")
        self.assertEqual(found, wanted)

    def kill_in_the_middle(self, begun: subprocess.Popen, place: Path) -> int:
        """Kills an export once it has begun a file; 1 when that was before its manifest."""
        before = len(self.manifests(place, "loose"))
        next_files = f"loose/caudal_day=*/{before + 1:08}-*"
        old = set(place.glob(next_files))
        while begun.poll() is None and not set(place.glob(next_files)) - old:
            time.sleep(0.001)
        begun.send_signal(signal.SIGKILL)
        begun.wait()
        return int(len(self.manifests(place, "loose")) == before)

    def test_two_at_once_commit_one_by_one(self):
        for server in self.servers():
            server.publish("loose", [{"n": n} for n in range(5000)])
            place = server.home / "out"
            both = [self.start(server, "loose", "--to", str(place)) for _ in range(4)]
            ended = [(one.wait(60), one.stderr.read().decode(), one.communicate()) for one in both]
            self.assertIn(0, [code for code, _, _ in ended])
            for code, err, _ in ended:
                self.assertTrue(code == 0 or "another process is exporting" in err, err)
            found = self.duck(f"select * from read_parquet({self.check_files(place, 'loose')}, hive_partitioning = false)")
            self.assertEqual(found, self.table(server, "loose"))

    def test_to_s3_ran_on_emulator(self):
        port = free_port()
        subprocess.run([HERE / "install-python", "moto"], check=True)
        moto = sorted(CACHE.glob("moto-*/bin/moto_server"))[-1]
        process = subprocess.Popen([moto, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        endpoint = f"http://127.0.0.1:{port}"
        bucket = urllib.request.Request(endpoint + "/warehouse", method="PUT")
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(bucket, timeout=10)
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline, "moto did not start")
                time.sleep(0.05)
        aws = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        for server in self.servers():
            prefix = f"s3://warehouse/{server.home.name}/deep"
            local = server.home / "fetched"
            for number in range(3):
                # The second is larger than one part of an upload.
                server.publish("loose", [{"n": number, "noise": random.randbytes(600).hex()} for _ in range([10, 15000, 100][number])])
                manifest = self.export(server, "loose", "--to", prefix, **aws)
                self.assertEqual(manifest["sequence"], number + 1)
                self.assertIsNone(self.export(server, "loose", "--to", prefix, **aws))
                paths = [f"loose/_manifests/{number + 1:08}.json", *(file["path"] for file in manifest["files"])]
                for path in paths:
                    (local / path).parent.mkdir(parents=True, exist_ok=True)
                    key = f"{server.home.name}/deep/{path}"
                    fetch = f"import boto3; boto3.client('s3').download_file('warehouse', {key!r}, {str(local / path)!r})"
                    subprocess.run([moto.with_name("python"), "-c", fetch], env=server.environment | aws, check=True)
            self.assertGreater(max(file["bytes"] for m in self.manifests(local, "loose") for file in m["files"]), 8 << 20, "more than one part")
            found = self.duck(f"select * from read_parquet({self.check_files(local, 'loose')}, hive_partitioning = false)")
            self.assertEqual(found, self.table(server, "loose"))
            err = self.start(server, "loose", "--to", "s3://nosuchbucket/x", **aws)
            self.assertIn(b"cannot list loose/_manifests", err.communicate(timeout=60)[1])

    def test_the_clock_exports_in_one_process_at_a_time(self):
        place = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="caudal-test")))
        config = CONFIG + f'[topics.loose.export]\nurl = "{place}"\nevery_seconds = 1\n'
        store = database()
        servers = [self.caudal(store, config) for _ in range(2)]
        total = 0
        for number in range(3):
            servers[number % 2].publish("loose", [{"n": number}] * 500)
            total += 500
            deadline = time.monotonic() + 60
            while True:
                manifests = self.manifests(place, "loose")
                if manifests and manifests[-1]["total_rows"] == total:
                    break
                self.assertLess(time.monotonic(), deadline, manifests)
                time.sleep(0.05)
        found = self.duck(f"select * from read_parquet({self.check_files(place, 'loose')}, hive_partitioning = false)")
        self.assertEqual(found, self.table(servers[0], "loose"))
        deadline = time.monotonic() + 60
        while True:
            said = [urllib.request.urlopen(server.url + "/metrics", timeout=10).read().decode() for server in servers]
            rows = [int(value(text, 'caudal_export_rows_total{topic="loose"}')) for text in said]
            since = [int(value(text, 'caudal_export_last_success_timestamp_seconds{topic="loose"}')) for text in said]
            if sum(rows) == total and all(abs(time.time() - at) < 60 for at in since):
                break
            self.assertLess(time.monotonic(), deadline, said)
            time.sleep(0.05)


def from_json(row: dict) -> dict:
    """A row as the table's JSON has it, in the spelling of `plain`."""
    made = dict(row)
    for name, value in row.items():
        if value is None:
            continue
        if name == "f":
            made[name] = float(value).hex()
        elif name in ("at", "_published_at", "_stored_at"):
            made[name] = plain(datetime.datetime.fromisoformat(value))
        elif name in JSONS:
            made[name] = canonical(json.dumps(value))
    return made


def from_duck(row: dict) -> dict:
    return {name: canonical(value) if name in JSONS and value is not None else plain(value) for name, value in row.items()}


def value(metrics: str, name: str) -> str:
    """A metric's value; 0 before it has one."""
    return next((line.rsplit(" ", 1)[1] for line in metrics.splitlines() if line.startswith(name + " ")), "0")


if __name__ == "__main__":
    unittest.main()
