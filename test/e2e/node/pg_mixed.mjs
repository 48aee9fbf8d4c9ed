// node-postgres beside other drivers: named statements, under the same names
// on every connection; unnamed ones for a SET, which has no parameters and so
// is a simple query.

import pg from 'pg'
import { play, url } from './mixed.mjs'

play(async me => {
    const client = new pg.Client({ connectionString: url,
        application_name: me.name, options: me.options })
    await client.connect()
    const ask = async (name, text, values) =>
        (await client.query(values ? { name, text, values } : text)).rows
    return {
        async transaction(body) {
            await client.query('begin')
            try {
                const result = await body({ ask })
                await client.query('commit')
                return result
            } catch (error) {
                await client.query('rollback')
                throw error
            }
        },
        end: () => client.end(),
    }
})
