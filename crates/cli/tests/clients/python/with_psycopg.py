"""Writes numbered rows with psycopg 3: see ../README.md."""

import json
import sys
import threading
import time
import traceback

import psycopg

INSERT = "INSERT INTO written VALUES (%s, %s)"
uri = sys.argv[1]
ended = threading.Event()


def say(name, **event):
    # One call of write: several threads print.
    sys.stdout.write(json.dumps({"client": name, **event}) + "\n")
    sys.stdout.flush()


def simple(connection, rows):
    psycopg.ClientCursor(connection).execute(INSERT, rows[0])


def autocommit(connection, rows):
    connection.execute(INSERT, rows[0], prepare=False)


def prepared(connection, rows):
    connection.execute(INSERT, rows[0], prepare=True)


def transaction(connection, rows):
    with connection.transaction():
        for row in rows:
            connection.execute(INSERT, row)


def savepoint(connection, rows):
    with connection.transaction():
        # By hand: a nested transaction() cannot be left after its SAVEPOINT has failed.
        connection.execute(INSERT, rows[0])
        connection.execute("SAVEPOINT here")
        connection.execute(INSERT, rows[1])
        connection.execute("RELEASE here")


def pipeline(connection, rows):
    with connection.pipeline():
        for row in rows:
            connection.execute(INSERT, row)


def copy(connection, rows):
    with connection.cursor().copy("COPY written FROM STDIN") as sink:
        for row in rows:
            sink.write_row(row)


def reads(connection, rows):
    number = rows[0][1]
    assert connection.execute("SELECT %s::bigint", (number,)).fetchone() == (number,)


# How many rows each writes as one.
WAYS = {simple: 1, autocommit: 1, prepared: 1, transaction: 2, savepoint: 2}
WAYS |= {pipeline: 5, copy: 3, reads: 1}


def work(way, count):
    name = f"psycopg {way.__name__}"
    with psycopg.connect(uri, autocommit=True, application_name=name) as connection:
        if way in (transaction, savepoint):
            # With prepared statements of its own psycopg sends DEALLOCATE ALL after a rollback.
            connection.prepare_threshold = None
        connection.execute(f"SET written.mark = '{name}'")
        connection.execute("PREPARE doubled AS SELECT $1::int * 2")
        heard = []
        connection.add_notify_handler(lambda notice: heard.append(notice.channel))
        connection.execute(f'LISTEN "{name}"')
        first = 0
        while not ended.is_set():
            numbers = list(range(first, first + count))
            first += count
            try:
                way(connection, [(name, number) for number in numbers])
                say(name, acknowledged=numbers)
            except psycopg.Error as error:
                if connection.closed:
                    return say(name, lost=numbers, text=str(error))
                say(name, failed=numbers, sqlstate=error.sqlstate, text=str(error))
            time.sleep(0.01)
        mark = connection.execute("SHOW written.mark").fetchone()[0]
        doubled = connection.execute("EXECUTE doubled(21)").fetchone()[0]
        connection.execute(f'NOTIFY "{name}"')
        say(name, ended={"mark": mark, "doubled": doubled, "heard": heard == [name]})


def tell(way, count):
    try:
        work(way, count)
    except Exception as error:
        traceback.print_exc()
        say(f"psycopg {way.__name__}", lost=[], text=repr(error))


threads = [threading.Thread(target=tell, args=item) for item in WAYS.items()]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
