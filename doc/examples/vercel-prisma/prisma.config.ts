// One DATABASE_URL for everything: the app, migrations, scripts. In
// development it may stand in a file .env, which Prisma does not read itself.
import { existsSync } from 'node:fs'
import { defineConfig } from 'prisma/config'

if (existsSync('.env'))
    process.loadEnvFile('.env')

export default defineConfig({
    schema: 'prisma',
    migrations: { path: 'prisma/migrations' },
    datasource: {
        url: process.env.DATABASE_URL ?? '',
        // CI only: elsewhere `migrate dev` makes itself one.
        shadowDatabaseUrl: process.env.SHADOW_DATABASE_URL,
    },
})
