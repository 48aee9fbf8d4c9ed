// POST { name, size, sha256[, message] }: notes a file that is about to be
// uploaded. PATCH { id, state }: says how that went.

import { prisma } from '../src/db.js'
import { UploadState } from '../src/generated/client.js'
import { bodyOf, json, need, Refusal, signedIn } from '../src/http.js'

export const POST = signedIn(async (request, user) => {
    const body = await bodyOf(request)
    const messageId = body.message ?? null
    if (messageId !== null && !await prisma.message.findFirst({
        where: { id: messageId, senderId: user.id } }))
        throw new Refusal(404, 'there is no such message of yours')
    return json(await prisma.upload.create({ data: {
        userId: user.id,
        messageId,
        name: need(body.name, 'name'),
        size: BigInt(need(body.size, 'size')),
        sha256: Buffer.from(need(body.sha256, 'sha256'), 'hex'),
    } }), 201)
})

export const PATCH = signedIn(async (request, user) => {
    const body = await bodyOf(request)
    const state = need(body.state, 'state') as UploadState
    if (!(state in UploadState))
        throw new Refusal(400, 'there is no such state')
    const { count } = await prisma.upload.updateMany({
        where: { id: need(body.id, 'id'), userId: user.id },
        data: { state },
    })
    if (count === 0)
        throw new Refusal(404, 'there is no such upload of yours')
    return json({})
})
