// A machine that function instances of the example app run on, as they do at
// Vercel: each is a thread with an isolate of its own, in which it has loaded
// the app, with a Prisma Client and a pool that it keeps from request to
// request. Threads share the program's code, so they need half of the memory
// that processes would.
//
//   functions.mjs BUNDLE FIRST COUNT
//
// Told what to do by lines of JSON, and answers by one each:
//
//   { do: 'start' }             starts COUNT instances
//   { do: 'burst', requests }   each serves so many, all at the same time
//   { do: 'hold', instances }   so many stay in the middle of a transaction;
//                               answers when they are
//
// FIRST is the number of the first one among all of them. To freeze a machine
// or to take it away is what signals are for.

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData }
    from 'node:worker_threads'

async function machine(bundle, first, count) {
    const instances = []

    async function ask(instance, command) {
        instance.postMessage(command)
        const [answer] = await once(instance, 'message')
        if (answer.failed)
            throw new Error(answer.failed)
        return answer
    }

    const commands = {
        // One after the other: they load the same files.
        async start() {
            for (let number = first; number < first + count; number++) {
                const instance = new Worker(fileURLToPath(import.meta.url), {
                    workerData: { bundle, number },
                    // What is created in a request is soon garbage.
                    resourceLimits: { maxYoungGenerationSizeMb: 8 },
                })
                instances.push(instance)
                await once(instance, 'message')
            }
            return {}
        },
        async burst(command) {
            const answers = await Promise.all(instances.map(instance =>
                ask(instance, command)))
            const all = name => answers.flatMap(answer => answer[name])
            return { times: all('times'), errors: all('errors'),
                stored: all('stored') }
        },
        async hold(command) {
            await Promise.all(instances.slice(0, command.instances)
                .map(instance => ask(instance, command)))
            return {}
        },
    }

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
}

async function instance(bundle, number) {
    // What the app tells Vercel through @vercel/functions.
    globalThis[Symbol.for('@vercel/request-context')] =
        { get: () => ({ waitUntil() {} }) }

    // What the app logs: the reason behind a status of 500.
    const logged = []
    for (const level of ['error', 'warn', 'log'])
        console[level] = (...words) => logged.push(words.map(it =>
            it?.stack ?? String(it)).join(' '))

    const { messages, prisma } = await import(bundle)
    const cookie = `authjs.session-token=${process.env.SESSION}`
    const conversation = Number(process.env.CONVERSATION)
    const url = 'https://app.example/api/messages?conversation='
        + conversation
    let sent = 0

    const commands = {
        async burst({ requests }) {
            const times = []
            const errors = []
            const stored = []
            for (let k = 0; k < requests; k++) {
                const began = performance.now()
                const clientId = String(number * 1_000_000 + ++sent)
                const isWrite = k % 2 === 0
                const body = isWrite ? JSON.stringify(
                    { conversation, body: `from ${clientId}`, clientId })
                    : undefined
                try {
                    const response =
                        await messages[isWrite ? 'POST' : 'GET'](new Request(
                            url, { method: isWrite ? 'POST' : 'GET', body,
                                headers: { cookie } }))
                    const answer = await response.json()
                    if (!response.ok)
                        errors.push(
                            `${response.status} ${logged.at(-1) ?? ''}`)
                    else if (isWrite && answer.clientId !== clientId)
                        errors.push(
                            `somebody else's: ${JSON.stringify(answer)}`)
                    else if (isWrite)
                        stored.push(clientId)
                } catch (error) {
                    errors.push(String(error))
                }
                times.push(performance.now() - began)
            }
            return { times, errors, stored }
        },
        async hold() {
            await new Promise((resolve, reject) =>
                prisma.$transaction(async tx => {
                    await tx.$queryRaw`SELECT 1`
                    resolve()
                    await new Promise(() => {})
                }).catch(reject))
            return {}
        },
    }

    parentPort.on('message', async command => {
        try {
            parentPort.postMessage(await commands[command.do](command))
        } catch (error) {
            parentPort.postMessage(
                { failed: String(error?.stack ?? error) })
        }
    })
    parentPort.postMessage({})
}

if (isMainThread) {
    const [bundle, first, count] = process.argv.slice(2)
    await machine(bundle, Number(first), Number(count))
} else {
    await instance(workerData.bundle, workerData.number)
}
