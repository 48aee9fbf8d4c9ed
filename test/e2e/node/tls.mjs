// Logs in with each URL of the command line, as an app does, and says how that
// went: "ok" and the certificate's serial number, or the error's code. A
// connection to the last one is kept: for each line on the standard input that
// URL is tried again, and the kept connection is asked something.

import readline from 'node:readline'
import pg from 'pg'

const connect = async url => {
    const client = new pg.Client(url)
    await client.connect()
    return client
}

const tried = async url => {
    try {
        const client = await connect(url)
        const { serialNumber } = client.connection.stream.getPeerCertificate()
        await client.query('select 1')
        await client.end()
        return `ok ${serialNumber}`
    } catch (error) {
        return error.code
    }
}

const urls = process.argv.slice(2)
for (const url of urls)
    console.log(await tried(url))
const kept = await connect(urls.at(-1)).catch(() => null)
for await (const _ of readline.createInterface({ input: process.stdin })) {
    const { rows: [row] } = await kept.query('select 42 as answer')
    console.log(`${await tried(urls.at(-1))} ${row.answer}`)
}
await kept?.end()
