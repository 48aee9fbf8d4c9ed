// postgres.js: named statements by default, many under way before the first
// answers, COMMIT itself prepared; and it has COPY and cancel.

import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import postgres from 'postgres'
import {
    bigBytes, bigText, ChangedMind, clients, committed, committedRounds,
    crowd, fails, nonce, rollsBack, rounds, run, same, sleepLoudly, step,
    tablesSql, url,
} from './scenario.mjs'

async function connected(body, options = {}) {
    const sql = postgres(url, { max: 1, onnotice: () => {}, ...options })
    try {
        return await body(sql)
    } finally {
        await sql.end({ timeout: 5 })
    }
}

// Without postgres.js's extra fields, so that it can be compared.
const plain = rows => rows.map(row => ({ ...row }))

const count = async (sql, email) =>
    (await sql`select from postgresjs_item where email = ${email}`).count

step('tables are created', () => connected(sql =>
    sql.unsafe(tablesSql('postgresjs'))))

step('rows are created, read, updated and deleted', () =>
    connected(async sql => {
        const row = { email: 'crud@x', note: 'one' }
        const [{ id }] = await sql`insert into postgresjs_item ${sql(row)}
            returning id`
        const find = () => sql`select email, note from postgresjs_item
            where id = ${id}`.then(plain)
        same(await find(), [row])
        same((await sql`update postgresjs_item set note = ${null}
            where id = ${id}`).count, 1)
        same(await find(), [{ email: 'crud@x', note: null }])
        same((await sql`delete from postgresjs_item where id = ${id}`).count, 1)
        same(await find(), [])
    }))

step('a commit is seen by others and a rollback by nobody', () =>
    connected(one => connected(async two => {
        const add = (sql, email) =>
            sql`insert into postgresjs_item (email) values (${email})`
        await one.begin(async sql => {
            await add(sql, 'tx@x')
            same(await count(two, 'tx@x'), 0)
        })
        same(await count(two, 'tx@x'), 1)
        await rollsBack(one.begin(async sql => {
            await add(sql, 'gone@x')
            throw new ChangedMind()
        }))
        same(await count(two, 'gone@x'), 0)
        await one.begin(async sql => {
            await add(sql, 'outer@x')
            await rollsBack(sql.savepoint(async inner => {
                await add(inner, 'inner@x')
                throw new ChangedMind()
            }))
        })
        same([await count(two, 'outer@x'), await count(two, 'inner@x')],
            [1, 0])
    })))

step('errors leave the connection usable', () => connected(async sql => {
    const add = () =>
        sql`insert into postgresjs_item (email) values ('twice@x')`
    await add()
    await fails(add(), '23505')
    await fails(sql`selec 1`, '42601')
    await fails(sql.unsafe('selec 1'), '42601')
    await fails(sql`select ${'seven'}::text::int`, '22P02')
    await fails(sql.begin(async tx => {
        await fails(tx`select * from not_there`, '42P01')
        await tx`select 1`
    }), '42P01')        // it remembers the first
    same(plain(await sql`select ${1}::int as n`), [{ n: 1 }])
}))

step('statements keep their meaning over transactions', () =>
    connected(async sql => {
        for (let n = 0; n < 20; n++) {
            same((await sql`select ${n}::int + 1 as n`)[0].n, n + 1)
            await sql.begin(async tx =>
                same((await tx`select ${n}::int - 1 as n`)[0].n, n - 1))
        }
    }))

step('statements work unprepared', () => connected(async sql => {
    for (let n = 0; n < 10; n++)
        same((await sql`select ${n}::int as n`)[0].n, n)
}, { prepare: false }))

step('a pipeline answers in order, and an error is its own only', () =>
    connected(async sql => {
        const answers = await Promise.allSettled(Array.from({ length: 300 },
            (_, n) => sql`select 100 / ${n % 10}::int as n`))
        answers.forEach((answer, n) => n % 10
            ? same(answer.value[0].n, Math.trunc(100 / (n % 10)))
            : same(answer.reason.code, '22012'))
    }))

step('a transaction of queries sent at once answers in order', () =>
    connected(async sql => {
        const results = await sql.begin(tx => Array.from({ length: 50 },
            (_, n) => tx`select ${n}::int as n, pg_backend_pid() as backend`))
        same(results.map(([{ n }]) => n),
            Array.from({ length: 50 }, (_, n) => n))
        same(new Set(results.map(([{ backend }]) => backend)).size, 1)
    }))

step('several statements in one query answer in order', () =>
    connected(async sql => {
        const results = await sql.unsafe('select 1 as n; select 2 as n')
        same(results.map(rows => rows[0].n), [1, 2])
        same((await sql`select 3 as n; select 4 as n`.simple())
            .map(rows => rows[0].n), [3, 4])
    }))

step('values come back as they were', () => connected(async sql => {
    const sent = { int: -7, real: 2.5, text: 'é\n\'\\', yes: true,
        raw: Buffer.from([0, 1, 255]), nothing: null, empty: '',
        at: new Date('2026-11-30T01:02:03.004Z'), list: [1, 2, 3],
        json: { a: [1, null] } }
    const [row] = await sql`select ${sent.int}::int as int,
        ${sent.real}::float8 as real, ${sent.text}::text as text,
        ${sent.yes}::bool as yes, ${sent.raw}::bytea as raw,
        ${sent.nothing}::text as nothing, ${sent.empty}::text as empty,
        ${sent.at}::timestamptz as at, ${sent.list}::int[] as list,
        ${sql.json(sent.json)}::jsonb as json`
    same({ ...row }, sent)
}))

step('a megabyte goes there and back', () => connected(async sql => {
    const [{ text, raw }] =
        await sql`select ${bigText}::text as text, ${bigBytes}::bytea as raw`
    same(text, bigText)
    same(raw, bigBytes)
}))

step('a cursor fetches in pieces', () => connected(async sql => {
    const seen = []
    for await (const rows of
        sql`select generate_series(1, 100) as n`.cursor(7))
        seen.push(...rows.map(row => row.n))
    same(seen, Array.from({ length: 100 }, (_, n) => n + 1))
    for await (const [row] of sql`select generate_series(1, 100) as n`.cursor())
        if (row.n === 10)
            break           // and leave the rest: it closes the portal
    same((await sql`select 'usable' as it`)[0].it, 'usable')
}))

step('a query is described without being run', () => connected(async sql => {
    const { columns } = await sql`select 1 / 0 as n`.describe()
    same(columns.map(column => column.name), ['n'])
}))

step('copy goes in and out', () => connected(async sql => {
    const rows = Array.from({ length: 5000 }, (_, n) =>
        `${n}\t${n}\t${'copied '.repeat(20)}\n`)
    // When all is done postgres.js sends one CopyFail more, as it closes its
    // stream; Postgres ignores that.
    await pipeline(Readable.from(rows),
        await sql`copy postgresjs_ledger from stdin`.writable())
    same((await sql`select from postgresjs_ledger`).count, 5000)
    // Out goes less than a stream's buffer: above that postgres.js may pause
    // its socket for ever.
    const back = []
    for await (const chunk of await sql`copy (select * from postgresjs_ledger
        order by 1 limit 50) to stdout`.readable())
        back.push(chunk)
    same(Buffer.concat(back).toString(), rows.slice(0, 50).join(''))
    await sql`truncate postgresjs_ledger`
}))

step('a failed copy leaves the connection usable', () =>
    connected(async sql => {
        const into = await sql`copy postgresjs_ledger from stdin`.writable()
        into.on('error', () => {})
        into.destroy(new Error('the source of the data broke'))
        same((await sql`select from postgresjs_ledger`).count, 0)
    }))

step('notices arrive', async () => {
    const heard = []
    await connected(
        sql => sql.unsafe("do $$ begin raise notice 'hear, hear'; end $$"),
        { onnotice: notice => heard.push(notice.message) })
    same(heard.filter(text => text.includes('hear')), ['hear, hear'])
})

step('notifications arrive', () => connected(async sql => {
    const heard = []
    let enough
    const all = new Promise(resolve => { enough = resolve })
    const { unlisten } = await sql.listen('postgresjs_news', payload => {
        heard.push(payload)
        if (heard.length === 2)
            enough()
    })
    await sql.notify('postgresjs_news', 'one')
    await sql.begin(tx => tx`select pg_notify('postgresjs_news', 'two')`)
    await all
    same(heard, ['one', 'two'])
    await unlisten()
}))

step('a cancel ends the query it is meant for', async () => {
    let onNotice
    await connected(async sql => {
        for (let turn = 0; turn < 3; turn++) {
            const asleep = new Promise(resolve => { onNotice = resolve })
            const sleeper = sql.unsafe(sleepLoudly)
            const ended = fails(sleeper.execute(), '57014')
            await asleep
            sleeper.cancel()
            await ended
            same((await sql`select 'usable' as it`)[0].it, 'usable')
        }
    }, { onnotice: notice => notice.message === 'asleep' && onNotice() })
})

step('a statement timeout ends its statement only', () =>
    connected(async sql => {
        await fails(sql.begin(async tx => {
            await tx`set local statement_timeout = '50ms'`
            await tx`select pg_sleep(60)`
        }), '57014')
        same((await sql`select pg_sleep(0.1)::text as it`)[0].it, '')
    }))

step('a pool of connections works on many queries at once', () =>
    connected(async sql => {
        const numbers = Array.from({ length: 20 * clients }, (_, n) => n)
        same(await Promise.all(numbers.map(async n =>
            (await sql`select ${n}::int as n`)[0].n)), numbers)
    }, { max: clients }))

step('a crowd gets its own answers only', () =>
    crowd((number, everyoneIsHere) => connected(async sql => {
        await sql`select 1`         // it connects at its first query
        await everyoneIsHere()
        const backends = []
        for (let round = 0; round < rounds; round++) {
            const work = sql.begin(tx => oneRound(tx, number, round))
            if (committed(round))
                backends.push(await work)
            else
                await rollsBack(work)
        }
        const left = await sql`select round from postgresjs_ledger
            where client = ${number} order by 1`
        same(left.map(row => row.round), committedRounds)
        return backends
    })))

async function oneRound(tx, number, round) {
    const note = nonce(number, round)
    const [[echo], , [row]] = await Promise.all([
        tx`select ${note}::text as note, pg_backend_pid() as backend`,
        tx`insert into postgresjs_ledger values (${number}, ${round}, ${note})`,
        tx`select note, pg_backend_pid() as backend from postgresjs_ledger
            where client = ${number} and round = ${round}`,
    ])
    same(echo.note, note)
    same({ ...row }, { ...echo })
    if (!committed(round))
        throw new ChangedMind()
    return echo.backend
}

await run()
