"""sqlmap finds no injection in the routes that read, on both stores, and does find the one that is there by design: the statement
of /v1/sql, which shows that it would. Part of ./test --fuzz. python3 -m unittest discover -s tests -p 'fuzz_*.py'
"""

import json
import subprocess
import unittest

from test_aws_clients import CACHE, HERE, binary
from test_reference import Caudal, postgres_database

REQUIREMENTS = HERE / "requirements/sqlmap.txt"
# A star marks each place that is tried; without one, every parameter.
TARGETS = (
    "/rest/v1/orders?select=n,city&city=eq.Lima&order=n&limit=2&offset=0",
    "/rest/v1/orders?n=in.(1,2*)&or=(n.eq.1*,city.like.L*)&and=(paid.is.true*)",
    "/rest/v1/orders?city*=eq.Lima&order=n.desc*&select=who:city*",
    "/rest/v1/orders*?limit=1",
    "/v1/dead-letters?topic=eq.orders&reason=neq.x",
    "/v1/topics/orders*/messages/{id}*",
    "/v1/receipts/{id}*?topic=orders*",
    "/data/{id}*",
    "/v1/reconcile?topic=orders*",
    "/rest/v1/orders?order=n&limit=2&cursor=AAAA*",
    "/v1/confirmations?topic=eq.orders*&state=eq.dead*",
    "/v1/confirmations/{id}*",
)
BY_DESIGN = "/v1/sql?q=select+city+from+orders+where+n+%3D+1*"


class Injection(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([HERE / "install-python", "sqlmap"], check=True)
        version = next(line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")).split("==")[1]
        cls.sqlmap = CACHE / f"sqlmap-{version}" / "bin/sqlmap"
        cls.program = binary()

    def attack(self, server: Caudal, target: str) -> str:
        command = [self.sqlmap, "-u", server.url + target, "--batch", "--level", "1", "--risk", "1", "--threads", "2"]
        # A place that is no place any more is an answer like any other.
        command += ["--ignore-code", "400,404", "--flush-session", "--disable-coloring", "--output-dir", f"{server.home.name}/sqlmap", "--technique", "BEUS"]
        return subprocess.run(command, capture_output=True, text=True, timeout=600).stdout

    def test_only_the_statement_that_is_one_can_be_injected(self):
        for store in ("sqlite:caudal.db", postgres_database()):
            server = Caudal(self.program, store)
            self.addCleanup(server.stop)
            for n in range(3):
                server.publish("orders", {"n": n, "city": "Lima" if n else "Cusco", "paid": True})
            found = self.attack(server, BY_DESIGN)
            self.assertIn("sqlmap identified the following injection point", found, "sqlmap does not work here")
            record = json.loads(server.get("/rest/v1/orders?select=_id&limit=1")[1])[0]["_id"]
            for target in (target.replace("{id}", record) for target in TARGETS):
                with self.subTest(store=store.split(":")[0], target=target):
                    found = self.attack(server, target)
                    self.assertNotIn("sqlmap identified the following injection point", found)
                    self.assertRegex(found, "not appear to be injectable|do not seem to be injectable", found[-3000:])
            self.assertNotIn(" panicked at ", server.log.read_text(errors="replace"))


if __name__ == "__main__":
    unittest.main()
