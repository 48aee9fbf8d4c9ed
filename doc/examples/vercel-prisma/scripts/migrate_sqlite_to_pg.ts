// Copies the data of a Prisma app from SQLite to Postgres.
//
//   tsx scripts/migrate_sqlite_to_pg.ts FILE [--verify-only] [--remove-nul]
//
// DATABASE_URL says where to; the tables must be there (prisma migrate
// deploy). Everything is looked at before anything is written, and compared
// when all is written. It can be stopped at any point and run again: rows
// that are there are brought up to date. The exit status is 0 only if both
// sides are the same in the end.

import '../src/env.js'
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import Database from 'better-sqlite3'
import pg from 'pg'
import { check, copy } from './migrate/copy.js'
import { Progress } from './migrate/progress.js'
import { findTables, quote } from './migrate/tables.js'
import { options } from './migrate/values.js'
import { verify } from './migrate/verify.js'

function fail(reason: string, lines: string[] = []): never {
    console.error([reason, ...lines].join('\n  '))
    process.exit(1)
}

async function connect() {
    const url = process.env.DATABASE_URL ?? ''
    if (!/^postgres(ql)?:/.test(url))
        fail('DATABASE_URL must be the address of a Postgres')
    const db = new pg.Client({ connectionString: url })
    await db.connect()
    // What Prisma means by ?schema=, which node-postgres does not know.
    const schema = new URL(url).searchParams.get('schema')
    if (schema)
        await db.query(`SET search_path TO ${quote(schema)}`)
    return db
}

const { values, positionals: [file] } = parseArgs({
    allowPositionals: true,
    options: {
        'verify-only': { type: 'boolean' },
        'remove-nul': { type: 'boolean' },
    },
})
options.removeNul = values['remove-nul'] ?? false
if (!file || !existsSync(file))
    fail(`there is no SQLite file ${file ?? '(none given)'}`)

const sqlite = new Database(file, { readonly: true })
// One moment of it, should the app still be writing.
sqlite.exec('BEGIN')
const db = await connect()
const progress = new Progress()

const { tables, problems } = await findTables(sqlite, db)
if (problems.length)
    fail('The tables are not the same on both sides:', problems)
const unfit = check(sqlite, tables, progress)
if (unfit.length)
    fail('Postgres cannot hold some of the values; nothing was written:',
        unfit)
if (!values['verify-only'])
    await copy(sqlite, db, tables, progress)

const verdicts = await verify(sqlite, db, tables, progress)
await db.end()
for (const { table, sqlite, postgres, isSame, differences } of verdicts) {
    console.log(`${isSame ? 'same     ' : 'DIFFERENT'} ${table.padEnd(20)}`
        + ` ${String(sqlite.count).padStart(9)} rows  ${sqlite.checksum}`
        + (isSame ? ''
        : `, Postgres: ${postgres.count} rows  ${postgres.checksum}`))
    differences.forEach(it => console.log(`          ${it}`))
}
if (verdicts.some(({ isSame }) => !isSame))
    fail('The data is not the same on both sides.')
