"""Writes numbered rows with asyncpg: see ../README.md."""

import asyncio
import json
import sys
import traceback

import asyncpg

INSERT = "INSERT INTO written VALUES ($1, $2)"
uri = sys.argv[1]
ended = asyncio.Event()


def say(name, **event):
    print(json.dumps({"client": name, **event}), flush=True)


async def simple(connection, rows):
    name, number = rows[0]
    await connection.execute(f"INSERT INTO written VALUES ('{name}', {number})")


async def prepared(connection, rows):
    await connection.execute(INSERT, *rows[0])


async def transaction(connection, rows):
    async with connection.transaction():
        for row in rows:
            await connection.execute(INSERT, *row)


async def serializable(connection, rows):
    async with connection.transaction(isolation="serializable"):
        for row in rows:
            await connection.execute(INSERT, *row)


async def many(connection, rows):
    await connection.executemany(INSERT, rows)


async def copy(connection, rows):
    await connection.copy_records_to_table("written", records=rows)


async def reads(connection, rows):
    number = rows[0][1]
    assert await connection.fetchval("SELECT $1::bigint", number) == number


# How many rows each writes as one.
WAYS = {simple: 1, prepared: 1, transaction: 2, serializable: 2, many: 5, copy: 3, reads: 1}


async def work(way, count):
    name = f"asyncpg {way.__name__}"
    settings = {"application_name": name}
    connection = await asyncpg.connect(uri, server_settings=settings)
    await connection.execute(f"SET written.mark = '{name}'")
    await connection.execute("PREPARE doubled AS SELECT $1::int * 2")
    first = 0
    while not ended.is_set():
        numbers = list(range(first, first + count))
        first += count
        try:
            await way(connection, [(name, number) for number in numbers])
            say(name, acknowledged=numbers)
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                return say(name, lost=numbers, text=str(error))
            say(name, failed=numbers, sqlstate=error.sqlstate, text=str(error))
        await asyncio.sleep(0.01)
    mark = await connection.fetchval("SHOW written.mark")
    doubled = await connection.fetchval("EXECUTE doubled(21)")
    say(name, ended={"mark": mark, "doubled": doubled})
    await connection.close()


async def tell(way, count):
    try:
        await work(way, count)
    except Exception as error:
        traceback.print_exc()
        say(f"asyncpg {way.__name__}", lost=[], text=repr(error))


async def main():
    tasks = [asyncio.create_task(tell(*item)) for item in WAYS.items()]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ended.set()
    await asyncio.gather(*tasks)


asyncio.run(main())
