"""awa 0.6, its handlers in Python. A job that is done is a terminal row of its ring storage.

Its ring storage is what new installations get; it is warmed on the empty database, as a worker that starts for the first time does.

best: https://github.com/hardbyte/awa/blob/main/docs/configuration.md and the comments of AsyncClient.start: more claimers with larger
batches for a hot queue, and a pool to match.
"""

import asyncio
import json
import os
from dataclasses import asdict, dataclass

import awa
from peer_job import ARGUMENT, BEST, COMMAND, Endpoint, batches

QUEUE = "confirm"


@dataclass
class Confirm:
    payment_id: str
    amount: int
    note: str


def client_of(url: str | None) -> awa.AsyncClient:
    client = awa.AsyncClient(os.environ["DATABASE_URL"], **({"max_connections": 24} if BEST else {}))
    endpoint = Endpoint(url)

    @client.task(Confirm, queue=QUEUE)
    async def confirm(job) -> None:
        await endpoint.post(json.dumps(asdict(job.args)).encode(), job.id)

    return client


async def start(client: awa.AsyncClient) -> None:
    if BEST:
        await client.start([{"name": QUEUE, "max_workers": 512, "claimers": 2, "claim_batch_size": 512}])
    else:
        await client.start([(QUEUE, 64)])


async def main() -> None:
    client = client_of(ARGUMENT if COMMAND == "work" else None)
    if COMMAND == "enqueue":
        await client.migrate()
        await start(client)
        await asyncio.sleep(1)
        await client.shutdown()
        status = json.loads(await client.storage_status())
        assert status.get("state") == "active", status
        for jobs in batches(int(ARGUMENT), 5000):
            await client.enqueue_many_copy([Confirm(**job) for job in jobs], queue=QUEUE)
        await client.close()
    else:
        await start(client)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
