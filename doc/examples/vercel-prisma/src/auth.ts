// Signing in by a link in a mail, with the rows that Auth.js would write.

import { createHash, randomBytes } from 'node:crypto'

const MINUTES = 60_000
export const LINK_LASTS = 15 * MINUTES
export const SESSION_LASTS = 30 * 24 * 60 * MINUTES

export const newToken = () => randomBytes(32).toString('hex')

/** What is kept of the token in a link: who reads the table cannot use it. */
export function hashed(token: string) {
    const secret = process.env.AUTH_SECRET
    if (!secret)
        throw new Error('AUTH_SECRET is not set')
    return createHash('sha256').update(token + secret).digest('hex')
}
