// An application at work, while something is done to its database: Prisma
// Client, node-postgres with named statements, and postgres.js, a few workers
// of each. ../load_tools.py starts it, and says "end" (closes its stdin) when
// it has seen enough.
//
// Each worker reads an item, and adds one to its quantity in a transaction,
// again and again. At the end a line of JSON says, by driver, how many were
// added, what went wrong, and how long the longest of all calls took.

import { setTimeout as pause } from 'node:timers/promises'
import { PrismaPg } from '@prisma/adapter-pg'
import prismaClient from '@prisma/client'
import pg from 'pg'
import postgres from 'postgres'

const { PrismaClient } = prismaClient

const url = process.env.DATABASE_URL
const items = Number(process.env.ITEMS)
const workers = Number(process.env.WORKERS)
// It is not to be the load that makes anybody wait.
const pauseMs = Number(process.env.PAUSE_MS)

// What each driver's statements are; a column more or less, or of another
// type, is not to disturb who asks for all of them.
const find = 'select * from load.item where id = $1'
const add = 'update load.item set qty = qty + 1 where id = $1'
const added = 'select qty from load.item where id = $1'
// For postgres.js, which asks once what a statement's columns are. When a type
// changes it is told so by an error, as it is by Postgres itself, and prepares
// the statement again; but it cannot do that in a transaction.
const addedTo = 'select name from load.item where id = $1'

// open(url) gives { worker(), end() }; a worker has read(id) and add(id).

// maxWait and timeout are as everybody has them, 2 and 5 seconds.
function openPrisma() {
    const adapter = new PrismaPg({ connectionString: url },
        { schema: 'load' })
    const prisma = new PrismaClient({ adapter })
    return {
        worker: async () => ({
            read: id => prisma.item.findUniqueOrThrow({ where: { id } }),
            add: id => prisma.$transaction(async tx => {
                await tx.item.update({ where: { id },
                    data: { qty: { increment: 1 } } })
                await tx.item.findUniqueOrThrow({ where: { id } })
            }),
        }),
        end: () => prisma.$disconnect(),
    }
}

function openPg() {
    const clients = []
    return {
        worker: async () => {
            const client = new pg.Client(url)
            clients.push(client)
            await client.connect()
            const ask = (name, text, id) =>
                client.query({ name, text, values: [id] })
            return {
                read: id => ask('find', find, id),
                add: async id => {
                    await client.query('begin')
                    await ask('add', add, id)
                    await ask('added', added, id)
                    await client.query('commit')
                },
            }
        },
        end: () => Promise.all(clients.map(client => client.end())),
    }
}

function openPostgresJs() {
    const sql = postgres(url, { max: workers })
    const ask = (to, text, id) => to.unsafe(text, [id], { prepare: true })
    return {
        worker: async () => ({
            read: id => ask(sql, find, id),
            add: id => sql.begin(async tx => {
                await ask(tx, add, id)
                await ask(tx, addedTo, id)
            }),
        }),
        end: () => sql.end(),
    }
}

const drivers = { prisma: openPrisma, pg: openPg, postgresjs: openPostgresJs }

let isOver = false

// One driver's numbers.
class Tally {
    added = 0
    longest_ms = 0
    errors = []

    async time(work) {
        const began = performance.now()
        try {
            await work
            return true
        } catch (error) {
            this.errors.push(`after ${Math.round(performance.now() - began)}`
                + ` ms: ${error.code ?? ''} ${error.message}`)
            return false
        } finally {
            this.longest_ms = Math.max(this.longest_ms,
                Math.round(performance.now() - began))
        }
    }
}

const anyItem = () => 1 + Math.floor(Math.random() * items)

// One that fails stops: what it would say next is of no interest.
async function work(worker, tally) {
    while (!isOver) {
        if (!await tally.time(worker.read(anyItem())))
            return
        if (!await tally.time(worker.add(anyItem())))
            return
        tally.added++
        await pause(pauseMs)
    }
}

const stop = () => { isOver = true }
process.stdin.on('end', stop).resume()
setTimeout(stop, Number(process.env.SECONDS) * 1000).unref()

// Everybody is connected, and has done everything once, before the first word.
const opened = await Promise.all(Object.entries(drivers).map(
    async ([name, open]) => {
        const driver = open(), tally = new Tally()
        const all = await Promise.all(Array.from({ length: workers },
            () => driver.worker()))
        await Promise.all(all.map(async worker => {
            await worker.read(anyItem())
            await worker.add(anyItem())
            tally.added++
        }))
        return { name, driver, tally, all }
    }))
console.log('ready')
await Promise.all(opened.flatMap(({ all, tally }) =>
    all.map(worker => work(worker, tally))))
await Promise.all(opened.map(({ driver }) => driver.end()))
console.log(JSON.stringify(Object.fromEntries(
    opened.map(({ name, tally }) => [name, tally]))))
