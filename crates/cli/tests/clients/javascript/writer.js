// Writes numbered rows with node-postgres: see ../README.md.

const { setTimeout: pause } = require("node:timers/promises");
const { Client } = require("pg");

const INSERT = "INSERT INTO written VALUES ($1, $2)";
const uri = process.argv[2];
let ended = false;

const say = (client, event) =>
  process.stdout.write(JSON.stringify({ client, ...event }) + "\n");

async function simple(client, rows) {
  const [name, number] = rows[0];
  await client.query(`INSERT INTO written VALUES ('${name}', ${number})`);
}

async function parameters(client, rows) {
  await client.query(INSERT, rows[0]);
}

async function prepared(client, rows) {
  await client.query({ name: "insert", text: INSERT, values: rows[0] });
}

async function transaction(client, rows) {
  await client.query("BEGIN");
  try {
    for (const row of rows) await client.query(INSERT, row);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  }
}

// Several statements in one message are one transaction.
async function script(client, rows) {
  const one = ([name, number]) => `INSERT INTO written VALUES ('${name}', ${number})`;
  await client.query(rows.map(one).join("; "));
}

async function reads(client, rows) {
  const number = rows[0][1];
  const answer = await client.query(`SELECT ${number} AS number`);
  if (answer.rows[0].number !== number) throw new Error("another answer than expected");
}

// How many rows each writes as one.
const WAYS = new Map([
  [simple, 1],
  [parameters, 1],
  [prepared, 1],
  [transaction, 2],
  [script, 2],
  [reads, 1],
]);

async function work(name, way, count) {
  const client = new Client({ connectionString: uri, application_name: name });
  let lost = null;
  client.on("error", (error) => (lost = error));
  client.on("end", () => (lost ??= new Error("the connection was closed")));
  await client.connect();
  await client.query(`SET written.mark = '${name}'`);
  await client.query("PREPARE doubled AS SELECT $1::int * 2 AS doubled");
  let first = 0;
  while (!ended) {
    const numbers = Array.from({ length: count }, (_, more) => first + more);
    first += count;
    try {
      await way(client, numbers.map((number) => [name, number]));
      say(name, { acknowledged: numbers });
    } catch (error) {
      if (lost || !error.code) return say(name, { lost: numbers, text: error.message });
      say(name, { failed: numbers, sqlstate: error.code, text: error.message });
    }
    await pause(10);
  }
  const { mark } = (await client.query('SELECT current_setting(\'written.mark\') AS mark')).rows[0];
  const { doubled } = (await client.query("EXECUTE doubled(21)")).rows[0];
  if (lost) return say(name, { lost: [], text: lost.message });
  say(name, { ended: { mark, doubled } });
  await client.end();
}

process.stdin.on("end", () => (ended = true)).resume();
for (const [way, count] of WAYS) {
  const name = `node-postgres ${way.name}`;
  work(name, way, count).catch((error) => say(name, { lost: [], text: error.message }));
}
