// What the Node driver scenarios share; they have the shape of the Python
// ones, which ../drivers/scenario.py describes, and the same environment:
// DATABASE_URL, CLIENTS, ROUNDS, SERVERS.

import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'

export const url = process.env.DATABASE_URL
export const clients = Number(process.env.CLIENTS ?? 20)
export const rounds = Number(process.env.ROUNDS ?? 10)
const servers = Number(process.env.SERVERS ?? 0)

// One megabyte in which every part differs from every other part.
export const bigText = Array.from({ length: 131072 }, (_, at) =>
    at.toString(16).padStart(7, '0') + ' ').join('')
export const bigBytes = Buffer.concat(Array.from({ length: 32768 }, (_, at) =>
    createHash('sha256').update(String(at)).digest()))

// Says NOTICE as soon as it runs, and sleeps for as long as a hang would be.
export const sleepLoudly =
    "do $$ begin raise notice 'asleep'; perform pg_sleep(60); end $$"

export const tablesSql = driver => `
    set client_min_messages = warning;
    drop table if exists ${driver}_item, ${driver}_ledger;
    reset client_min_messages;
    create table ${driver}_item (id int generated always as identity
        primary key, email text not null unique, note text);
    create table ${driver}_ledger (client int, round int, note text)`

const steps = []

export function step(name, body) {
    steps.push({ name, body })
}

export function same(got, wanted) {
    // No difference is shown of what is too long to read.
    if (got?.length > 10000 && wanted?.length === got.length)
        return assert.ok(Buffer.from(got).equals(Buffer.from(wanted)),
            'a long value came back changed')
    assert.deepEqual(got, wanted)
}

// The promise must fail with this SQLSTATE (Prisma: with this code).
export async function fails(promise, code) {
    await assert.rejects(promise, error => {
        // Drizzle wraps the driver's error.
        assert.equal(error.code ?? error.cause?.code, code, error)
        return true
    })
}

// A text that nobody else's query can have in it.
export const nonce = (client, round) =>
    `${client}/${round}/${randomBytes(8).toString('hex')}`

// The rounds that a member of the crowd commits; the rest roll back.
export const committed = round => round % 2 === 0
export const committedRounds = Array.from({ length: rounds }, (_, n) => n)
    .filter(committed)

// What is thrown to make a transaction roll back.
export class ChangedMind extends Error {}

export async function rollsBack(promise) {
    await assert.rejects(promise, ChangedMind)
}

// Runs member(number, everyoneIsHere) `clients` times at once. Each awaits
// everyoneIsHere() once it is connected, so nobody starts to work before all
// connections are open, and returns the backends it met.
export async function crowd(member) {
    let here = 0, open
    const opened = new Promise(resolve => { open = resolve })
    const everyoneIsHere = () => {
        if (++here === clients)
            open()
        return opened
    }
    const backends = await Promise.all(Array.from({ length: clients },
        (_, number) => member(number, everyoneIsHere)))
    const met = new Set(backends.flat()).size
    assert.ok(!servers || met <= servers,
        `${met} backends served the crowd, not ${servers}`)
}

export async function run() {
    const wanted = process.argv.slice(2)
    let failed = 0
    for (const { name, body } of steps) {
        if (wanted.length && !wanted.some(word => name.includes(word)))
            continue
        try {
            await body()
            console.log(`ok      ${name}`)
        } catch (error) {
            failed++
            console.log(`FAILED  ${name}\n${error.stack}`, error.cause ?? '')
        }
    }
    // A connection left open by a step that failed must not keep us here.
    process.exit(failed ? 1 : 0)
}
