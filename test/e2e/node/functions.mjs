// A machine that function instances of the example app run on, as they do at
// Vercel: each has the module of the app loaded for itself, with a Prisma
// Client and a pool in it that it keeps from request to request.
//
//   functions.mjs BUNDLE FIRST COUNT
//
// Told what to do by lines of JSON, and answers by one each:
//
//   { do: 'start' }             loads COUNT instances
//   { do: 'burst', requests }   each serves so many, all at the same time
//   { do: 'hold', instances }   so many stay in the middle of a transaction;
//                               answers when they are
//
// FIRST is the number of the first one among all of them. To freeze a machine
// or to take it away is what signals are for.

import { createInterface } from 'node:readline'

const [bundle, first, count] = [process.argv[2],
    ...process.argv.slice(3).map(Number)]
const cookie = `authjs.session-token=${process.env.SESSION}`
const conversation = Number(process.env.CONVERSATION)
const instances = []
let sent = 0

// What the app tells Vercel through @vercel/functions.
globalThis[Symbol.for('@vercel/request-context')] =
    { get: () => ({ waitUntil() {} }) }

// What the app logs: the reason behind a status of 500.
const logged = []
for (const level of ['error', 'warn', 'log'])
    console[level] = (...words) => logged.push(words.map(it =>
        it?.stack ?? String(it)).join(' '))

async function start() {
    for (let n = first; n < first + count; n++)
        instances.push(await import(`${bundle}?${n}`))
    return {}
}

async function burst({ requests }) {
    const times = []
    const errors = []
    const stored = []
    await Promise.all(instances.map(async (instance, n) => {
        for (let k = 0; k < requests; k++) {
            const began = performance.now()
            const clientId = String((first + n) * 1_000_000 + ++sent)
            const isWrite = k % 2 === 0
            const body = isWrite ? JSON.stringify(
                { conversation, body: `from ${clientId}`, clientId })
                : undefined
            try {
                const response = await
                instance.messages[isWrite ? 'POST' : 'GET'](new Request(
                    'https://app.example/api/messages?conversation='
                    + conversation, { method: isWrite ? 'POST' : 'GET', body,
                        headers: { cookie } }))
                const answer = await response.json()
                if (!response.ok)
                    errors.push(`${response.status} ${logged.at(-1) ?? ''}`)
                else if (isWrite && answer.clientId !== clientId)
                    errors.push(`somebody else's: ${JSON.stringify(answer)}`)
                else if (isWrite)
                    stored.push(clientId)
            } catch (error) {
                errors.push(String(error))
            }
            times.push(performance.now() - began)
        }
    }))
    return { times, errors, stored }
}

async function hold({ instances: some }) {
    await Promise.all(instances.slice(0, some).map(({ prisma }) =>
        new Promise((resolve, reject) => prisma.$transaction(async tx => {
            await tx.$queryRaw`SELECT 1`
            resolve()
            await new Promise(() => {})
        }).catch(reject))))
    return {}
}

const commands = { start, burst, hold }
for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    let answer
    try {
        answer = await commands[command.do](command)
    } catch (error) {
        answer = { failed: String(error?.stack ?? error) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
}
process.exit(0)
