/* Writes numbered rows with libpq: see ../README.md. Each way is a process of its own. */

#include <libpq-fe.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define INSERT "INSERT INTO written VALUES ($1, $2)"
#define IN_FLIGHT 5

static char name[64];
static PGconn *conn;

/* Lines below PIPE_BUF are written whole, whichever process writes. */
static void say(const char *what, long first, int count, const char *sqlstate, const char *text) {
    char line[2048];
    int end = snprintf(line, sizeof line, "{\"client\": \"%s\", \"%s\": [", name, what);
    for (int i = 0; i < count; i++)
        end += snprintf(line + end, sizeof line - end, "%s%ld", i ? ", " : "", first + i);
    end += snprintf(line + end, sizeof line - end, "]");
    if (sqlstate)
        end += snprintf(line + end, sizeof line - end, ", \"sqlstate\": \"%s\"", sqlstate);
    if (text) {
        end += snprintf(line + end, sizeof line - end, ", \"text\": \"");
        for (; *text && end < (int)sizeof line - 8; text++)
            line[end++] = *text == '"' || *text == '\\' || *text < ' ' ? ' ' : *text;
        line[end++] = '"';
    }
    line[end++] = '}';
    line[end++] = '\n';
    if (write(STDOUT_FILENO, line, end) != end)
        exit(1);
}

static bool stdin_is_closed(int patience_ms) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, patience_ms) > 0;
}

static bool good(PGresult *result) {
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* Says how the rows ended and frees the result. */
static bool told(PGresult *result, long first, int count) {
    bool done = good(result);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (done)
        say("acknowledged", first, count, NULL, NULL);
    else if (PQstatus(conn) == CONNECTION_BAD || !sqlstate) {
        say("lost", first, count, NULL, PQerrorMessage(conn));
        exit(0);
    } else
        say("failed", first, count, sqlstate, PQresultErrorMessage(result));
    PQclear(result);
    return done;
}

static const char *const *row(long number) {
    static char text[32];
    static const char *values[2] = {name, text};
    snprintf(text, sizeof text, "%ld", number);
    return values;
}

static PGresult *insert(long number) {
    return PQexecParams(conn, INSERT, 2, NULL, row(number), NULL, NULL, 0);
}

static void parameters(long *next) {
    long number = (*next)++;
    told(insert(number), number, 1);
}

static void prepared(long *next) {
    long number = (*next)++;
    if (number == 0)
        PQclear(PQprepare(conn, "insert", INSERT, 2, NULL));
    told(PQexecPrepared(conn, "insert", 2, row(number), NULL, NULL, 0), number, 1);
}

static void transaction(long *next) {
    long first = *next;
    *next += 2;
    PGresult *result = PQexec(conn, "BEGIN");
    for (int i = 0; i < 2 && good(result); i++) {
        PQclear(result);
        result = insert(first + i);
    }
    if (good(result)) {
        PQclear(result);
        result = PQexec(conn, "COMMIT");
    }
    if (!told(result, first, 2))
        PQclear(PQexec(conn, "ROLLBACK"));
}

/* Each statement is a transaction of its own, and several are under way. */
static void pipeline(long *next) {
    static long answered = 0;
    PQenterPipelineMode(conn);
    while (*next < answered + IN_FLIGHT) {
        PQsendQueryParams(conn, INSERT, 2, NULL, row(*next), NULL, NULL, 0);
        PQpipelineSync(conn);
        ++*next;
    }
    PGresult *result = PQgetResult(conn);
    told(result, answered++, 1);
    PQclear(PQgetResult(conn)); /* the end of its results */
    PQclear(PQgetResult(conn)); /* the answer to its sync */
}

static void finish_pipeline(long next, long answered) {
    for (; answered < next; answered++) {
        told(PQgetResult(conn), answered, 1);
        PQclear(PQgetResult(conn));
        PQclear(PQgetResult(conn));
    }
    PQexitPipelineMode(conn);
}

static void work(const char *uri, const char *way, void (*write_some)(long *)) {
    snprintf(name, sizeof name, "libpq %s", way);
    conn = PQconnectdb(uri);
    char set[128];
    snprintf(set, sizeof set, "SET written.mark = '%s'", name);
    PGresult *result = PQexec(conn, set);
    PGresult *prepare = PQexec(conn, "PREPARE doubled AS SELECT $1::int * 2");
    long next = 0;
    if (!good(result) || !good(prepare)) {
        say("lost", 0, 0, NULL, PQerrorMessage(conn));
        exit(0);
    }
    while (!stdin_is_closed(10))
        write_some(&next);
    if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF)
        finish_pipeline(next, next - IN_FLIGHT + 1);
    PGresult *mark = PQexec(conn, "SHOW written.mark");
    PGresult *doubled = PQexec(conn, "EXECUTE doubled(21)");
    if (!good(mark) || !good(doubled)) {
        say("lost", 0, 0, NULL, PQerrorMessage(conn));
        exit(0);
    }
    char line[256];
    int end = snprintf(line, sizeof line,
        "{\"client\": \"%s\", \"ended\": {\"mark\": \"%s\", \"doubled\": %s}}\n",
        name, PQgetvalue(mark, 0, 0), PQgetvalue(doubled, 0, 0));
    exit(write(STDOUT_FILENO, line, end) == end ? 0 : 1);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    const struct { const char *way; void (*write_some)(long *); } ways[] = {
        {"parameters", parameters},
        {"prepared", prepared},
        {"transaction", transaction},
        {"pipeline", pipeline},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (fork() == 0)
            work(argv[1], ways[i].way, ways[i].write_some);
    while (wait(NULL) > 0)
        ;
    return 0;
}
