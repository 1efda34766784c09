"""The peer: a FastStream consumer that takes each flight from the broker, checks it with pydantic, commits it with asyncpg and lets
FastStream acknowledge it.

This is the shape of FastStream's own documentation: one handler, one message, one insert, acknowledged when the handler returns.
It reads the queue that Caudal's worker reads. It has no batches, no dead letters and no metrics; its log of every message is off.

    run NAME URL     rabbitmq, nats or kafka
    DATABASE_URL     postgres://… (required)
    POOL             connections (default 16), and handlers at work at once where FastStream can
"""

import asyncio
import os
import sys
import uuid

import asyncpg
import uvloop
from faststream import FastStream
from pydantic import AwareDatetime, BaseModel, Field

POOL = int(os.environ.get("POOL", "16"))
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "caudal:peer:faststream:flights")

CREATE = """
CREATE TABLE IF NOT EXISTS peer_flights (
    id uuid PRIMARY KEY,
    stored_at timestamptz NOT NULL DEFAULT now(),
    year bigint NOT NULL, month bigint NOT NULL, day bigint NOT NULL,
    dep_time bigint, sched_dep_time bigint NOT NULL, dep_delay bigint,
    arr_time bigint, sched_arr_time bigint NOT NULL, arr_delay bigint,
    carrier text NOT NULL, flight bigint NOT NULL, tailnum text, origin text NOT NULL, dest text NOT NULL,
    air_time bigint, distance bigint NOT NULL, hour bigint NOT NULL, minute bigint NOT NULL,
    time_hour timestamptz NOT NULL
)"""


class Flight(BaseModel):
    year: int
    month: int = Field(ge=1, le=12)
    day: int = Field(ge=1, le=31)
    dep_time: int | None = None
    sched_dep_time: int
    dep_delay: int | None = None
    arr_time: int | None = None
    sched_arr_time: int
    arr_delay: int | None = None
    carrier: str = Field(min_length=2, max_length=2)
    flight: int = Field(ge=1)
    tailnum: str | None = None
    origin: str = Field(min_length=3, max_length=3)
    dest: str = Field(min_length=3, max_length=3)
    air_time: int | None = None
    distance: int = Field(ge=0)
    hour: int = Field(ge=0, le=23)
    minute: int = Field(ge=0, le=59)
    time_hour: AwareDatetime


FIELDS = list(Flight.model_fields)
INSERT = (
    f"INSERT INTO peer_flights (id, {', '.join(FIELDS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(FIELDS) + 2))}) ON CONFLICT DO NOTHING"
)


def subscribed(name: str, url: str):
    """The broker, and the decorator that subscribes a handler to what Caudal published."""
    if name == "rabbitmq":
        from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

        broker = RabbitBroker(url, logger=None, default_channel=Channel(prefetch_count=POOL * 8))
        return broker, broker.subscriber(RabbitQueue("caudal.flights.store", declare=False))
    if name == "nats":
        from faststream.nats import JStream, NatsBroker, PullSub

        broker = NatsBroker(url, logger=None)
        stream = JStream("caudal-flights", declare=False)
        return broker, broker.subscriber(
            "caudal.flights", stream=stream, durable="store", pull_sub=PullSub(batch_size=POOL * 8), max_workers=POOL
        )
    if name == "kafka":
        from faststream.kafka import KafkaBroker

        broker = KafkaBroker(url.removeprefix("kafka://").split("?")[0].split(","), logger=None)
        return broker, broker.subscriber("flights", group_id="peer", auto_offset_reset="earliest")
    sys.exit(f"app.py: no broker {name}")


async def main(name: str, url: str) -> None:
    broker, subscriber = subscribed(name, url)
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL) as pool:
        await pool.execute(CREATE)

        @subscriber
        async def store(flight: Flight) -> None:
            key = f"{int(flight.time_hour.timestamp())}|{flight.carrier}|{flight.flight}|{flight.origin}"
            values = [getattr(flight, field) for field in FIELDS]
            await pool.execute(INSERT, uuid.uuid5(NAMESPACE, key), *values)

        await FastStream(broker).run()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
