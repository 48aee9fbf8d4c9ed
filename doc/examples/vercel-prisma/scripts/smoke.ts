// Does what is deployed work? Signs in, sends, reads, notes an upload, and
// takes it all away again.
//
//   tsx scripts/smoke.ts [https://app.example]
//
// Without an address it calls the handlers itself. DATABASE_URL and
// AUTH_SECRET are the app's: the link that signs in would come by mail, so it
// is made here as the app makes it.

import '../src/env.js'
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { hashed, LINK_LASTS, newToken } from '../src/auth.js'
import { prisma } from '../src/db.js'
import { serve } from '../src/serve.js'

const [base] = process.argv.slice(2)
const email = `smoke-${newToken().slice(0, 12)}@example.invalid`
let cookie = ''

async function call(method: string, path: string, body?: object) {
    const request = new Request(new URL(path, base ?? 'http://localhost'), {
        method,
        headers: { cookie, 'content-type': 'application/json' },
        body: body && JSON.stringify(body),
    })
    const response = await (base ? fetch(request) : serve(request))
    cookie = response.headers.get('set-cookie')?.split(';')[0] ?? cookie
    const answer: any = await response.json()
    assert(response.ok, `${method} ${path}: ${response.status} `
        + JSON.stringify(answer))
    return answer
}

async function signIn() {
    await assert.rejects(call('GET', '/api/conversations'), /401/)
    await call('POST', '/api/login', { email })
    const token = newToken()
    await prisma.verificationToken.create({ data: { identifier: email,
        token: hashed(token), expires: new Date(Date.now() + LINK_LASTS) } })
    const link = `/api/callback?${new URLSearchParams({ email, token })}`
    await call('GET', link)
    await assert.rejects(call('GET', link), /403/)
}

async function sendAndRead() {
    const interests = ['smoke', { nested: [1, null] }]
    await call('PUT', '/api/profile', { bio: null, interests })
    assert.deepEqual((await call('GET', '/api/profile')).interests, interests)

    const { id: conversation } = await call('POST', '/api/conversations',
        { title: 'smoke' })
    const message = { conversation, body: 'Grüße 👋',
        clientId: String(2n ** 62n + BigInt(Date.now())) }
    const { id } = await call('POST', '/api/messages', message)
    assert.equal((await call('POST', '/api/messages', message)).id, id)

    const upload = await call('POST', '/api/uploads', { message: id,
        name: 'a.png', size: String(2n ** 53n + 1n),
        sha256: createHash('sha256').update('a').digest('hex') })
    await call('PATCH', '/api/uploads', { id: upload.id, state: 'STORED' })

    const [read, ...others] = await call('GET',
        `/api/messages?conversation=${conversation}`)
    assert.deepEqual(others, [])
    assert.equal(read.body, message.body)
    assert.equal(read.clientId, message.clientId)
    assert.equal(read.uploads[0].size, String(2n ** 53n + 1n))
    assert.equal(read.uploads[0].state, 'STORED')
}

async function cleanUp() {
    await prisma.conversation.deleteMany({
        where: { members: { some: { user: { email } } } } })
    await prisma.verificationToken.deleteMany({
        where: { identifier: email } })
    await prisma.user.deleteMany({ where: { email } })
}

try {
    await signIn()
    console.log('ok  sign in')
    await sendAndRead()
    console.log('ok  send, read, upload record')
} finally {
    await cleanUp()
    await prisma.$disconnect()
}
process.exit(0)
