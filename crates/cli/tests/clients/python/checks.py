"""What applications do besides writing rows, with psycopg and asyncpg: one function for each.

Started with a URI and the name of a function; what is wrong is an exception.
"""

import asyncio
import hashlib
import os
import sys
import threading

import asyncpg
import psycopg

uri = sys.argv[1]


def psycopg_copies_both_ways():
    rows = [(number, f"row {number}\t\\\n") for number in range(50_000)]
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TEMPORARY TABLE copied (number int, text text)")
        cursor = connection.cursor()
        for form in ("", "(FORMAT binary)"):
            connection.execute("TRUNCATE copied")
            with cursor.copy(f"COPY copied FROM STDIN {form}") as sink:
                sink.set_types(["int4", "text"])
                for row in rows:
                    sink.write_row(row)
            with cursor.copy(f"COPY copied TO STDOUT {form}") as source:
                source.set_types(["int4", "text"])
                assert list(source.rows()) == rows


def psycopg_gives_up_a_copy():
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE given_up (number int)")
        try:
            with connection.cursor().copy("COPY given_up FROM STDIN") as sink:
                sink.write_row([1])
                raise KeyError("changed its mind")
        except psycopg.errors.QueryCanceled:
            pass
        assert connection.execute("SELECT count(*) FROM given_up").fetchone() == (0,)


def psycopg_leaves_in_the_middle_of_an_answer():
    leaving = psycopg.connect(uri)
    source = leaving.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT")
    source.__enter__().read()
    leaving.pgconn.finish()
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def psycopg_reads_in_portions():
    with psycopg.connect(uri) as connection:
        with connection.cursor("portions") as cursor:
            cursor.itersize = 7
            cursor.execute("SELECT generate_series(1, 100)")
            assert [row[0] for row in cursor] == list(range(1, 101))


def psycopg_hears_notifications():
    with psycopg.connect(uri, autocommit=True) as hearing, psycopg.connect(uri) as speaking:
        hearing.execute("LISTEN spoken")
        speaking.execute("NOTIFY spoken, 'words'")
        speaking.commit()
        heard = next(hearing.notifies())
        assert (heard.channel, heard.payload) == ("spoken", "words")
        assert heard.pid == speaking.execute("SELECT pg_backend_pid()").fetchone()[0]


def psycopg_cancels():
    with psycopg.connect(uri, autocommit=True) as connection:
        canceller = threading.Timer(0.3, connection.cancel)
        canceller.start()
        try:
            connection.execute("SELECT pg_sleep(60)")
            raise AssertionError("nothing was cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        canceller.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def psycopg_goes_on_after_errors_in_a_pipeline():
    with psycopg.connect(uri, autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            before = connection.execute("SELECT 1")
            pipeline.sync()
            wrong = connection.execute("SELECT 1 / %s", [0])
            # The error may be here before the next statement, or only with the Sync.
            told, unanswered = 0, [wrong]
            try:
                unanswered.append(connection.execute("SELECT 2"))
            except psycopg.errors.DivisionByZero:
                told += 1
            try:
                pipeline.sync()
            except psycopg.errors.DivisionByZero:
                told += 1
            except psycopg.errors.PipelineAborted:
                assert told == 1, "the pipeline was aborted by nothing"
            assert told == 1, "a division by zero was answered, or told twice"
            after = connection.execute("SELECT 3")
            assert before.fetchone() == (1,)
            assert after.fetchone() == (3,)
            for none in unanswered:
                try:
                    none.fetchone()
                    raise AssertionError("rows after an error")
                except psycopg.Error:
                    pass


def psycopg_sends_and_receives_100_megabytes():
    value = os.urandom(1_000_000) * 100
    with psycopg.connect(uri, autocommit=True) as connection:
        answer = connection.execute("SELECT %b::bytea", [value], binary=True).fetchone()[0]
        assert hashlib.sha256(answer).digest() == hashlib.sha256(value).digest()


def psycopg_is_told_who_it_is():
    name = "näme"
    with psycopg.connect(uri, application_name="checks", options="-c work_mem=5MB") as connection:
        for what, value in (("application_name", "checks"), ("work_mem", "5MB")):
            assert connection.execute(f"SHOW {what}").fetchone() == (value,)
        connection.execute("SET client_encoding TO latin1")
        assert connection.info.encoding == "iso8859-1"
        assert connection.execute("SELECT %s::text", [name]).fetchone() == (name,)
        connection.execute("SET TimeZone TO 'Asia/Tokyo'")
        assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"


async def asyncpg_copies_both_ways():
    rows = [(number, b"\x00" * number) for number in range(1000)]
    connection = await asyncpg.connect(uri)
    await connection.execute("CREATE TEMPORARY TABLE copied (number int, bytes bytea)")
    await connection.copy_records_to_table("copied", records=rows)
    parts = []

    async def keep(part):
        parts.append(part)

    await connection.copy_from_query("SELECT * FROM copied", output=keep, format="binary")
    await connection.execute("CREATE TEMPORARY TABLE again (LIKE copied)")

    async def source():
        for part in parts:
            yield part

    await connection.copy_to_table("again", source=source(), format="binary")
    found = await connection.fetch("SELECT * FROM again ORDER BY number")
    assert [tuple(row) for row in found] == rows
    await connection.close()


async def asyncpg_reads_in_portions():
    connection = await asyncpg.connect(uri)
    async with connection.transaction():
        cursor = connection.cursor("SELECT generate_series(1, 100)", prefetch=7)
        assert [row[0] async for row in cursor] == list(range(1, 101))
    await connection.close()


async def asyncpg_hears_notifications():
    hearing, speaking = [await asyncpg.connect(uri) for _ in range(2)]
    heard = asyncio.get_running_loop().create_future()
    await hearing.add_listener("told", lambda *what: heard.set_result(what[2:]))
    await speaking.execute("NOTIFY told, 'words'")
    assert await asyncio.wait_for(heard, 20) == ("told", "words")
    await hearing.close()
    await speaking.close()


async def asyncpg_cancels():
    connection = await asyncpg.connect(uri)
    try:
        await connection.execute("SELECT pg_sleep(60)", timeout=0.3)
        raise AssertionError("nothing was cancelled")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


check = globals()[sys.argv[2]]
if asyncio.iscoroutinefunction(check):
    asyncio.run(check())
else:
    check()
