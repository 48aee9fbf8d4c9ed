// The tables there are on both sides, in an order in which foreign keys hold.

import type Database from 'better-sqlite3'
import type pg from 'pg'
import { typeOf, type Column, type SqliteValue } from './values.js'

export interface Table {
    name: string
    columns: Column[]
    key: string[]           // names of the primary key's columns
    late: string[]          // columns written when all rows are there
    sequences: { column: string, sequence: string }[]
    count: number           // rows in SQLite
}

interface ForeignKey {
    from: string
    to: string
    columns: string[]
}

export const quote = (name: string) => `"${name.replaceAll('"', '""')}"`

const COLUMNS = `
    SELECT c.relname AS table, a.attname AS name,
        format_type(a.atttypid, NULL) AS type,
        NOT a.attnotnull AS "isNullable",
        CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4
            THEN a.atttypmod - 4
            WHEN t.typname = 'numeric' AND a.atttypmod > 4
            THEN (a.atttypmod - 4) & 2047 END AS "limit",
        CASE WHEN t.typtype = 'e' THEN ARRAY(SELECT enumlabel::text
            FROM pg_enum WHERE enumtypid = t.oid) END AS labels,
        pg_get_serial_sequence(quote_ident(n.nspname) || '.'
            || quote_ident(c.relname), a.attname) AS sequence,
        a.attnum = ANY (k.conkey) AS "isKey"
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
    WHERE n.nspname = current_schema() AND c.relkind = 'r'
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY c.relname, a.attnum`

const FOREIGN_KEYS = `
    SELECT c.relname AS from, f.relname AS to,
        ARRAY(SELECT attname::text FROM pg_attribute
            WHERE attrelid = c.oid AND attnum = ANY (k.conkey)) AS columns
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f'
        AND k.connamespace = current_schema()::regnamespace`

// Bookkeeping of Prisma, which each side has its own of, and of SQLite.
const isData = (name: string) =>
    name !== '_prisma_migrations' && !/^sqlite_/.test(name)

/** Also says what does not match between the two. */
export async function findTables(sqlite: Database.Database, db: pg.Client) {
    const tables = new Map<string, Table>()
    for (const row of (await db.query(COLUMNS)).rows) {
        const { table: name, sequence, isKey, ...column } = row
        if (!isData(name))
            continue
        const table: Table = tables.get(name) ?? { name, columns: [],
            key: [], late: [], sequences: [], count: 0 }
        tables.set(name, table)
        table.columns.push(column)
        if (isKey)
            table.key.push(column.name)
        if (sequence)
            table.sequences.push({ column: column.name, sequence })
    }

    const problems: string[] = []
    const names = sqlite.prepare<[], { name: string }>(
        "SELECT name FROM sqlite_schema WHERE type = 'table'").all()
    for (const { name } of names.filter(({ name }) => isData(name)))
        if (tables.has(name))
            compareColumns(sqlite, tables.get(name)!, problems)
        else
            problems.push(`${name}: there is no such table in Postgres`)
    for (const { name } of tables.values())
        if (!names.some(it => it.name === name))
            problems.push(`${name}: there is no such table in SQLite`)

    const keys = (await db.query<ForeignKey>(FOREIGN_KEYS)).rows
    return { tables: problems.length ? [] : inOrder(tables, keys), problems }
}

function compareColumns(
    sqlite: Database.Database, table: Table, problems: string[]) {
    const there = sqlite.prepare<[string], { name: string }>(
        'SELECT name FROM pragma_table_info(?)').all(table.name)
        .map(({ name }) => name)
    const here = table.columns.map(({ name }) => name)
    const complain = (name: string, where: string) => problems.push(
        `${table.name}.${name}: there is no such column in ${where}`)
    there.filter(it => !here.includes(it))
        .forEach(it => complain(it, 'Postgres'))
    here.filter(it => !there.includes(it))
        .forEach(it => complain(it, 'SQLite'))
    if (!table.key.length)
        problems.push(`${table.name}: has no primary key in Postgres`)
    if (!there.length || here.some(it => !there.includes(it)))
        return
    table.count = Number(sqlite.prepare<[], { count: bigint }>(
        `SELECT count(*) AS count FROM ${quote(table.name)}`).get()!.count)
}

/** What a table refers to comes before it. Where tables go round in a circle,
 * or a table refers to itself, columns that may be NULL are written last. */
function inOrder(tables: Map<string, Table>, all: ForeignKey[]) {
    const ordered: Table[] = []
    const left = new Map(tables)
    let keys = all.filter(({ from, to }) => left.has(from) && left.has(to))

    const writeLate = (key: ForeignKey) => {
        const table = tables.get(key.from)!
        const late = key.columns.filter(name => !table.key.includes(name)
            && table.columns.find(it => it.name === name)!.isNullable)
        table.late.push(...late.filter(it => !table.late.includes(it)))
        if (late.length)
            keys = keys.filter(it => it !== key)
        return late.length > 0
    }

    for (const key of keys.filter(({ from, to }) => from === to))
        if (!writeLate(key))    // one statement writes a batch: may still do
            keys = keys.filter(it => it !== key)
    while (left.size) {
        const free = [...left.values()].find(({ name }) =>
            !keys.some(it => it.from === name && left.has(it.to)))
        if (free) {
            left.delete(free.name)
            ordered.push(free)
        } else if (!keys.some(key => left.has(key.from)
            && left.has(key.to) && writeLate(key))) {
            throw new Error('foreign keys that may not be NULL go round in '
                + `a circle: ${[...left.keys()].join(', ')}`)
        }
    }
    return ordered
}

/** All rows of a table as SQLite has them, a batch at a time. */
export function* batches(
    sqlite: Database.Database, table: Table, size: number) {
    const columns = table.columns.map(column =>
        (typeOf(column).readSql ?? String)(quote(column.name)))
    const rows = sqlite
        .prepare(`SELECT ${columns.join(', ')} FROM ${quote(table.name)}`
            + ` ORDER BY ${table.key.map(quote).join(', ')}`)
        .raw().safeIntegers().iterate()
    let batch: SqliteValue[][] = []
    let bytes = 0
    for (const row of rows as Iterable<SqliteValue[]>) {
        batch.push(row)
        for (const value of row)
            bytes += Buffer.isBuffer(value) || typeof value === 'string'
                ? value.length : 8
        if (batch.length === size || bytes > 4 << 20) {
            yield batch
            batch = []
            bytes = 0
        }
    }
    if (batch.length)
        yield batch
}

/** "id" = '7', for people to read. */
export function nameOfRow(table: Table, row: (SqliteValue | undefined)[]) {
    return table.key.map(name => {
        const value = row[table.columns.findIndex(it => it.name === name)]
        return `${name} = ${JSON.stringify(
            typeof value === 'bigint' ? Number(value) : String(value))}`
    }).join(', ')
}
