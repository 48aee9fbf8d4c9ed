// What SQLite holds, as Postgres wants it.
//
// SQLite lets any value into any column, and Prisma's engines and adapters
// have written the same types in different ways over the years: a DateTime is
// an integer of milliseconds, an ISO 8601 text, or what CURRENT_TIMESTAMP
// says, all in one column. So a value is converted by what it is and by what
// the column is in Postgres; what cannot be converted without loss is Unfit.
//
// A type has two forms of a value. `text` is what Postgres parses. `proof` is
// what checksums are made of, and Postgres makes its own (`proofSql`).

import { isUtf8 } from 'node:buffer'

/** Out of SQLite: integers are bigint, REAL is number, BLOB is Buffer. */
export type SqliteValue = null | bigint | number | string | Buffer

export interface Column {
    name: string
    type: string            // as Postgres calls it, without its length
    isNullable: boolean
    labels: string[] | null // of an enum
    limit: number | null    // characters of varchar(n), decimals of numeric
}

export interface Type {
    /** How to select it from SQLite; the column's name, quoted, goes in. */
    readSql?: (name: string) => string
    text: (value: SqliteValue, column: Column) => string
    proof?: (text: string) => string
    proofSql?: (name: string) => string
}

export class Unfit extends Error {}

export const options = { removeNul: false }

const show = (value: SqliteValue) =>
    Buffer.isBuffer(value) ? `a BLOB of ${value.length} bytes`
    : typeof value === 'string' ? JSON.stringify(value.slice(0, 60))
    : String(value)

const unfit = (value: SqliteValue, what: string) =>
    new Unfit(`${show(value)} is not ${what}`)

// Text

function withoutNul(text: string) {
    if (!text.includes('\0'))
        return text
    if (options.removeNul)
        return text.replaceAll('\0', '')
    const at = text.indexOf('\0')
    throw new Unfit(`NUL byte at character ${at + 1} of ${show(text)}`)
}

const text: Type = {
    // As bytes, so that what is not UTF-8 does not pass for U+FFFD.
    readSql: name => `CAST(${name} AS BLOB)`,
    text(value, { limit }) {
        if (!Buffer.isBuffer(value))
            throw unfit(value, 'text')
        if (!isUtf8(value))
            throw unfit(value, 'text in UTF-8')
        const it = withoutNul(value.toString())
        if (limit !== null && [...it].length > limit)
            throw new Unfit(`${show(it)} has more than ${limit} characters`)
        return it
    },
}

const enumeration: Type = {
    text(value, { labels, type }) {
        if (typeof value !== 'string' || !labels?.includes(value))
            throw unfit(value, `of ${type}: ${labels?.join(', ')}`)
        return value
    },
}

// Numbers

function integer(bits: bigint): Type {
    const end = 1n << (bits - 1n)
    return {
        text(value) {
            const it = typeof value === 'number' && Number.isInteger(value)
                ? BigInt(value) : value
            if (typeof it !== 'bigint' || it < -end || it >= end)
                throw unfit(value, `an integer of ${bits} bits`)
            return String(it)
        },
    }
}

/** 1.5e-7 as 0.00000015, without needless zeros. */
function decimalDigits(number: string) {
    const parts = /^([+-]?)(\d*)(?:\.(\d*))?(?:e([+-]?\d+))?$/i.exec(number)
    if (!parts || !(parts[2] || parts[3]) || Math.abs(+(parts[4] ?? 0)) > 400)
        return null
    const [, sign, whole, fraction = '', exponent = '0'] = parts
    let digits = whole + fraction
    let point = whole.length + Number(exponent)
    if (point < 0) {
        digits = '0'.repeat(-point) + digits
        point = 0
    }
    digits = digits.padEnd(point, '0')
    const left = digits.slice(0, point).replace(/^0+/, '') || '0'
    const right = digits.slice(point).replace(/0+$/, '')
    const is0 = left === '0' && right === ''
    return (sign === '-' && !is0 ? '-' : '') + left
        + (right ? `.${right}` : '')
}

const numeric: Type = {
    text(value, { limit }) {
        const it = Buffer.isBuffer(value) || value === null ? null
            : decimalDigits(String(value).trim())
        if (it === null)
            throw unfit(value, 'a decimal number')
        if (limit !== null && (it.split('.')[1] ?? '').length > limit)
            throw unfit(value, `kept exactly by ${limit} decimals`)
        return it
    },
    proofSql: name => `trim_scale(${name})`,
}

const float8: Type = {
    text(value) {
        if (typeof value !== 'number' && (typeof value !== 'bigint'
            || BigInt(Number(value)) !== value))
            throw unfit(value, 'a floating-point number')
        return Object.is(value, -0) ? '-0' : String(value)
    },
    proof(text) {
        const bits = Buffer.alloc(8)
        bits.writeDoubleBE(Number(text))
        return bits.toString('hex')
    },
    proofSql: name => `encode(float8send(${name}), 'hex')`,
}

const boolean: Type = {
    text(value) {
        const it = typeof value === 'string' ? value.toLowerCase() : value
        if (it === 1n || it === 'true')
            return 'true'
        if (it === 0n || it === 'false')
            return 'false'
        throw unfit(value, 'a boolean')
    },
}

// Time

const ISO = new RegExp(/^(\d{4}-\d\d-\d\d)/.source
    + /(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?/.source
    + / ?(Z|[+-]\d\d(?::?\d\d)?)?$/.source, 'i')

/** Milliseconds since 1970; what does not name its zone means UTC. */
export function milliseconds(value: SqliteValue) {
    if (typeof value === 'bigint')
        return Number(value)
    if (typeof value === 'number' && Number.isInteger(value))
        return value
    const parts = typeof value === 'string' ? ISO.exec(value.trim()) : null
    if (!parts)
        return NaN
    const [, date, time = '00:00:00', zone = 'Z'] = parts
    const offset = /^[+-]/.test(zone)
        ? zone.replace(/^(...):?(\d\d)?$/, (_, hours, minutes) =>
            `${hours}:${minutes ?? '00'}`)
        : 'Z'
    const day = Date.parse(`${date}T00:00:00Z`)
    // The parser of dates takes the 30th of February for the 2nd of March.
    if (Number.isNaN(day) || new Date(day).toISOString().slice(0, 10) !== date)
        return NaN
    // Prisma Client reads milliseconds; what is finer is cut off.
    return Date.parse(`${date}T${time.replace(/(\.\d{3})\d+$/, '$1')}`
        + offset)
}

const timestamp: Type = {
    text(value) {
        const date = new Date(milliseconds(value))
        const year = date.getUTCFullYear()
        if (Number.isNaN(year))
            throw unfit(value, 'a time')
        if (year < 1 || year > 9999)
            throw unfit(value, 'a time in the years 1 to 9999')
        return date.toISOString()
    },
    proof: text => String(Date.parse(text)),
    proofSql: name => `trim_scale(extract(epoch FROM ${name}) * 1000)`,
}

// Json and bytes

// A string in JSON may say what no text in Postgres can hold.
const ESCAPES = /\\(?:u([0-9a-f]{4})|.)/gi

function checkEscapes(json: string) {
    let high = false        // the first half of a pair has been read
    let end = 0
    for (const it of json.matchAll(ESCAPES)) {
        const unit = it[1] ? parseInt(it[1], 16) : -1
        const isLow = unit >= 0xdc00 && unit <= 0xdfff
        if (high !== isLow || (high && it.index !== end))
            throw new Unfit(`half a surrogate pair in ${show(json)}`)
        high = unit >= 0xd800 && unit <= 0xdbff
        end = it.index + it[0].length
        if (unit === 0 && !options.removeNul)
            throw new Unfit(`NUL byte (\\u0000) in ${show(json)}`)
    }
    if (high)
        throw new Unfit(`half a surrogate pair in ${show(json)}`)
    return options.removeNul
        ? json.replace(ESCAPES, it => it === '\\u0000' ? '' : it)
        : json
}

const jsonb: Type = {
    // SQLite's own JSONB, JSON as bytes, or text. A number alone has become
    // a number, as a column declared JSONB likes those better.
    readSql: name => `CASE WHEN typeof(${name}) <> 'blob' THEN ${name}`
        + ` WHEN json_valid(${name}, 8) THEN json(${name})`
        + ` ELSE CAST(${name} AS TEXT) END`,
    text(value) {
        const it = String(value)
        try {
            JSON.parse(it)
        } catch {
            throw unfit(value, 'JSON')
        }
        return checkEscapes(it)
    },
    // Spaces, order of keys and the like are up to Postgres, on both sides:
    // see verify.ts.
    proofSql: name => `${name}::text`,
}

const bytea: Type = {
    text(value) {
        if (!Buffer.isBuffer(value) && typeof value !== 'string')
            throw unfit(value, 'bytes')
        return `\\x${Buffer.from(value as string).toString('hex')}`
    },
    proof: text => text.slice(2),
    proofSql: name => `encode(${name}, 'hex')`,
}

const types: Record<string, Type> = {
    text,
    'character varying': text,
    character: text,
    smallint: integer(16n),
    integer: integer(32n),
    bigint: integer(64n),
    numeric,
    'double precision': float8,
    boolean,
    'timestamp without time zone': timestamp,
    'timestamp with time zone': timestamp,
    jsonb,
    bytea,
}

export function typeOf(column: Column): Type {
    return column.labels ? enumeration : types[column.type] ?? text
}

export function toText(value: SqliteValue, column: Column) {
    if (value !== null)
        return typeOf(column).text(value, column)
    if (!column.isNullable)
        throw new Unfit('NULL in a column that must have a value')
    return null
}
