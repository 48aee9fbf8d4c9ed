// What the route handlers share: who is asking, errors, JSON.

import { prisma } from './db.js'
import type { User } from './generated/client.js'

export const COOKIE = 'authjs.session-token'

/** Ends a request with a status and a reason for the caller. */
export class Refusal extends Error {
    constructor(readonly status: number, reason: string) {
        super(reason)
    }
}

/** BigInt as text and bytes as hex, which JSON has not. */
export function json(value: unknown, status = 200, headers = {}) {
    const text = JSON.stringify(value, (_, it) =>
        typeof it === 'bigint' ? String(it)
        : it instanceof Uint8Array ? Buffer.from(it).toString('hex')
        : it)
    return new Response(text, { status,
        headers: { 'content-type': 'application/json', ...headers } })
}

async function userOf(request: Request): Promise<User> {
    const cookies = request.headers.get('cookie') ?? ''
    const found = cookies.split('; ').find(it => it.startsWith(`${COOKIE}=`))
    const session = found && await prisma.session.findUnique({
        where: { sessionToken: found.slice(COOKIE.length + 1) },
        include: { user: true },
    })
    if (!session || session.expires < new Date())
        throw new Refusal(401, 'please sign in')
    return session.user
}

type Handler = (request: Request) => Promise<Response>

/** A handler that anybody may call. */
export function open(handle: Handler): Handler {
    return async request => {
        try {
            return await handle(request)
        } catch (error) {
            if (error instanceof Refusal)
                return json({ error: error.message }, error.status)
            console.error(error)
            return json({ error: 'something went wrong' }, 500)
        }
    }
}

/** A handler for users who are signed in. */
export function signedIn(
    handle: (request: Request, user: User) => Promise<Response>): Handler {
    return open(async request => handle(request, await userOf(request)))
}

export async function bodyOf(request: Request): Promise<any> {
    try {
        return await request.json()
    } catch {
        throw new Refusal(400, 'the body is not JSON')
    }
}

export function need<T>(value: T | null | undefined, what: string): T {
    if (value === null || value === undefined || value === '')
        throw new Refusal(400, `${what} is missing`)
    return value
}

export function queryOf(request: Request) {
    return new URL(request.url).searchParams
}
