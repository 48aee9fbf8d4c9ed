// GET ?email&token: the link in the mail. Signs in, the first time signs up.

import { hashed, newToken, SESSION_LASTS } from '../src/auth.js'
import { prisma } from '../src/db.js'
import { COOKIE, json, need, open, queryOf, Refusal } from '../src/http.js'

export const GET = open(async request => {
    const query = queryOf(request)
    const email = need(query.get('email'), 'email')
    const token = hashed(need(query.get('token'), 'token'))

    // A link works once: whoever deletes the row has used it.
    const { count } = await prisma.verificationToken.deleteMany({
        where: { identifier: email, token, expires: { gt: new Date() } },
    })
    if (count === 0)
        throw new Refusal(403, 'this link does not work any more')

    const emailVerified = new Date()
    const expires = new Date(Date.now() + SESSION_LASTS)
    const sessionToken = newToken()
    const user = await prisma.user.upsert({
        where: { email },
        create: { email, emailVerified, profile: { create: {
            interests: [] } } },
        update: { emailVerified },
    })
    await prisma.session.create({
        data: { sessionToken, userId: user.id, expires } })
    return json({ user: user.id }, 200, { 'set-cookie':
        `${COOKIE}=${sessionToken}; Path=/; HttpOnly; Secure; SameSite=Lax`
        + `; Expires=${expires.toUTCString()}` })
})
