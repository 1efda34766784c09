"""The peer: one FastAPI service with asyncpg that takes a flight over HTTP, commits it and gives it back.

This is the service that people write instead of running Caudal, written with care: a typed model, a typed table with one
primary key, one prepared insert, one commit a request, a pool that fits the machine. It has no queue, no batches, no dead
letters and no metrics.

    DATABASE_URL   postgres://… (required)
    POOL           connections a worker (default 16)
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "caudal:peer:fastapi:flights")

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
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(FIELDS) + 2))}) ON CONFLICT DO NOTHING RETURNING id"
)
SELECT = f"SELECT id, stored_at, {', '.join(FIELDS)} FROM peer_flights WHERE id = $1"


@asynccontextmanager
async def lifespan(app: FastAPI):
    size = int(os.environ.get("POOL", "16"))
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=size, max_size=size) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7240131)")  # several workers start at once
            await connection.execute(CREATE)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.post("/v1/topics/flights/messages", status_code=201)
async def publish(flight: Flight, request: Request, response: Response) -> dict:
    key = f"{int(flight.time_hour.timestamp())}|{flight.carrier}|{flight.flight}|{flight.origin}"
    identity = uuid.uuid5(NAMESPACE, key)
    values = [getattr(flight, name) for name in FIELDS]
    async with request.app.state.pool.acquire() as connection:
        # One statement outside a transaction block: PostgreSQL commits it before it answers.
        stored = await connection.fetchval(INSERT, identity, *values)
    if stored is None:
        response.status_code = 200
    return {"transaction_id": str(identity), "state": "duplicate" if stored is None else "stored"}


@app.get("/v1/topics/flights/messages/{identity}")
async def record(identity: uuid.UUID, request: Request) -> dict:
    async with request.app.state.pool.acquire() as connection:
        row = await connection.fetchrow(SELECT, identity)
    if row is None:
        raise HTTPException(404)
    return dict(row)


AFTER = f"SELECT id, stored_at, {', '.join(FIELDS)} FROM peer_flights WHERE id > $1 ORDER BY id LIMIT $2"
ALL = f"SELECT id, stored_at, {', '.join(FIELDS)} FROM peer_flights"
FIRST = uuid.UUID(int=0)


@app.get("/flights")
async def flights(request: Request, after: uuid.UUID = FIRST, limit: int | None = None) -> list[dict]:
    """A page by key, or all, as FastAPI's tutorial has it: the rows are fetched, then FastAPI makes JSON of them."""
    async with request.app.state.pool.acquire() as connection:
        rows = await connection.fetch(ALL) if limit is None else await connection.fetch(AFTER, after, limit)
    return [dict(row) for row in rows]


def encoded(rows: list[asyncpg.Record]) -> bytes:
    """Rows between the brackets of a JSON array."""
    return orjson.dumps([dict(row) for row in rows], default=str)[1:-1]


@app.get("/tuned/flights")
async def tuned(request: Request, after: uuid.UUID = FIRST, limit: int | None = None) -> Response:
    """The same with what the documentation of FastAPI and asyncpg advises for speed: no model, orjson, a cursor, a stream."""
    if limit is None:
        return StreamingResponse(everything(request.app.state.pool), media_type="application/json")
    async with request.app.state.pool.acquire() as connection:
        rows = await connection.fetch(AFTER, after, limit)
    return Response(b"[" + encoded(rows) + b"]", media_type="application/json")


async def everything(pool: asyncpg.Pool) -> AsyncIterator[bytes]:
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        cursor = await connection.cursor(ALL)
        between = b"["
        while rows := await cursor.fetch(5_000):
            yield between + encoded(rows)
            between = b","
    yield b"[]" if between == b"[" else b"]"
