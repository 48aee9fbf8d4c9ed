#!/usr/bin/env node
// Stands in for the program `schema-engine` that Prisma's command line
// starts, and which npm does not have: the same arguments, the same JSON-RPC
// over stdin and stdout, the same engine inside (compiled to WASM, which npm
// has), and the same messages to Postgres (native.mjs).
//
//   schema_engine.mjs --datasource JSON cli can-connect-to-database
//   schema_engine.mjs --datasource JSON [--datamodels FILE]...
//
// It does not look after signals: the command line closes stdin and sends
// SIGTERM, and whatever was open is then closed by the kernel.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import readline from 'node:readline'
import { parseArgs } from 'node:util'
import {
    bindMigrationAwareSqlAdapterFactory as bindAdapter,
} from '@prisma/driver-adapter-utils'
import * as wasm from '@prisma/schema-engine-wasm/schema_engine_bg'
import { Connection, Native } from './native.mjs'

const { values: options, positionals: command } = parseArgs({
    strict: false, allowPositionals: true, options: {
        datasource: { type: 'string' },
        datamodels: { type: 'string', multiple: true, default: [] },
        'enabled-preview-features': { type: 'string' },
        'extension-types': { type: 'string' },
    } })
const { url, shadowDatabaseUrl } = JSON.parse(options.datasource)
const { host, pathname, searchParams } = new URL(url)

// Log lines are JSON too; the command line reads them as they come.
function log(level, fields) {
    console.error(JSON.stringify({ timestamp: new Date(), level, fields,
        target: 'schema_engine::logger' }))
}

// What Prisma says of a database that it cannot reach.
function described(error) {
    switch (error.code) {
    case '28P01':
        return ['P1000', error.message]
    case '3D000':
        return ['P1003', `Database \`${pathname.slice(1)}\` does not exist `
            + `on the database server at \`${host}\`.`]
    default:
        return ['P1001', `Can't reach database server at \`${host}\`\n\n`
            + error.message]
    }
}

async function canConnect() {
    const connection = await Connection.open(url)
    await connection.query('SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE '
        + "nspname = $1), version(), current_setting('server_version_num')::"
        + 'integer as numeric_version;',
    [searchParams.get('schema') ?? 'public'])
    connection.end()
}

async function runCommand() {
    log('INFO', { message: 'Starting schema engine CLI' })
    try {
        if (command[1] !== 'can-connect-to-database')
            throw new Error(`no such command: ${command[1]}`)
        await canConnect()
        log('INFO', { message: 'Connection established' })
        process.exit(0)
    } catch (error) {
        const [error_code, message] = described(error)
        log('ERROR', { is_panic: false, error_code, message })
        process.exit(1)
    }
}

// The JSON-RPC server

const adapter = bindAdapter(new Native(url, shadowDatabaseUrl))

async function startEngine() {
    const program = createRequire(import.meta.url).resolve(
        '@prisma/schema-engine-wasm').replace(/\.js$/, '_bg.wasm')
    const { instance } = await WebAssembly.instantiate(
        fs.readFileSync(program), { './schema_engine_bg.js': wasm })
    wasm.__wbg_set_wasm(instance.exports)
    instance.exports.__wbindgen_start()
    globalThis.PRISMA_WASM_PANIC_REGISTRY = {
        set_message: message => log('ERROR', { is_panic: true, message }),
    }
    const datamodels = options.datamodels.map(file =>
        [file, fs.readFileSync(file, 'utf8')])
    return wasm.SchemaEngine.new(
        { datamodels: datamodels.length ? datamodels : undefined },
        () => {}, adapter)
}

function send(message) {
    console.log(JSON.stringify({ jsonrpc: '2.0', ...message }))
}

async function call(engine, method, params) {
    const result = await engine[method](params ?? undefined)
    return result instanceof Map ? Object.fromEntries(result) : result
}

// An error that came out of the adapter is a number to the engine.
function original(error) {
    const id = /External error id#(\d+)/.exec(error.message)?.[1]
    return id && adapter.errorRegistry.consumeError(Number(id))?.error || error
}

async function answer(engine, { id, method, params }) {
    try {
        const result = await call(engine,
            method === 'getDatabaseVersion' ? 'version' : method, params)
        if (method === 'diff' && result.stdout)
            send({ id: 0, method: 'print', params: { content: result.stdout } })
        send({ id, result: result ?? null })
    } catch (caught) {
        const { message, code } = original(caught)
        send({ id, error: { code: 4466, message: 'An error happened.',
            data: { is_panic: false, message, meta: null,
                error_code: code ?? null } } })
    }
}

async function serve() {
    let engine
    for await (const line of readline.createInterface(process.stdin)) {
        const request = JSON.parse(line)
        if (request.method)         // else it answers a print
            await answer(await (engine ??= startEngine()), request)
    }
    process.exit(0)
}

await (command[0] === 'cli' ? runCommand() : serve())
