// Drizzle, all of it on node-postgres and then all of it on postgres.js. On pg
// a .prepare('name') is a named statement; on postgres.js everything is sent
// as `unsafe`, that is: unnamed.

import { eq, inArray, relations, sql } from 'drizzle-orm'
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js'
import {
    boolean, integer, jsonb, numeric, pgTable, serial, text, timestamp,
} from 'drizzle-orm/pg-core'
import pg from 'pg'
import postgres from 'postgres'
import {
    bigText, ChangedMind, committed, committedRounds, crowd, fails, nonce,
    rollsBack, rounds, run, same, step as scenarioStep, url,
} from './scenario.mjs'

const author = pgTable('drizzle_author', {
    id: serial().primaryKey(),
    email: text().notNull().unique(),
})

const book = pgTable('drizzle_book', {
    id: serial().primaryKey(),
    authorId: integer('author_id').references(() => author.id),
    title: text().notNull(),
    price: numeric(),
    sold: boolean(),
    extra: jsonb(),
    at: timestamp({ withTimezone: true }),
    pages: integer().array(),
})

const ledger = pgTable('drizzle_ledger',
    { client: integer(), round: integer(), note: text() })

const schema = {
    author,
    book,
    authorRelations: relations(author, ({ many }) => ({ books: many(book) })),
    bookRelations: relations(book, ({ one }) => ({
        author: one(author,
            { fields: [book.authorId], references: [author.id] }),
    })),
}

const tables = `
    set client_min_messages = warning;
    drop table if exists drizzle_author, drizzle_book, drizzle_ledger;
    reset client_min_messages;
    create table drizzle_author (id serial primary key,
        email text not null unique);
    create table drizzle_book (id serial primary key,
        author_id int references drizzle_author, title text not null,
        price numeric, sold boolean, extra jsonb, at timestamptz, pages int[]);
    create table drizzle_ledger (client int, round int, note text)`

// How each driver is connected: body(db, rows of what db.execute() returned).
const drivers = {
    async pg(body) {
        const pool = new pg.Pool({ connectionString: url, max: 1 })
        try {
            return await body(drizzlePg(pool, { schema }), it => it.rows)
        } finally {
            await pool.end()
        }
    },
    async postgresjs(body) {
        const client = postgres(url, { max: 1, onnotice: () => {} })
        try {
            return await body(drizzlePostgresJs(client, { schema }), it => it)
        } finally {
            await client.end({ timeout: 5 })
        }
    },
}

// body(connected), where connected(body) is one of the above.
const steps = []
const step = (name, body) => steps.push({ name, body })

const emails = async (db, ...wanted) =>
    (await db.select({ email: author.email }).from(author)
        .where(inArray(author.email, wanted)).orderBy(author.email))
        .map(row => row.email)

step('tables are created', connected =>
    connected(db => db.execute(sql.raw(tables))))

step('rows are created, read, updated and deleted', connected =>
    connected(async db => {
        const [{ id }] = await db.insert(author).values({ email: 'crud@x' })
            .returning({ id: author.id })
        const find = () => db.select().from(author).where(eq(author.id, id))
        same(await find(), [{ id, email: 'crud@x' }])
        await db.update(author).set({ email: 'new@x' }).where(eq(author.id, id))
        same(await find(), [{ id, email: 'new@x' }])
        await db.delete(author).where(eq(author.id, id))
        same(await find(), [])
    }))

step('relations are read in one query', connected => connected(async db => {
    const [{ id }] = await db.insert(author).values({ email: 'writer@x' })
        .returning()
    await db.insert(book).values([{ authorId: id, title: 'one' },
        { authorId: id, title: 'two' }])
    const found = await db.query.author.findFirst({
        where: eq(author.id, id),
        with: { books: { columns: { title: true }, orderBy: book.id } },
    })
    same(found, { id, email: 'writer@x',
        books: [{ title: 'one' }, { title: 'two' }] })
}))

step('an upsert updates the row that is there', connected =>
    connected(async db => {
        for (const email of ['upsert@x', 'upsert@x'])
            await db.insert(author).values({ email }).onConflictDoUpdate(
                { target: author.email, set: { email } })
        same(await emails(db, 'upsert@x'), ['upsert@x'])
    }))

step('a commit is seen by others and a rollback by nobody', connected =>
    connected(one => connected(async two => {
        await one.transaction(async tx => {
            await tx.insert(author).values({ email: 'tx@x' })
            same(await emails(two, 'tx@x'), [])
            await rollsBack(tx.transaction(async inner => {
                await inner.insert(author).values({ email: 'inner@x' })
                throw new ChangedMind()
            }))
        }, { isolationLevel: 'repeatable read' })
        await rollsBack(one.transaction(async tx => {
            await tx.insert(author).values({ email: 'gone@x' })
            throw new ChangedMind()
        }))
        same(await emails(two, 'tx@x', 'inner@x', 'gone@x'), ['tx@x'])
    })))

step('errors leave the connection usable', connected =>
    connected(async db => {
        const add = () => db.insert(author).values({ email: 'twice@x' })
        await add()
        await fails(add(), '23505')
        await fails(db.execute(sql`selec 1`), '42601')
        await fails(db.transaction(tx => tx.execute(sql`select 1 / 0`)),
            '22012')
        same(await emails(db, 'twice@x'), ['twice@x'])
    }))

step('prepared queries keep their meaning over transactions', connected =>
    connected(async db => {
        const find = db.select().from(author)
            .where(eq(author.email, sql.placeholder('email'))).prepare('find')
        for (let n = 0; n < 10; n++) {
            const email = `prepared${n}@x`
            same(await find.execute({ email }), [])
            await db.transaction(tx => tx.insert(author).values({ email }))
            same((await find.execute({ email })).length, 1)
        }
    }))

step('values come back as they were', connected => connected(async db => {
    const sent = { title: 'é\n\'\\', price: '1.50', sold: true,
        extra: { a: [1, null] }, at: new Date('2026-11-30T01:02:03.004Z'),
        pages: [1, 2, 3], authorId: null }
    const [{ id, ...got }] = await db.insert(book).values(sent).returning()
    same(got, sent)
    await db.update(book).set({ price: null, sold: null, extra: null,
        at: null, pages: null }).where(eq(book.id, id))
    const [row] = await db.select().from(book).where(eq(book.id, id))
    same(row, { id, title: sent.title, price: null, sold: null, extra: null,
        at: null, pages: null, authorId: null })
}))

step('a megabyte goes there and back', connected => connected(async db => {
    const [{ title }] = await db.insert(book).values({ title: bigText })
        .returning()
    same(title, bigText)
}))

step('a crowd gets its own answers only', connected =>
    crowd((number, everyoneIsHere) => connected(async (db, rowsOf) => {
        await db.execute(sql`select 1`)     // it connects at its first query
        await everyoneIsHere()
        const backends = []
        for (let round = 0; round < rounds; round++) {
            const work = db.transaction(tx =>
                oneRound(tx, rowsOf, number, round))
            if (committed(round))
                backends.push(await work)
            else
                await rollsBack(work)
        }
        const left = await db.select({ round: ledger.round }).from(ledger)
            .where(eq(ledger.client, number)).orderBy(ledger.round)
        same(left.map(row => row.round), committedRounds)
        return backends
    })))

async function oneRound(tx, rowsOf, number, round) {
    const note = nonce(number, round)
    const echo = async () => rowsOf(await tx.execute(
        sql`select ${note}::text as note, pg_backend_pid() as backend`))[0]
    const { note: heard, backend } = await echo()
    same(heard, note)
    // The same name for another text on every connection.
    const mine = tx.select({ note: ledger.note, who: sql`${number}::int` })
        .from(ledger).where(sql`${ledger.client} = ${sql.raw(String(number))}
            and ${ledger.round} = ${sql.placeholder('round')}`).prepare('mine')
    await tx.insert(ledger).values({ client: number, round, note })
    same((await mine.execute({ round })).map(row => ({ ...row })),
        [{ note, who: number }])
    same((await echo()).backend, backend)
    if (!committed(round))
        throw new ChangedMind()
    return backend
}

for (const [driver, connected] of Object.entries(drivers))
    for (const { name, body } of steps)
        scenarioStep(`${name} (${driver})`, () => body(connected))
await run()
