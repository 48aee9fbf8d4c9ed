// GET: one's own. PUT { bio, interests }: changes it.

import { prisma } from '../src/db.js'
import { bodyOf, json, signedIn } from '../src/http.js'

export const GET = signedIn(async (_, user) =>
    json(await prisma.profile.findUnique({ where: { userId: user.id } })))

export const PUT = signedIn(async (request, user) => {
    const { bio, interests = [] } = await bodyOf(request)
    return json(await prisma.profile.upsert({
        where: { userId: user.id },
        create: { userId: user.id, bio, interests },
        update: { bio, interests },
    }))
})
