// node-postgres: unnamed statements in one batch, named ones when asked to,
// simple queries where there are no parameters, buffers sent in binary; and,
// since 8.23, pipelines.

import { once } from 'node:events'
import pg from 'pg'
import {
    bigBytes, bigText, ChangedMind, clients, committed, committedRounds,
    crowd, fails, nonce, rollsBack, rounds, run, same, sleepLoudly, step,
    tablesSql, url,
} from './scenario.mjs'

const insert = 'insert into pg_item (email, note) values ($1, $2) returning id'
const count = 'select count(*)::int as n from pg_item where email = any($1)'

async function connected(body, options = {}) {
    const client = new pg.Client({ connectionString: url, ...options })
    await client.connect()
    try {
        return await body(client)
    } finally {
        await client.end()
    }
}

async function ask(client, text, values, options = {}) {
    const result = await client.query(
        { text, values, rowMode: 'array', ...options })
    return result.rows
}

async function transaction(client, body) {
    await client.query('begin')
    try {
        const result = await body()
        await client.query('commit')
        return result
    } catch (error) {
        await client.query('rollback')
        throw error
    }
}

step('tables are created', () => connected(it => it.query(tablesSql('pg'))))

step('rows are created, read, updated and deleted', () =>
    connected(async it => {
        const [[id]] = await ask(it, insert, ['crud@x', 'one'])
        const find = 'select email, note from pg_item where id = $1'
        same(await ask(it, find, [id]), [['crud@x', 'one']])
        same((await it.query('update pg_item set note = $1 where id = $2',
            [null, id])).rowCount, 1)
        same(await ask(it, find, [id]), [['crud@x', null]])
        same((await it.query('delete from pg_item where id = $1', [id]))
            .rowCount, 1)
        same(await ask(it, find, [id]), [])
    }))

step('a commit is seen by others and a rollback by nobody', () =>
    connected(one => connected(async two => {
        await transaction(one, async () => {
            await one.query(insert, ['tx@x', null])
            same(await ask(two, count, [['tx@x']]), [[0]])
        })
        same(await ask(two, count, [['tx@x']]), [[1]])
        await rollsBack(transaction(one, async () => {
            await one.query(insert, ['gone@x', null])
            throw new ChangedMind()
        }))
        same(await ask(two, count, [['gone@x']]), [[0]])
    })))

step('errors leave the connection usable', () => connected(async it => {
    await it.query(insert, ['twice@x', null])
    await fails(it.query(insert, ['twice@x', null]), '23505')
    await fails(it.query('selec 1'), '42601')
    await fails(it.query('selec $1', [1]), '42601')
    await fails(it.query('select $1::text::int', ['seven']), '22P02')
    await fails(transaction(it, async () => {
        await fails(it.query('select * from not_there'), '42P01')
        await it.query('select 1')
    }), '25P02')
    same(await ask(it, 'select $1::int', [1]), [[1]])
}))

step('several statements in one query are one transaction', () =>
    connected(async it => {
        await fails(it.query("insert into pg_item (email) values ('multi@x');"
            + ' select 1 / 0'), '22012')
        same(await ask(it, count, [['multi@x']]), [[0]])
        const results = await it.query('select 1 as n; select 2 as n')
        same(results.map(result => result.rows[0].n), [1, 2])
    }))

step('a named statement keeps its meaning over transactions', () =>
    connected(async it => {
        const plus = n => ask(it, 'select $1::int + 1', [n], { name: 'plus' })
        for (let n = 0; n < 20; n++) {
            same(await plus(n), [[n + 1]])
            await transaction(it, async () => same(await plus(-n), [[1 - n]]))
        }
    }))

step('many clients prepare other statements under the same name', () =>
    crowd((number, everyoneIsHere) => connected(async it => {
        await everyoneIsHere()
        for (let n = 0; n < 5; n++)
            same(await ask(it, `select ${number}, $1::text`, ['own'],
                { name: 'same' }), [[number, 'own']])
        return []
    })))

step('a statement that did not parse may be prepared again', () =>
    connected(async it => {
        await fails(it.query({ name: 'later', text: 'select * from pg_late' }),
            '42P01')
        await transaction(it, async () => {
            await it.query('create temp table pg_late on commit drop'
                + ' as select 1 as n')
            same(await ask(it, 'select * from pg_late', [], { name: 'later' }),
                [[1]])
        })
    }))

step('a pipeline answers in order, and an error is its own only', () =>
    connected(async it => {
        const answers = await Promise.allSettled(Array.from({ length: 200 },
            (_, n) => ask(it, 'select 100 / $1::int', [n % 10])))
        answers.forEach((answer, n) => n % 10
            ? same(answer.value, [[Math.trunc(100 / (n % 10))]])
            : same(answer.reason.code, '22012'))
        same(await ask(it, 'select 1'), [[1]])
    }, { pipeline: true }))

step('values come back as they were', () =>
    connected(async it => {
        const at = new Date('2026-11-30T01:02:03.004Z')
        const sent = [-7, 2.5, 'é\n\'\\', true, Buffer.from([0, 1, 255]),
            at, { a: [1, null] }, [1, null, 3], null, '']
        const sql = 'select $1::int, $2::float8, $3::text, $4::bool,'
            + ' $5::bytea, $6::timestamptz, $7::jsonb, $8::int[], $9::text,'
            + ' $10::text'
        same(await ask(it, sql, sent), [sent])
    }))

step('a megabyte goes there and back', () => connected(async it => {
    const [[text, raw]] = await ask(it, 'select $1::text, $2::bytea',
        [bigText, bigBytes])
    same(text, bigText)
    same(raw, bigBytes)
    const [[literal]] = await ask(it, `select '${bigText}'`)
    same(literal, bigText)
}))

step('a result is fetched in pieces', () => connected(async it => {
    // A portal of 10 rows at a time; node-postgres sends Flush between.
    const rows = await transaction(it, () => ask(it,
        'select generate_series(1, $1::int)', [100], { rows: 10 }))
    same(rows.length, 100)
}))

step('notices arrive', () => connected(async it => {
    const heard = []
    it.on('notice', notice => heard.push(notice.message))
    await it.query("do $$ begin raise notice 'hear, hear'; end $$")
    same(heard.filter(text => text.includes('hear')), ['hear, hear'])
}))

step('notifications arrive', () => connected(hearer =>
    connected(async teller => {
        const heard = []
        let enough
        const all = new Promise(resolve => { enough = resolve })
        hearer.on('notification', it => {
            heard.push(it.payload)
            if (heard.length === 3)
                enough()
        })
        await hearer.query('listen pg_news')
        await transaction(teller, () => ask(teller,
            'select pg_notify($1, $2)', ['pg_news', 'theirs']))
        await hearer.query("notify pg_news, 'own'")
        await teller.query("notify pg_news, 'last'")
        await all
        same(heard.sort(), ['last', 'own', 'theirs'])
        await hearer.query('unlisten pg_news')
    })))

step('a cancel ends the query it is meant for', () => connected(async it => {
    for (let turn = 0; turn < 3; turn++) {
        const sleeper = new pg.Query(sleepLoudly)
        const ended = once(sleeper, 'end')
        const asleep = new Promise(resolve => it.on('notice', notice =>
            notice.message === 'asleep' && resolve()))
        it.query(sleeper)
        await asleep
        new pg.Client({ connectionString: url, ssl: false })
            .cancel(it, sleeper)
        await fails(ended, '57014')
        same(await ask(it, "select 'usable'"), [['usable']])
    }
}))

step('a statement timeout ends its statement only', () =>
    connected(async it => {
        await fails(transaction(it, async () => {
            await it.query("set local statement_timeout = '50ms'")
            await it.query('select pg_sleep(60)')
        }), '57014')
        same(await ask(it, 'select pg_sleep(0.1)::text'), [['']])
    }))

step('a pool hands its connections round', async () => {
    const pool = new pg.Pool({ connectionString: url, max: clients })
    const numbers = Array.from({ length: 10 * clients }, (_, n) => n)
    same(await Promise.all(numbers.map(async n =>
        (await ask(pool, 'select $1::int', [n]))[0][0])), numbers)
    await pool.end()
})

step('a crowd gets its own answers only', () =>
    crowd((number, everyoneIsHere) => connected(async it => {
        await everyoneIsHere()
        const backends = []
        for (let round = 0; round < rounds; round++) {
            const work = transaction(it, () => oneRound(it, number, round))
            if (committed(round))
                backends.push(await work)
            else
                await rollsBack(work)
        }
        same(await ask(it, 'select round from pg_ledger where client = $1'
            + ' order by 1', [number]), committedRounds.map(n => [n]))
        return backends
    })))

async function oneRound(it, number, round) {
    const mine = nonce(number, round)
    const [[echo, who, backend]] = await ask(it, `select $1::text, ${number},
        pg_backend_pid()`, [mine], { name: 'echo' })
    same([echo, who], [mine, number])
    await it.query('insert into pg_ledger values ($1, $2, $3)',
        [number, round, mine])
    same(await ask(it, 'select note, pg_backend_pid() from pg_ledger'
        + ' where client = $1 and round = $2', [number, round]),
    [[mine, backend]])
    if (!committed(round))
        throw new ChangedMind()
    return backend
}

await run()
