// What the Node players of ../test_drivers_mixed.py share; what a player is,
// and what it does, ../drivers/mixed.py says.

import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'

export const url = process.env.DATABASE_URL
export const driver = process.env.DRIVER
const clients = Number(process.env.CLIENTS)
const transactions = Number(process.env.TRANSACTIONS)

const zones = ['Asia/Tokyo', 'America/Lima', 'Africa/Cairo', 'Australia/Perth',
    'Europe/Oslo', 'Pacific/Fiji', 'Asia/Kolkata']

const settings = `select current_setting('application_name') as name,
    current_setting('TimeZone') as zone,
    current_setting('search_path') as path`
export const insert =
    'insert into ledger (client, round, note) values ($1, $2, $3)'
export const read = 'select note from ledger where client = $1 and round = $2'
const rounds =
    'select round from ledger where client = $1 order by round'

// What is thrown to make a transaction roll back.
class ChangedMind extends Error {}

// One connection's identity, and what is to be true of its session.
class Member {
    backends = new Set()

    constructor(number) {
        this.number = number
        this.name = `${driver}/${number}`
        this.path = `mixed_${driver}, c${number}`
        this.zone = zones[number % zones.length]
    }

    // search_path and TimeZone as libpq's connection option.
    get options() {
        return `-c search_path=${this.path.replace(' ', '\\ ')}`
            + ` -c TimeZone=${this.zone}`
    }
}

// tx.ask(name, text, values) gives rows as objects; the name is unique for
// the text, on this connection. What has tx.insert(client, round, note) and
// tx.read(client, round) is asked by them.
async function transaction(tx, me, turn) {
    const note = `${me.name}/${turn}`
    const kind = turn % 4
    let { zone } = me
    if (kind !== 3) {
        zone = zones[(me.number + turn + 1) % zones.length]
        await tx.ask(`zone ${turn}`,
            `set ${kind === 2 ? 'local ' : ''}time zone '${zone}'`)
    }
    const [{ it, backend }] = await tx.ask('echo', `select $1::text
        || ' for ${me.name}' as it, pg_backend_pid() as backend`, [note])
    assert.equal(it, `${note} for ${me.name}`)
    me.backends.add(backend)
    const row = [me.number, turn]
    await (tx.insert?.(...row, note) ?? tx.ask('insert', insert,
        [...row, note]))
    const found = await (tx.read?.(...row) ?? tx.ask('read', read, row))
    assert.deepEqual(found.map(row => row.note), [note])
    assert.deepEqual({ ...(await tx.ask('settings', settings))[0] },
        { name: me.name, zone, path: me.path })
    if (turn % 2)
        throw new ChangedMind()
    return zone
}

// All transactions; and in the end its rows are all there.
async function everything(session, me) {
    for (let turn = 0; turn < transactions; turn++) {
        const work = session.transaction(tx => transaction(tx, me, turn))
        if (turn % 2)
            await assert.rejects(work, ChangedMind)
        else if (turn % 4 === 0)
            me.zone = await work
        else
            await work
    }
    const found = await session.transaction(tx =>
        tx.ask('rounds', rounds, [me.number]))
    assert.deepEqual(found.map(row => row.round),
        Array.from({ length: Math.ceil(transactions / 2) }, (_, n) => 2 * n))
}

// connect(member) gives a session: transaction(body) runs body(tx) in a
// transaction, which rolls back when it throws; and end() closes.
export async function play(connect) {
    const lines = createInterface({ input: process.stdin })
    const words = lines[Symbol.asyncIterator]()
    const awaitWord = async word =>
        assert.equal((await words.next()).value, word)
    const members = Array.from({ length: clients }, (_, n) => new Member(n))
    try {
        const sessions = await Promise.all(members.map(async me => {
            const session = await connect(me)
            await session.transaction(tx => tx.ask('one', 'select 1'))
            return session
        }))
        console.log('ready')
        await awaitWord('go')
        await Promise.all(members.map((me, at) =>
            everything(sessions[at], me)))
        console.log('done',
            ...new Set(members.flatMap(me => [...me.backends])))
        await awaitWord('end')
        await Promise.all(sessions.map(session => session.end()))
        lines.close()
    } catch (error) {
        console.log(driver, error.stack, error.cause ?? '')
        process.exit(1)
    }
}
