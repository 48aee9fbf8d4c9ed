// Is what is in Postgres what was in SQLite? Each side is read anew; a row's
// digest is that of its values, a table's checksum the sum of its rows', so
// that neither side's order of rows counts. Only if sums differ is it asked
// which rows do.

import { createHash } from 'node:crypto'
import type Database from 'better-sqlite3'
import type pg from 'pg'
import type { Progress } from './progress.js'
import { batches, quote, type Table } from './tables.js'
import { toText, typeOf, type SqliteValue } from './values.js'

const BATCH = 2000
const DIFFERENCES_SHOWN = 10

type Proofs = (string | null)[]

export interface Verdict {
    table: string
    sqlite: { count: number, checksum: string }
    postgres: { count: number, checksum: string }
    isSame: boolean
    differences: string[]
}

class Checksum {
    count = 0
    private sum = 0n

    add(row: Proofs) {
        this.sum += BigInt(`0x${digest(row)}`)
        this.count++
    }

    value() {
        return {
            count: this.count,
            checksum: BigInt.asUintN(64, this.sum).toString(16)
                .padStart(16, '0'),
        }
    }
}

const digest = (row: Proofs) => createHash('sha256')
    .update(JSON.stringify(row)).digest('hex').slice(0, 16)

/** In one transaction: the same moment for all tables. */
export async function verify(sqlite: Database.Database, db: pg.Client,
    tables: Table[], progress: Progress) {
    const verdicts: Verdict[] = []
    await db.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    for (const table of tables)
        verdicts.push(await verifyTable(sqlite, db, table, progress))
    await db.query('COMMIT')
    return verdicts
}

async function verifyTable(sqlite: Database.Database, db: pg.Client,
    table: Table, progress: Progress): Promise<Verdict> {
    const ours = new Checksum()
    const theirs = new Checksum()
    progress.begin(`verify ${table.name}`, 2 * table.count)
    for await (const rows of sqliteProofs(sqlite, db, table)) {
        rows.forEach(row => ours.add(row))
        progress.advance(rows.length)
    }
    for await (const rows of postgresProofs(db, table)) {
        rows.forEach(row => theirs.add(row))
        progress.advance(rows.length)
    }
    progress.end()
    const verdict = { table: table.name, sqlite: ours.value(),
        postgres: theirs.value() }
    const isSame =
        JSON.stringify(verdict.sqlite) === JSON.stringify(verdict.postgres)
    return { ...verdict, isSame, differences:
        isSame ? [] : await findDifferences(sqlite, db, table) }
}

async function* sqliteProofs(
    sqlite: Database.Database, db: pg.Client, table: Table) {
    const json = table.columns.flatMap(({ type }, n) =>
        type === 'jsonb' ? [n] : [])
    for (const batch of batches(sqlite, table, BATCH)) {
        const texts = batch.map(row => row.map((value: SqliteValue, n) =>
            toText(value, table.columns[n])))
        // Which spelling of a JSON value Postgres keeps only Postgres knows.
        for (const n of json) {
            const { rows } = await db.query({
                name: 'json as Postgres writes it', rowMode: 'array',
                text: 'SELECT it::jsonb::text FROM unnest($1::text[])'
                    + ' WITH ORDINALITY AS given (it, n) ORDER BY n',
                values: [texts.map(row => row[n])],
            })
            rows.forEach(([it], row) => texts[row][n] = it)
        }
        yield texts.map(row => row.map((text, n) => {
            const proof = typeOf(table.columns[n]).proof
            return text !== null && proof ? proof(text) : text
        }))
    }
}

async function* postgresProofs(
    db: pg.Client, table: Table): AsyncGenerator<Proofs[]> {
    const columns = table.columns.map(column =>
        `(${(typeOf(column).proofSql ?? String)(quote(column.name))})::text`)
    await db.query(`DECLARE rows NO SCROLL CURSOR FOR`
        + ` SELECT ${columns.join(', ')} FROM ${quote(table.name)}`)
    for (;;) {
        const { rows } = await db.query<any>({
            text: `FETCH ${BATCH} FROM rows`, rowMode: 'array' })
        if (!rows.length)
            break
        yield rows as Proofs[]
    }
    await db.query('CLOSE rows')
}

async function findDifferences(
    sqlite: Database.Database, db: pg.Client, table: Table) {
    const keyOf = (row: Proofs) => table.key.map(name => `${name} = `
        + row[table.columns.findIndex(it => it.name === name)]).join(', ')
    const expected = new Map<string, string>()
    for await (const rows of sqliteProofs(sqlite, db, table))
        rows.forEach(row => expected.set(keyOf(row), digest(row)))
    const found: string[] = []
    for await (const rows of postgresProofs(db, table))
        for (const row of rows) {
            const key = keyOf(row)
            if (!expected.has(key))
                found.push(`row ${key} is in Postgres only`)
            else if (expected.get(key) !== digest(row))
                found.push(`row ${key} differs`)
            expected.delete(key)
        }
    for (const key of expected.keys())
        found.push(`row ${key} is in SQLite only`)
    return found.length <= DIFFERENCES_SHOWN ? found
        : [...found.slice(0, DIFFERENCES_SHOWN),
            `... and ${found.length - DIFFERENCES_SHOWN} more`]
}
