// A driver adapter for Prisma's schema engine which sends what its native
// build sends. That has tokio-postgres below it, and so:
//
//   - asks for TLS first; client_encoding leads the startup packet
//   - ?schema= of the URL is a SET search_path at once, then version() as s0
//   - a query is prepared under the next name of s0, s1, ..., executed and
//     closed, with a Sync after each of the three
//   - a command or a migration's script is one Query message, whatever is
//     in it
//   - a shadow database is created on the main connection, which drops it
//     again by force
//
// Not the same: values are text, where the native engine has most as binary.

import crypto from 'node:crypto'
import {
    ColumnTypeEnum as Type, DriverAdapterError,
} from '@prisma/driver-adapter-utils'
import { parse as parseArray } from 'postgres-array'
import { PostgresError, Wire } from './wire.mjs'

// By the type's oid: what the engine calls it, and how a value is read.
const types = new Map([
    [[16], Type.Boolean, it => it === 't'],
    [[18], Type.Character, String],
    [[19, 25, 1042, 1043], Type.Text, String],
    [[20, 26], Type.Int64, String],
    [[21, 23], Type.Int32, Number],
    [[1002], Type.CharacterArray, it => parseArray(it)],
    [[1003, 1009], Type.TextArray, it => parseArray(it)],
    [[1005, 1007], Type.Int32Array, it => parseArray(it, Number)],
    [[1016, 1028], Type.Int64Array, it => parseArray(it)],
    [[1184], Type.DateTime, it => new Date(it).toISOString()],
].flatMap(([oids, type, read]) => oids.map(oid => [oid, { type, read }])))

function typeOf({ name, type }) {
    const known = types.get(type)
    if (!known)
        throw new Error(`column ${name} is of type ${type}`)
    return known
}

const quoted = it => `"${String(it).replace(/["\\]/g, '\\$&')}"`
const asText = it => it === null ? null
    : Array.isArray(it) ? `{${it.map(quoted).join(',')}}` : String(it)

// The engine wants errors in its adapters' words.
async function explained(work) {
    try {
        return await work
    } catch (error) {
        if (!(error instanceof PostgresError))
            throw error
        throw new DriverAdapterError({ kind: 'postgres',
            originalCode: error.code, originalMessage: error.message,
            code: error.code, severity: error.severity,
            message: error.message, detail: error.detail,
            column: error.column, hint: error.hint })
    }
}

export class Connection {
    static async open(url) {
        const { username, pathname, searchParams } = new URL(url)
        const schema = searchParams.get('schema')
        const settings = [['client_encoding', 'UTF8'],
            ['user', decodeURIComponent(username)],
            ['database', decodeURIComponent(pathname.slice(1))],
            ...['options', 'application_name']
                .filter(name => searchParams.has(name))
                .map(name => [name, searchParams.get(name)])]
        const connection = new Connection(await Wire.connect(url, settings))
        if (schema)
            await connection.command(`SET search_path = "${schema}";\n`)
        await connection.query('SELECT version()', [])
        return connection
    }

    // Counted over all connections of the process.
    static #statements = 0

    #wire

    constructor(wire) {
        this.#wire = wire
    }

    command(sql) {
        return this.#wire.query(sql)
    }

    query(sql, values) {
        return this.#wire.prepared(`s${Connection.#statements++}`, sql,
            values.map(asText))
    }

    end() {
        this.#wire.end()
    }
}

// What the engine is given for a connection.
class Adapter {
    provider = 'postgres'
    adapterName = 'native'

    constructor(connection, dispose) {
        this.connection = connection
        this.dispose = dispose
    }

    async queryRaw({ sql, args }) {
        const { columns, rows } =
            await explained(this.connection.query(sql, args))
        const kinds = columns.map(typeOf)
        return { columnNames: columns.map(({ name }) => name),
            columnTypes: kinds.map(({ type }) => type),
            rows: rows.map(row => row.map((it, at) =>
                it === null ? null : kinds[at].read(it))) }
    }

    // Only ever a command without parameters: what changes rows is a query
    // to the engine.
    async executeRaw({ sql }) {
        await explained(this.connection.command(sql))
        return 0
    }

    async executeScript(sql) {
        await explained(this.connection.command(sql))
    }

    async startTransaction() {
        throw new Error('the schema engine has no transactions of its own')
    }

    getConnectionInfo() {
        return { supportsRelationJoins: true }
    }
}

export class Native {
    provider = 'postgres'
    adapterName = 'native'
    #url
    #shadowUrl
    #main

    constructor(url, shadowUrl) {
        this.#url = url
        this.#shadowUrl = shadowUrl
    }

    #open() {
        this.#main ??= Connection.open(this.#url)
        return this.#main
    }

    async connect() {
        return new Adapter(await this.#open(), async () => {})
    }

    async connectToShadowDb() {
        return this.#shadowUrl ? this.#emptied() : this.#created()
    }

    // A database that the user keeps for this.
    async #emptied() {
        const shadow = await Connection.open(this.#shadowUrl)
        await shadow.command('DROP SCHEMA "public" CASCADE')
        await shadow.command('CREATE SCHEMA "public"')
        return new Adapter(shadow, async () => shadow.end())
    }

    async #created() {
        const name = `prisma_migrate_shadow_db_${crypto.randomUUID()}`
        const main = await this.#open()
        await explained(main.command(`CREATE DATABASE "${name}"`))
        const url = Object.assign(new URL(this.#url), { pathname: name })
        const shadow = await explained(Connection.open(url))
        return new Adapter(shadow, async () => {
            shadow.end()
            await explained(main.command(
                `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`))
        })
    }
}
