// The Prisma Client of this function instance: made once, as its module is
// loaded, and kept from request to request.

import { attachDatabasePool } from '@vercel/functions'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { PrismaClient } from './generated/client.js'

const url = process.env.DATABASE_URL ?? ''

// How long a request waits for a connection, and a transaction for its end:
// in a burst it may have to stand in line for a server.
const PATIENCE_MS = Number(process.env.DATABASE_PATIENCE_MS ?? 20_000)

// One or two connections are enough, as an instance serves few requests at a
// time. They end up in pgsluice, where one that is idle costs nothing.
function postgres() {
    const pool = new pg.Pool({
        connectionString: url,
        max: 2,
        idleTimeoutMillis: 5_000,
        connectionTimeoutMillis: PATIENCE_MS,
    })
    // A connection that broke while the instance was frozen is reported when
    // it thaws; the pool opens another. Without a listener it would be fatal.
    pool.on('error', error => console.warn(`idle connection: ${error}`))
    // Keeps the instance awake until idle connections have been closed.
    attachDatabasePool(pool)
    return new PrismaPg(pool)
}

async function sqlite() {
    const { PrismaBetterSqlite3 } =
        await import('@prisma/adapter-better-sqlite3')
    return new PrismaBetterSqlite3({ url })
}

export const prisma = new PrismaClient({
    adapter: url.startsWith('file:') ? await sqlite() : postgres(),
    transactionOptions: { maxWait: PATIENCE_MS, timeout: PATIENCE_MS },
})
