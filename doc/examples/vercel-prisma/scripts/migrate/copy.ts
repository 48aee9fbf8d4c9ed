// Rows into Postgres: each batch is one INSERT ... ON CONFLICT, which is its
// own transaction. So a copy may be stopped at any point and begun again.

import type Database from 'better-sqlite3'
import type pg from 'pg'
import type { Progress } from './progress.js'
import { batches, nameOfRow, quote, type Table } from './tables.js'
import { toText, Unfit, type Column, type SqliteValue } from './values.js'

const BATCH = 1000
const PROBLEMS_SHOWN = 50

/** Converts everything and writes nothing; returns what does not fit. */
export function check(
    sqlite: Database.Database, tables: Table[], progress: Progress) {
    const problems: string[] = []
    let count = 0
    for (const table of tables) {
        progress.begin(`check ${table.name}`, table.count)
        for (const batch of batches(sqlite, table, BATCH)) {
            for (const row of batch)
                for (const [n, column] of table.columns.entries()) {
                    const problem = problemOf(row[n], column)
                    if (problem && ++count <= PROBLEMS_SHOWN)
                        problems.push(`${table.name}, row ${nameOfRow(table,
                            row)}, column ${column.name}: ${problem}`)
                }
            progress.advance(batch.length)
        }
        progress.end()
    }
    if (count > PROBLEMS_SHOWN)
        problems.push(`... and ${count - PROBLEMS_SHOWN} more`)
    return problems
}

function problemOf(value: SqliteValue, column: Column) {
    try {
        toText(value, column)
        return null
    } catch (error) {
        if (error instanceof Unfit)
            return error.message
        throw error
    }
}

export async function copy(sqlite: Database.Database, db: pg.Client,
    tables: Table[], progress: Progress) {
    for (const table of tables)
        await write(sqlite, db, table, `copy ${table.name}`,
            table.columns.filter(({ name }) => !table.late.includes(name)),
            upsertSql, progress)
    for (const table of tables.filter(({ late }) => late.length))
        await write(sqlite, db, table,
            `copy ${table.name} (${table.late.join(', ')})`,
            table.columns.filter(({ name }) =>
                table.key.includes(name) || table.late.includes(name)),
            updateSql, progress)
    for (const table of tables)
        for (const { column, sequence } of table.sequences)
            await setSequence(sqlite, db, table, column, sequence)
}

// Columns come as arrays of text, which Postgres then casts: one statement
// for any number of rows.
const source = (columns: Column[]) =>
    `(SELECT ${columns.map(({ type }, n) =>
        `c${n}::${type} AS c${n}`).join(', ')}`
    + ` FROM unnest(${columns.map((_, n) => `$${n + 1}::text[]`).join(', ')})`
    + ` AS given(${columns.map((_, n) => `c${n}`).join(', ')})) AS source`

function upsertSql(table: Table, columns: Column[]) {
    const names = columns.map(({ name }) => quote(name))
    const rest = columns.filter(({ name }) => !table.key.includes(name))
        .map(({ name }) => quote(name))
    // Rows that are as they should be are not written again.
    const update = rest.length === 0 ? 'NOTHING'
        : `UPDATE SET ${rest.map(it => `${it} = EXCLUDED.${it}`).join(', ')}`
        + ` WHERE (${rest.map(it => `t.${it}`).join(', ')})`
        + ' IS DISTINCT FROM'
        + ` (${rest.map(it => `EXCLUDED.${it}`).join(', ')})`
    return `INSERT INTO ${quote(table.name)} AS t (${names.join(', ')})`
        + ` OVERRIDING SYSTEM VALUE SELECT * FROM ${source(columns)}`
        + ` ON CONFLICT (${table.key.map(quote).join(', ')}) DO ${update}`
}

function updateSql(table: Table, columns: Column[]) {
    const at = (name: string) => columns.findIndex(it => it.name === name)
    const equal = (name: string) => `t.${quote(name)} = c${at(name)}`
    const differ = (name: string) =>
        `t.${quote(name)} IS DISTINCT FROM c${at(name)}`
    return `UPDATE ${quote(table.name)} AS t`
        + ` SET ${table.late.map(it =>
            `${quote(it)} = c${at(it)}`).join(', ')}`
        + ` FROM ${source(columns)} WHERE ${table.key.map(equal)
            .join(' AND ')} AND (${table.late.map(differ).join(' OR ')})`
}

async function write(sqlite: Database.Database, db: pg.Client, table: Table,
    what: string, columns: Column[], sql: typeof upsertSql,
    progress: Progress) {
    const statement = { name: what.slice(0, 60), text: sql(table, columns) }
    const at = columns.map(column => table.columns.indexOf(column))
    progress.begin(what, table.count)
    for (const batch of batches(sqlite, table, BATCH)) {
        const columnsOf = (rows: SqliteValue[][]) => columns.map((column, n) =>
            rows.map(row => toText(row[at[n]], column)))
        try {
            await db.query({ ...statement, values: columnsOf(batch) })
        } catch (error) {
            throw await blame(error, batch, row =>
                db.query({ ...statement, values: columnsOf([row]) }), table)
        }
        progress.advance(batch.length)
    }
    progress.end()
}

/** Which row of the batch was it? Only what the values cause is asked for. */
async function blame(error: any, batch: SqliteValue[][],
    writeOne: (row: SqliteValue[]) => Promise<unknown>, table: Table) {
    if (!/^2[23]/.test(error.code ?? ''))
        return error
    for (const row of batch)
        try {
            await writeOne(row)
        } catch (found: any) {
            return new Error(`${table.name}, row ${nameOfRow(table, row)}: `
                + `${found.message}${found.detail ? `: ${found.detail}` : ''}`)
        }
    return error
}

/** Ids go on where SQLite would have gone on, which never uses one twice
 * (AUTOINCREMENT); and not behind what Postgres has given out itself. */
async function setSequence(sqlite: Database.Database, db: pg.Client,
    table: Table, column: string, sequence: string) {
    const hasSequences = sqlite.prepare(
        "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").get()
    const last = !hasSequences ? undefined
        : sqlite.prepare<[string], { seq: number }>(
            'SELECT seq FROM sqlite_sequence WHERE name = ?').get(table.name)
    await db.query(
        `SELECT setval($1, it) FROM (SELECT greatest($2::bigint,
            (SELECT max(${quote(column)}) FROM ${quote(table.name)}),
            (SELECT last_value FROM ${sequence} WHERE is_called)) AS it) AS s
        WHERE it >= 1`,
        [sequence, last ? String(last.seq) : null])
}
