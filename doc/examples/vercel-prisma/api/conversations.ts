// GET: those one takes part in. POST { title, with: [email] }: begins one.

import { prisma } from '../src/db.js'
import { bodyOf, json, need, signedIn } from '../src/http.js'

export const GET = signedIn(async (_, user) =>
    json(await prisma.conversation.findMany({
        where: { members: { some: { userId: user.id } } },
        orderBy: { id: 'desc' },
        take: 50,
    })))

export const POST = signedIn(async (request, user) => {
    const body = await bodyOf(request)
    const others = await prisma.user.findMany({
        where: { email: { in: body.with ?? [] }, id: { not: user.id } },
        select: { id: true },
    })
    const members = [user, ...others].map(({ id }) => ({ userId: id }))
    return json(await prisma.conversation.create({
        data: { title: need(body.title, 'title'),
            members: { create: members } },
        include: { members: true },
    }), 201)
})
