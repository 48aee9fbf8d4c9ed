// Prisma Client on adapter-pg beside other drivers, of whatever version. As
// a DRIVER named ..._pgbouncer it has ?pgbouncer=true in its URL and starts
// each transaction with DEALLOCATE ALL, which is what this makes of Prisma's
// native engine (../drivers/prisma6_mixed.py); the adapter leaves it alone.

import { driver, play, url } from './mixed.mjs'

const isForPgbouncer = driver.endsWith('_pgbouncer')
// Hundreds of connections share few servers: let them wait in line.
const patience = { maxWait: 120000, timeout: 120000 }

export const playPrisma = (PrismaPg, PrismaClient) => play(async me => {
    const adapter = new PrismaPg({ max: 1, application_name: me.name,
        connectionString: url + (isForPgbouncer ? '?pgbouncer=true' : ''),
        options: me.options }, { schema: `mixed_${driver}` })
    const prisma = new PrismaClient({ adapter })
    return {
        transaction: body => prisma.$transaction(async tx => {
            if (isForPgbouncer)
                await tx.$executeRawUnsafe('deallocate all')
            return body({
                ask: (_, text, values = []) => text.startsWith('set ')
                    ? tx.$executeRawUnsafe(text)
                    : tx.$queryRawUnsafe(text, ...values),
                insert: (client, round, note) =>
                    tx.mixed.create({ data: { client, round, note } }),
                read: (client, round) =>
                    tx.mixed.findMany({ where: { client, round } }),
            })
        }, patience),
        end: () => prisma.$disconnect(),
    }
})
