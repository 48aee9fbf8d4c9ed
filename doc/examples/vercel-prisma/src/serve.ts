// A request to the handler of its path, as Vercel does it: /api/messages is
// the function of its method in api/messages.ts.

import { json } from './http.js'

type Handlers = Record<string, (request: Request) => Promise<Response>>

export async function serve(request: Request): Promise<Response> {
    const path = /^\/api\/(\w+)$/.exec(new URL(request.url).pathname)
    let handlers: Handlers
    try {
        handlers = await import(`../api/${path?.[1]}.js`)
    } catch (error: any) {
        if (path && error.code !== 'ERR_MODULE_NOT_FOUND')
            throw error
        return json({ error: 'there is no such path' }, 404)
    }
    return await handlers[request.method]?.(request)
        ?? json({ error: 'there is no such method' }, 405)
}
