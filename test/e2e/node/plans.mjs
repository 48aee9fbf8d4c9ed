// node-postgres and postgres.js (as DRIVER says) while the schema changes:
// the Node player of ../test_plans_drivers.py, which says what a player does.

import { createInterface } from 'node:readline'
import pg from 'pg'
import postgres from 'postgres'

const url = process.env.DATABASE_URL
const clients = Number(process.env.CLIENTS)
const rounds = Number(process.env.ROUNDS)
const text = 'SELECT * FROM thing'

const drivers = {
    async pg() {
        const client = new pg.Client({ connectionString: url })
        await client.connect()
        return {
            rows: async () =>
                (await client.query({ name: 'thing', text })).rows,
            end: () => client.end(),
        }
    },
    async postgresjs() {
        const sql = postgres(url, { max: 1, onnotice: () => {} })
        return {
            rows: async () => await sql`SELECT * FROM thing`,
            end: () => sql.end({ timeout: 5 }),
        }
    },
}
const connect = drivers[process.env.DRIVER]

async function run(client, seen) {
    for (let round = 0; round < rounds; round++) {
        let row
        try {
            [row] = await client.rows()
        } catch (error) {
            row = { error: `${error.code} ${error.message}` }
        }
        seen.add(JSON.stringify(Object.fromEntries(Object.entries(row).map(
            ([name, value]) => [name, String(value)]))))
    }
}

async function fresh(seen) {
    const client = await connect()
    await run(client, seen)
    await client.end()
}

const all = await Promise.all(Array.from({ length: clients }, connect))
console.log('ready')
for await (const word of createInterface({ input: process.stdin })) {
    if (word !== 'round')
        break
    const old = new Set(), now = new Set()
    await Promise.all([...all.map(client => run(client, old)),
        fresh(now), fresh(now)])
    console.log('did', JSON.stringify([[...old], [...now]]))
}
await Promise.all(all.map(client => client.end()))
process.exit(0)
