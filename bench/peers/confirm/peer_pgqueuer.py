"""pgqueuer 1.6. A job that is done leaves the queue and has a line 'successful' in pgqueuer_log.

best: larger batches and a pool, as https://janbjorge.github.io/pgqueuer/ says under Performance and Drivers.
"""

import asyncio
import os

import asyncpg
import uvloop
from peer_job import ARGUMENT, BEST, COMMAND, Endpoint, batches, json
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

DATABASE = os.environ["DATABASE_URL"]


async def enqueue(count: int) -> None:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(DATABASE)))
    await queries.install()
    for jobs in batches(count, 5000):
        payloads = [json.dumps(job, separators=(",", ":")).encode() for job in jobs]
        await queries.enqueue(["confirm"] * len(jobs), payloads, [0] * len(jobs))


async def work() -> None:
    if BEST:
        driver = AsyncpgPoolDriver(await asyncpg.create_pool(DATABASE, min_size=4, max_size=16))
    else:
        driver = AsyncpgDriver(await asyncpg.connect(DATABASE))
    queuer = PgQueuer(driver)
    endpoint = Endpoint(ARGUMENT)

    @queuer.entrypoint("confirm")
    async def confirm(job) -> None:
        await endpoint.post(job.payload, job.id)

    await queuer.run(**({"batch_size": 500, "max_concurrent_tasks": 2000} if BEST else {}))


if __name__ == "__main__":
    uvloop.run(enqueue(int(ARGUMENT)) if COMMAND == "enqueue" else work())
