// The app on http://localhost:3000 (or PORT), for development.

import '../src/env.js'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { serve } from '../src/serve.js'

const server = createServer(async (incoming, outgoing) => {
    const body: Buffer[] = []
    for await (const part of incoming)
        body.push(part)
    const { method = 'GET', url, headers } = incoming
    const response = await serve(new Request(`http://${headers.host}${url}`, {
        method,
        headers: headers as Record<string, string>,
        body: body.length ? Buffer.concat(body) : undefined,
    }))
    outgoing.writeHead(response.status, [...response.headers].flat())
    outgoing.end(Buffer.from(await response.arrayBuffer()))
})
server.listen(Number(process.env.PORT ?? 3000), 'localhost')
await once(server, 'listening')
const { port } = server.address() as { port: number }
console.log(`http://localhost:${port}/api/conversations`)
