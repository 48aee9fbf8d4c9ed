// Prisma Client 7 on adapter-pg: node-postgres below, nothing named, and its
// own idea of transactions. The client is generated from schema.prisma.

import { PrismaPg } from '@prisma/adapter-pg'
import prismaClient from '@prisma/client'
import {
    bigBytes, bigText, ChangedMind, committed, committedRounds, crowd, fails,
    nonce, rollsBack, rounds, run, same, step, url,
} from './scenario.mjs'

const { Prisma, PrismaClient } = prismaClient

const tables = [
    'drop table if exists prisma_book, prisma_author, prisma_value,'
        + ' prisma_ledger',
    'drop type if exists prisma_mood',
    "create type prisma_mood as enum ('glad', 'sad')",
    'create table prisma_author (id serial primary key,'
        + ' email text not null unique)',
    'create table prisma_book (id serial primary key, title text not null,'
        + ' author_id int not null references prisma_author)',
    'create table prisma_value (id int primary key, huge bigint,'
        + ' exact numeric(65,30), "real" double precision, text text,'
        + ' raw bytea, json jsonb, at timestamptz(3), yes boolean,'
        + ' mood prisma_mood, numbers int[])',
    'create table prisma_ledger (client int, round int, note text not null,'
        + ' primary key (client, round))',
]

async function connected(body, options = {}) {
    const adapter = new PrismaPg(
        { connectionString: url, max: 1, ...options })
    const prisma = new PrismaClient({ adapter })
    try {
        return await body(prisma)
    } finally {
        await prisma.$disconnect()
    }
}

const count = (prisma, email) => prisma.author.count({ where: { email } })
const add = (prisma, email) => prisma.author.create({ data: { email } })

step('tables are created', () => connected(prisma =>
    prisma.$transaction(tables.map(sql => prisma.$executeRawUnsafe(sql)))))

step('rows are created, read, updated and deleted', () =>
    connected(async prisma => {
        const { id } = await add(prisma, 'crud@x')
        const find = () => prisma.author.findUnique({ where: { id } })
        same(await find(), { id, email: 'crud@x' })
        await prisma.author.update({ where: { id }, data: { email: 'new@x' } })
        same(await find(), { id, email: 'new@x' })
        await prisma.author.upsert({ where: { id }, create: { email: 'x' },
            update: { email: 'newer@x' } })
        same(await find(), { id, email: 'newer@x' })
        await prisma.author.delete({ where: { id } })
        same(await find(), null)
    }))

step('relations are written and read', () => connected(async prisma => {
    await prisma.author.create({ data: { email: 'writer@x',
        books: { create: [{ title: 'one' }, { title: 'two' }] } } })
    const { books } = await prisma.author.findUniqueOrThrow({
        where: { email: 'writer@x' },
        include: { books: { orderBy: { id: 'asc' } } },
    })
    same(books.map(book => book.title), ['one', 'two'])
    const { _count } = await prisma.book.aggregate({ _count: true,
        where: { author: { is: { email: 'writer@x' } } } })
    same(_count, 2)
}))

step('many rows are written at once', () => connected(async prisma => {
    const data = Array.from({ length: 1000 }, (_, n) =>
        ({ email: `many${n}@x` }))
    same((await prisma.author.createMany({ data })).count, 1000)
    const where = { email: { in: data.map(row => row.email) } }
    same((await prisma.author.findMany({ where })).length, 1000)
    same((await prisma.author.deleteMany({ where })).count, 1000)
}))

step('a commit is seen by others and a rollback by nobody', () =>
    connected(one => connected(async two => {
        await one.$transaction(async tx => {
            await add(tx, 'tx@x')
            same(await count(two, 'tx@x'), 0)
        }, { isolationLevel: 'Serializable' })
        same(await count(two, 'tx@x'), 1)
        await rollsBack(one.$transaction(async tx => {
            await add(tx, 'gone@x')
            throw new ChangedMind()
        }))
        same(await count(two, 'gone@x'), 0)
    })))

step('a batch of operations is all or nothing', () =>
    connected(async prisma => {
        await prisma.$transaction([add(prisma, 'a@x'), add(prisma, 'b@x')])
        await fails(prisma.$transaction(
            [add(prisma, 'c@x'), add(prisma, 'a@x')]), 'P2002')
        same(await Promise.all(['a@x', 'b@x', 'c@x'].map(email =>
            count(prisma, email))), [1, 1, 0])
    }))

step('errors leave the connection usable', () => connected(async prisma => {
    await add(prisma, 'twice@x')
    await fails(add(prisma, 'twice@x'), 'P2002')
    await fails(prisma.$queryRaw`selec 1`, 'P2010')
    await fails(prisma.author.update(
        { where: { id: -1 }, data: { email: 'nobody@x' } }), 'P2025')
    await fails(prisma.book.create(
        { data: { title: 'orphan', authorId: -1 } }), 'P2003')
    await fails(prisma.$transaction(async tx => {
        await fails(tx.$queryRaw`select 1 / 0`, 'P2010')
        await tx.$queryRaw`select 1`
    }), 'P2010')
    same(await count(prisma, 'twice@x'), 1)
}))

step('values and nulls come back as they were', () =>
    connected(async prisma => {
        const sent = { id: 1, huge: 2n ** 60n, real: 2.5, text: 'é\n\'\\',
            exact: new Prisma.Decimal('12345678901234567890.125'),
            raw: new Uint8Array([0, 1, 255]), json: { a: [1, null] },
            at: new Date('2026-11-30T01:02:03.004Z'), yes: true, mood: 'sad',
            numbers: [1, 2, 3] }
        await prisma.value.create({ data: sent })
        await prisma.value.create({ data: { id: 2 } })
        const [full, empty] = await prisma.value.findMany(
            { orderBy: { id: 'asc' } })
        same(full.exact.toFixed(), sent.exact.toFixed())
        same({ ...full, exact: null }, { ...sent, exact: null })
        same(Object.entries(empty).filter(([, value]) => value !== null),
            [['id', 2], ['numbers', []]])
        same(await prisma.$queryRaw`select ${7}::int as n, ${null}::text as t`,
            [{ n: 7, t: null }])
    }))

step('a megabyte goes there and back', () => connected(async prisma => {
    const data = { id: 3, text: bigText, raw: new Uint8Array(bigBytes) }
    await prisma.value.create({ data })
    const got = await prisma.value.findUniqueOrThrow({ where: { id: 3 } })
    same(got.text, bigText)
    same(got.raw, data.raw)
}))

step('a statement timeout ends its statement only', () =>
    connected(async prisma => {
        await fails(prisma.$transaction(async tx => {
            await tx.$executeRaw`set local statement_timeout = '50ms'`
            await tx.$queryRaw`select pg_sleep(60)::text`
        }), 'P2010')
        same(await prisma.$queryRaw`select pg_sleep(0.1)::text as it`,
            [{ it: '' }])
    }))

step('a transaction that takes too long is rolled back', () =>
    connected(async prisma => {
        await fails(prisma.$transaction(async tx => {
            await add(tx, 'slow@x')
            await tx.$queryRaw`select pg_sleep(0.3)::text`
            await add(tx, 'slower@x')
        }, { timeout: 100 }), 'P2028')
        same(await count(prisma, 'slow@x'), 0)
    }))

step('many queries at once are answered rightly', () =>
    connected(async prisma => {
        const numbers = Array.from({ length: 200 }, (_, n) => n)
        same((await Promise.all(numbers.map(n =>
            prisma.$queryRaw`select ${n}::int as n`))).map(([row]) => row.n),
        numbers)
    }, { max: 10 }))

step('a crowd gets its own answers only', () =>
    crowd((number, everyoneIsHere) => connected(async prisma => {
        await prisma.$queryRaw`select 1`    // it connects at its first query
        await everyoneIsHere()
        const backends = []
        for (let round = 0; round < rounds; round++) {
            // Twenty of them share few servers: let them wait in line.
            const work = prisma.$transaction(
                tx => oneRound(tx, number, round),
                { maxWait: 30000, timeout: 30000 })
            if (committed(round))
                backends.push(await work)
            else
                await rollsBack(work)
        }
        const left = await prisma.ledger.findMany(
            { where: { client: number }, orderBy: { round: 'asc' } })
        same(left.map(row => row.round), committedRounds)
        return backends
    })))

async function oneRound(tx, number, round) {
    const note = nonce(number, round)
    const [echo] = await tx.$queryRaw`select ${note}::text as note,
        pg_backend_pid() as backend`
    same(echo.note, note)
    await tx.ledger.create({ data: { client: number, round, note } })
    const [row] = await tx.$queryRaw`select note, pg_backend_pid() as backend
        from prisma_ledger where client = ${number} and round = ${round}`
    same(row, echo)
    if (!committed(round))
        throw new ChangedMind()
    return echo.backend
}

await run()
