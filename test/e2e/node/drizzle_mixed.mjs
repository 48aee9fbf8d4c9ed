// Drizzle beside other drivers. On node-postgres (DRIVER drizzle_pg) its
// prepared statements are named ones, the same names on every connection; on
// postgres.js (DRIVER drizzle_postgresjs) nothing is named.

import { and, eq, sql } from 'drizzle-orm'
import { drizzle as drizzlePg } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js'
import { integer, pgTable, serial, text } from 'drizzle-orm/pg-core'
import pg from 'pg'
import postgres from 'postgres'
import { driver, play, url } from './mixed.mjs'

const ledger = pgTable('ledger', { id: serial().primaryKey(),
    client: integer(), round: integer(), note: text() })

const connectPg = me => {
    const pool = new pg.Pool({ connectionString: url, max: 1,
        application_name: me.name, options: me.options })
    return { db: drizzlePg(pool), rowsOf: it => it.rows,
        end: () => pool.end() }
}

const connectPostgresJs = me => {
    const client = postgres(url, { max: 1, connection: {
        application_name: me.name, search_path: me.path, TimeZone: me.zone } })
    return { db: drizzlePostgresJs(client), rowsOf: it => it,
        end: () => client.end() }
}

const connect = driver === 'drizzle_pg' ? connectPg : connectPostgresJs

// The text with its values where $1, $2, ... are, as sql`...` would have it.
function query(text, values = []) {
    const parts = text.split(/\$\d/).flatMap((part, at) =>
        at ? [sql`${values[at - 1]}`, sql.raw(part)] : [sql.raw(part)])
    return sql.join(parts)
}

const of = (client, round) =>
    and(eq(ledger.client, client), eq(ledger.round, round))

play(async me => {
    const { db, rowsOf, end } = connect(me)
    return {
        transaction: body => db.transaction(tx => body({
            ask: async (_, text, values) =>
                rowsOf(await tx.execute(query(text, values))),
            insert: (client, round, note) => tx.insert(ledger)
                .values({ client: sql.placeholder('client'),
                    round: sql.placeholder('round'),
                    note: sql.placeholder('note') })
                .prepare('insert').execute({ client, round, note }),
            read: (client, round) => tx.select({ note: ledger.note })
                .from(ledger)
                .where(of(sql.placeholder('client'),
                    sql.placeholder('round')))
                .prepare('read').execute({ client, round }),
        })),
        end,
    }
})
