"""What all peers in Python share: the words of the command line, the job, and what is done with it."""

import json
import sys

SETTINGS, COMMAND, *REST = sys.argv[1:]
BEST = SETTINGS == "best"
ARGUMENT = REST[0] if REST else None
# As many connections to the endpoint as Caudal has.
CONNECTIONS = 64


def job(n: int) -> dict:
    """200 bytes as JSON."""
    payload = {"payment_id": f"p-{n:010}", "amount": 1999, "note": ""}
    payload["note"] = "x" * (200 - len(json.dumps(payload, separators=(",", ":"))))
    return payload


def batches(count: int, size: int):
    for start in range(0, count, size):
        yield [job(n) for n in range(start, min(start + size, count))]


class Endpoint:
    """One POST a job over kept connections, or nothing."""

    def __init__(self, url: str | None):
        self.url = url
        self.session = None

    async def post(self, body: bytes, key: object) -> None:
        if self.url is None:
            return
        if self.session is None:
            import aiohttp

            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))
        headers = {"content-type": "application/json", "idempotency-key": str(key)}
        async with self.session.post(self.url, data=body, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()
