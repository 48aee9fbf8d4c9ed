// POST { email }: mails a link that signs in.

import { hashed, LINK_LASTS, newToken } from '../src/auth.js'
import { prisma } from '../src/db.js'
import { bodyOf, json, need, open } from '../src/http.js'

export const POST = open(async request => {
    const email = need((await bodyOf(request)).email, 'email')
    const token = newToken()
    await prisma.verificationToken.create({ data: {
        identifier: email,
        token: hashed(token),
        expires: new Date(Date.now() + LINK_LASTS),
    } })
    mail(email, `/api/callback?${new URLSearchParams({ email, token })}`)
    return json({}, 202)
})

// Here your provider of mail comes in. To log a link is for development only:
// who reads it is signed in.
function mail(to: string, link: string) {
    if (process.env.NODE_ENV !== 'production')
        console.log(`mail to ${to}: ${link}`)
}
