"""PostgREST's own client for JavaScript drives Caudal: every method that it has, on both stores. What is asked and what must come
back is in tests/postgrest-js/. Runs the program that `cargo test` has built. python3 -m unittest discover -s tests
"""

import json
import subprocess
import unittest

from test_aws_clients import CACHE, HERE
from test_postgrest import Server

PROGRAM = HERE / "postgrest-js"


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([HERE / "install-node"], check=True)
        version = json.loads((PROGRAM / "package.json").read_text())["dependencies"]["@supabase/postgrest-js"]
        cls.packages = CACHE / f"postgrest-js-{version}"

    def test_sqlite(self):
        self.drive("sqlite")

    def test_postgres(self):
        self.drive("postgres")

    def drive(self, store: str):
        server = Server(store)
        self.addCleanup(server.stop)
        command = ["node", PROGRAM / "drive.mjs", self.packages, server.url + "/rest/v1", store]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        checks = [json.loads(line) for line in done.stdout.splitlines()]
        for check in checks:
            with self.subTest(f"{store}: {check['name']}"):
                self.assertEqual(check["got"], check["want"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # It is the last line: nothing was left out in between.
        self.assertEqual(checks[-1]["name"], "methods that nothing called")


if __name__ == "__main__":
    unittest.main()
