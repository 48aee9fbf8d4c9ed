// The Postgres protocol, small and bare: one request at a time, values as
// text. It exists because here it matters which messages are sent and where
// the Syncs between them are, which node-postgres does not let one choose.

import crypto from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'

const SSL_REQUEST = 80877103
const PROTOCOL_3_0 = 196608

// What Postgres says in an ErrorResponse.
export class PostgresError extends Error {
    constructor(fields) {
        super(fields.M)
        this.severity = fields.V
        this.code = fields.C
        this.detail = fields.D
        this.hint = fields.H
        this.column = fields.c
    }
}

// Building messages

const int16 = value => { const b = Buffer.alloc(2); b.writeInt16BE(value)
    return b }
const int32 = value => { const b = Buffer.alloc(4); b.writeInt32BE(value)
    return b }
const text = value => Buffer.from(`${value}\0`)
const counted = bytes => [int32(bytes.length), bytes]
const value = it => it === null ? [int32(-1)] : counted(Buffer.from(it))

function message(kind, ...parts) {
    const body = Buffer.concat(parts)
    return Buffer.concat([Buffer.from(kind), int32(body.length + 4), body])
}

const query = sql => message('Q', text(sql))
const parse = (name, sql) => message('P', text(name), text(sql), int16(0))
const describe = name => message('D', Buffer.from('S'), text(name))
const bind = (name, values) => message('B', text(''), text(name), int16(0),
    int16(values.length), ...values.flatMap(value), int16(0))
const execute = () => message('E', text(''), int32(0))
const close = name => message('C', Buffer.from('S'), text(name))
const sync = () => message('S')
const terminate = () => message('X')

// Taking messages apart

// An error's or a notice's fields: { C: sqlstate, M: message, ... }
function fieldsOf(body) {
    return Object.fromEntries(body.toString().split('\0')
        .filter(part => part).map(part => [part[0], part.slice(1)]))
}

function columnsOf(body) {
    const columns = []
    for (let at = 2, n = body.readInt16BE(0); n > 0; n--) {
        const end = body.indexOf(0, at)
        columns.push({ name: body.toString('utf8', at, end),
            type: body.readUInt32BE(end + 7) })
        at = end + 19
    }
    return columns
}

function valuesOf(body) {
    const values = []
    for (let at = 2, n = body.readInt16BE(0); n > 0; n--) {
        const length = body.readInt32BE(at)
        at += 4
        values.push(length < 0 ? null
            : body.toString('utf8', at, at += length))
    }
    return values
}

// Login

const hmac = (key, data) =>
    crypto.createHmac('sha256', key).update(data).digest()

// A client's side of SCRAM-SHA-256 (RFC 5802), without channel binding.
class Scram {
    constructor(password) {
        this.password = password
        this.bare = `n=,r=${crypto.randomBytes(18).toString('base64')}`
    }

    first() {
        return message('p', text('SCRAM-SHA-256'),
            ...counted(Buffer.from(`n,,${this.bare}`)))
    }

    final(serverFirst) {
        const { r, s, i } = Object.fromEntries(serverFirst.split(',')
            .map(part => [part[0], part.slice(2)]))
        const salted = crypto.pbkdf2Sync(this.password,
            Buffer.from(s, 'base64'), Number(i), 32, 'sha256')
        const key = hmac(salted, 'Client Key')
        const stored = crypto.createHash('sha256').update(key).digest()
        const final = `c=biws,r=${r}`
        const signature = hmac(stored, `${this.bare},${serverFirst},${final}`)
        const proof = Buffer.from(key.map((byte, at) => byte ^ signature[at]))
        return message('p',
            Buffer.from(`${final},p=${proof.toString('base64')}`))
    }
}

// TLS if the server has it, whatever its certificate: sslmode=prefer.
async function preferTls(socket, host) {
    socket.write(Buffer.concat([int32(8), int32(SSL_REQUEST)]))
    const [answer] = await once(socket, 'data')
    if (answer.toString() !== 'S')
        return socket
    const secured = tls.connect({ socket, rejectUnauthorized: false,
        servername: net.isIP(host) ? undefined : host })
    await once(secured, 'secureConnect')
    return secured
}

export class Wire {
    // Settings are [name, value] pairs, in the order they are sent.
    static async connect(url, settings) {
        const { hostname, port, password } = new URL(url)
        const plain = net.connect(Number(port || 5432), hostname)
        await once(plain, 'connect')
        plain.setNoDelay(true)
        const wire = new Wire(await preferTls(plain, hostname))
        await wire.#login(decodeURIComponent(password), settings)
        return wire
    }

    #socket
    #messages
    #last = Promise.resolve()

    constructor(socket) {
        this.#socket = socket
        this.#messages = this.#read()
    }

    async *#read() {
        let got = Buffer.alloc(0)
        for await (const data of this.#socket) {
            got = Buffer.concat([got, data])
            while (got.length >= 5 && got.length > got.readInt32BE(1)) {
                const end = 1 + got.readInt32BE(1)
                yield { kind: String.fromCharCode(got[0]),
                    body: got.subarray(5, end) }
                got = got.subarray(end)
            }
        }
    }

    async #next() {
        const { value, done } = await this.#messages.next()
        if (done)
            throw new Error('the server closed the connection')
        return value
    }

    async #login(password, settings) {
        const body = Buffer.concat([int32(PROTOCOL_3_0),
            ...settings.flat().map(text), Buffer.from([0])])
        this.#socket.write(Buffer.concat([int32(body.length + 4), body]))
        const scram = new Scram(password)
        for (;;) {
            const { kind, body } = await this.#next()
            if (kind === 'E')
                throw new PostgresError(fieldsOf(body))
            if (kind === 'Z')
                return
            const method = kind === 'R' ? body.readInt32BE(0) : 0
            if (method === 3)
                this.#socket.write(message('p', text(password)))
            else if (method === 10)
                this.#socket.write(scram.first())
            else if (method === 11)
                this.#socket.write(scram.final(body.toString('utf8', 4)))
            else if (method !== 0 && method !== 12)
                throw new Error(`authentication method ${method}`)
        }
    }

    // Sends the messages, and gives what answers them up to ReadyForQuery.
    #ask(...messages) {
        const answer = this.#last.catch(() => {}).then(async () => {
            this.#socket.write(Buffer.concat(messages))
            return this.#answer()
        })
        this.#last = answer
        return answer
    }

    async #answer() {
        let columns = [], error = null
        const rows = []
        for (;;) {
            const { kind, body } = await this.#next()
            if (kind === 'T')
                columns = columnsOf(body)
            else if (kind === 'D')
                rows.push(valuesOf(body))
            else if (kind === 'E')
                error = new PostgresError(fieldsOf(body))
            // Nothing comes after what is worse than an ERROR.
            if (error && (kind === 'Z' || error.severity !== 'ERROR'))
                throw error
            if (kind === 'Z')
                return { columns, rows }
        }
    }

    // One Query message, with as many statements as there are. (For those
    // that have no rows, or it is all the same what they are.)
    query(sql) {
        return this.#ask(query(sql))
    }

    // As tokio-postgres does it: each step is a round trip of its own.
    async prepared(name, sql, values) {
        const { columns } = await this.#ask(parse(name, sql), describe(name),
            sync())
        try {
            const { rows } =
                await this.#ask(bind(name, values), execute(), sync())
            return { columns, rows }
        } finally {
            // If even this fails, what failed before tells why.
            await this.#ask(close(name), sync()).catch(() => {})
        }
    }

    end() {
        this.#socket.end(terminate())
    }
}
