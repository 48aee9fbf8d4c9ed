// GET ?conversation[&before]: the newest fifty, older ones page by page.
// POST { conversation, body[, clientId][, replyTo] }: sends one; sent again
// with the same clientId, it is there once.

import type { Prisma } from '../src/generated/client.js'
import { prisma } from '../src/db.js'
import {
    bodyOf, json, need, queryOf, Refusal, signedIn,
} from '../src/http.js'

async function mustBeMember(
    db: Prisma.TransactionClient, conversationId: number, userId: string) {
    const member = await db.member.findUnique({ where: {
        conversationId_userId: { conversationId, userId } } })
    if (!member)
        throw new Refusal(404, 'there is no such conversation')
}

export const GET = signedIn(async (request, user) => {
    const query = queryOf(request)
    const conversationId = Number(need(query.get('conversation'),
        'conversation'))
    const before = query.get('before')
    await mustBeMember(prisma, conversationId, user.id)
    return json(await prisma.message.findMany({
        where: { conversationId, ...before && { id: { lt: +before } } },
        orderBy: { id: 'desc' },
        take: 50,
        include: { uploads: true },
    }))
})

export const POST = signedIn(async (request, user) => {
    const body = await bodyOf(request)
    const conversationId = Number(need(body.conversation, 'conversation'))
    const clientId = body.clientId ? BigInt(body.clientId) : null
    const data = {
        conversationId,
        senderId: user.id,
        body: need<string>(body.body, 'body'),
        replyToId: body.replyTo ?? null,
        clientId,
    }
    const message = await prisma.$transaction(async tx => {
        await mustBeMember(tx, conversationId, user.id)
        if (clientId === null)
            return tx.message.create({ data })
        return tx.message.upsert({
            where: { clientId, senderId: user.id, conversationId },
            create: data,
            update: {},
        })
    })
    return json(message, 201)
})
