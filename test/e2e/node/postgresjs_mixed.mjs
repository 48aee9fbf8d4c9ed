// postgres.js beside other drivers: everything is prepared under a random
// name, COMMIT included, and settings go into the startup packet.

import postgres from 'postgres'
import { play, url } from './mixed.mjs'

// sql`...` of a text with $1, $2, ... in it.
function tagged(sql, text, values = []) {
    const strings = text.split(/\$\d/)
    return sql(Object.assign(strings, { raw: strings }), ...values)
}

play(async me => {
    const sql = postgres(url, { max: 1, connection: {
        application_name: me.name, search_path: me.path, TimeZone: me.zone } })
    return {
        transaction: body => sql.begin(tx =>
            body({ ask: (_, text, values) => tagged(tx, text, values) })),
        end: () => sql.end(),
    }
})
