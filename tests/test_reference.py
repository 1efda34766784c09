"""The reference (/openapi.json) is valid, names what there is, and holds: schemathesis sends what it allows and what it does not,
and finds no 5xx and no answer that is not described, on both stores. Runs the program that `cargo test` has built.
CAUDAL_REFERENCE_EXAMPLES sets how many requests are made up for an operation. python3 -m unittest discover -s tests
"""

import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from test_aws_clients import CACHE, HERE, binary, free_port

REQUIREMENTS = HERE / "requirements/schemathesis.txt"
EXAMPLES = os.environ.get("CAUDAL_REFERENCE_EXAMPLES")
# The same requests each time, so that a run says something of the change that it tests; with CAUDAL_REFERENCE_EXAMPLES others each time.
MADE_UP = ["--max-examples", EXAMPLES] if EXAMPLES else ["--max-examples", "10", "--seed", "1"]
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
# It has no end, and a client that waits for one learns nothing.
ENDLESS = "/v1/topics/{topic}/stream"
CONFIG = """
[topics.orders]
schema = "orders.schema.json"
[topics.notes]
"""
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer"},
        "amount": {"type": "number"},
        "city": {"type": "string"},
        "paid": {"type": "boolean"},
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "ref": {"type": "string", "format": "uuid"},
        "more": {},
    },
}


def venv() -> Path:
    """The pinned environment; made when it is not there."""
    subprocess.run([HERE / "install-python", "schemathesis"], check=True)
    version = next(line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")).split("==")[1]
    return CACHE / f"schemathesis-{version}"


def postgres_database() -> str:
    """The URL of a new database on the server that ./test started."""
    server = os.environ.get("CAUDAL_TEST_POSTGRES")
    if not server:
        raise AssertionError("CAUDAL_TEST_POSTGRES names no server: run ./test, or set it to a superuser's URL")
    name = f"t_{secrets.token_hex(8)}"
    subprocess.run(["psql", "-q", "-X", server, "-c", f"create database {name}"], check=True)
    return server.rsplit("/", 1)[0] + "/" + name


class Caudal:
    def __init__(self, program: Path, store: str):
        self.home = tempfile.TemporaryDirectory(prefix="caudal-test")
        home = Path(self.home.name)
        (home / "caudal.toml").write_text(CONFIG)
        (home / "orders.schema.json").write_text(json.dumps(SCHEMA))
        self.url = f"http://127.0.0.1:{free_port()}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CAUDAL_", "AWS_", "DATABASE_URL"))}
        own |= {
            "CAUDAL_HTTP__LISTEN": self.url.removeprefix("http://"),
            "CAUDAL_DATA_DIR": str(home / "data"),
            "CAUDAL_STORE__URL": store,
            # What schemathesis makes up must not wait for an answer that does not come.
            "CAUDAL_SQL__STATEMENT_TIMEOUT_MS": "5000",
        }
        self.log = home / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "serve"], cwd=home, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=5)
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("Caudal did not start:\n" + self.log.read_text(errors="replace"))

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.home.cleanup()

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.headers, answer.read()

    def publish(self, topic: str, record: dict):
        request = urllib.request.Request(f"{self.url}/v1/topics/{topic}/messages", json.dumps(record).encode())
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=30).close()


class Reference(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bin = venv() / "bin"
        cls.program = binary()

    def caudal(self, store: str) -> Caudal:
        server = Caudal(self.program, store)
        self.addCleanup(server.stop)
        server.publish("orders", {"n": 1, "amount": 1.5, "city": "Lima", "paid": True, "at": "2024-01-01T00:00:00Z"})
        server.publish("notes", {"hola": "mundo"})
        return server

    def test_it_is_valid_and_names_the_tables(self):
        server = self.caudal("sqlite:caudal.db")
        document = server.get("/openapi.json")[1]
        path = Path(server.home.name) / "openapi.json"
        path.write_bytes(document)
        found = subprocess.run([self.bin / "openapi-spec-validator", "--schema", "3.1", path], capture_output=True, text=True)
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)
        described = json.loads(document)
        columns = described["components"]["schemas"]["row.orders"]["properties"]
        self.assertEqual(columns["n"]["type"], ["integer", "null"])
        self.assertEqual(columns["at"]["format"], "date-time")
        self.assertIn("/rest/v1/orders", described["paths"])
        self.assertEqual(described["components"]["parameters"]["topic"]["schema"]["enum"][-2:], ["notes", "orders"])

    def test_what_is_described_is_there_and_nothing_else(self):
        server = self.caudal("sqlite:caudal.db")
        described = json.loads(server.get("/openapi.json")[1])
        values = {"topic": "orders", "table": "orders", "queue": "orders", "db": "caudal", "statement": "select+1", "code": "schema"}
        for path, methods in described["paths"].items():
            filled = path.replace("{id}", "018f9c00-0000-7000-8000-000000000001")
            for name, value in values.items():
                filled = filled.replace(f"{{{name}}}", value)
            for method in ("get", "post", "put", "patch", "delete"):
                if path == ENDLESS and method == "get":
                    continue
                request = urllib.request.Request(server.url + filled, method=method.upper(), data=b"" if method != "get" else None)
                try:
                    status = urllib.request.urlopen(request, timeout=10).status
                except urllib.error.HTTPError as error:
                    status = error.code
                    error.close()
                self.assertEqual(status != 405, method in methods, f"{method} {filled}: {status}")

    def test_the_page_asks_nobody_else(self):
        server = self.caudal("sqlite:caudal.db")
        headers, page = server.get("/docs")
        policy = headers["Content-Security-Policy"]
        self.assertIn("default-src 'self'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotRegex(page.decode(), r"(https?:)?//[a-z]", "an address of somebody else's")

    def test_schemathesis_finds_nothing(self):
        for store in ("sqlite:caudal.db", postgres_database()):
            with self.subTest(store=store.split(":")[0]):
                server = self.caudal(store)
                command = [self.bin / "st", "run", server.url + "/openapi.json", "--checks", CHECKS, "--no-color"]
                command += [*MADE_UP, "--request-timeout", "30", "--exclude-path", ENDLESS]
                # How much of what it makes up can be used is its own affair.
                command += ["--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none"]
                run = subprocess.run(command, cwd=server.home.name, capture_output=True, text=True)
                self.assertEqual(run.returncode, 0, run.stdout[-8000:] + run.stderr[-2000:])
                self.assertRegex(run.stdout, r"\d{3,} generated, \d{3,} passed")
                self.assertNotIn(" panicked at ", server.log.read_text(errors="replace"))


if __name__ == "__main__":
    unittest.main()
