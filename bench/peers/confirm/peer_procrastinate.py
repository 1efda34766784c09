"""procrastinate 3.10. A job that is done has status 'succeeded'.

best: https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html: as many jobs at once as there are connections to
the endpoint, and as many to the database.
"""

import asyncio
import json
import os

import uvloop
from peer_job import ARGUMENT, BEST, COMMAND, CONNECTIONS, Endpoint, batches
from procrastinate import App, PsycopgConnector

pool = {"max_size": CONNECTIONS} if BEST else {}
app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], **pool))
endpoint = Endpoint(ARGUMENT if COMMAND == "work" else None)


@app.task(name="confirm", pass_context=True)
async def confirm(context, **payload):
    await endpoint.post(json.dumps(payload).encode(), context.job.id)


async def main() -> None:
    async with app.open_async():
        if COMMAND == "enqueue":
            await app.schema_manager.apply_schema_async()
            for jobs in batches(int(ARGUMENT), 1000):
                await confirm.batch_defer_async(*jobs)
        else:
            await app.run_worker_async(**({"concurrency": CONNECTIONS} if BEST else {}))


if __name__ == "__main__":
    uvloop.run(main())
