/* Reads and composes message bodies: the one cursor for all wire data. */
#ifndef WIRE_BODY_H
#define WIRE_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "wire/frame.h"

/*
 * A reading cursor. Reading past the end sets `bad`, moves nothing, and gives
 * zeroes or SPAN_NONE: check `bad` once, after the last read. Lengths are
 * compared as `len > end - at`, so no length on the wire can overflow.
 */
struct body {
	const char *at;
	const char *end;
	bool bad;
};

static inline struct body
body_of(struct span bytes)
{
	/* NULL + 0 is no sum in C: a body of nothing needs some address. */
	if (bytes.at == NULL)
		bytes = SPAN("");
	return (struct body){ .at = bytes.at, .end = bytes.at + bytes.len };
}

/* Private: moves over n bytes; NULL when they are not there. */
static inline const char *
body_move(struct body *body, size_t n)
{
	const char *at = body->at;

	if (body->bad || n > (size_t)(body->end - at)) {
		body->bad = true;
		return NULL;
	}
	body->at = at + n;
	return at;
}

static inline uint8_t
body_u8(struct body *body)
{
	const char *at = body_move(body, 1);

	return at != NULL ? (uint8_t)at[0] : 0;
}

static inline uint16_t
body_u16(struct body *body)
{
	const char *at = body_move(body, 2);

	if (at == NULL)
		return 0;
	return (uint16_t)((uint8_t)at[0] << 8 | (uint8_t)at[1]);
}

static inline uint32_t
body_u32(struct body *body)
{
	const char *at = body_move(body, 4);

	return at != NULL ? frame_load_u32(at) : 0;
}

static inline struct span
body_bytes(struct body *body, size_t len)
{
	const char *at = body_move(body, len);

	return at != NULL ? (struct span){ at, len } : SPAN_NONE;
}

/* Up to a NUL, which is eaten; the span is without it. */
static inline struct span
body_text(struct body *body)
{
	const char *at = body->at;
	const char *nul = body->bad ? NULL :
	    memchr(at, '\0', (size_t)(body->end - at));

	if (nul == NULL) {
		body->bad = true;
		return SPAN_NONE;
	}
	body->at = nul + 1;
	return (struct span){ at, (size_t)(nul - at) };
}

static inline struct span
body_rest(struct body *body)
{
	return body_bytes(body, (size_t)(body->end - body->at));
}

/* true when all bytes were read and none was missing */
static inline bool
body_is_done(const struct body *body)
{
	return !body->bad && body->at == body->end;
}

/*
 * Composing: msg_begin() writes the type and room for the length, returns
 * where; msg_end() fills the length in. Running out of memory: buf->failed,
 * and so does what cannot be said in a message: a text with a NUL in it
 * (the rest would be read as the next field), a body over 2^31-5 bytes.
 */
size_t msg_begin(struct buf *out, char type);
void msg_u8(struct buf *out, uint8_t value);
void msg_u16(struct buf *out, uint16_t value);
void msg_u32(struct buf *out, uint32_t value);
void msg_text(struct buf *out, struct span text);	/* and its NUL */
void msg_end(struct buf *out, size_t began);

/* Whole messages, server to client. */
struct msg_error {
	const char *severity;		/* "ERROR", "FATAL", "NOTICE" ... */
	const char *sqlstate;		/* five characters */
	const char *message;
	const char *detail;		/* NULL = none */
	const char *hint;		/* NULL = none */
};
void msg_error(struct buf *out, const struct msg_error *error);	/* 'E' */
void msg_notice(struct buf *out, const struct msg_error *notice); /* 'N' */
void msg_ready(struct buf *out, char status);			/* 'Z' */
void msg_parameter(struct buf *out, struct span name, struct span value);
void msg_auth(struct buf *out, uint32_t code, struct span data); /* 'R' */
void msg_key_data(struct buf *out, uint32_t pid, struct span key); /* 'K' */
/* 'v': the newest minor version we speak and the options we do not know. */
void msg_negotiate(struct buf *out, uint32_t minor,
    const struct span *unknown, uint32_t count);
void msg_command_complete(struct buf *out, const char *tag);	/* 'C' */
/* 'T' of text/int8 columns, for the console; oid 25 text, 20 int8, 23 int4 */
struct msg_column {
	const char *name;
	uint32_t type_oid;
};
void msg_row_description(struct buf *out, const struct msg_column *columns,
    uint16_t count);
/* 'D'; a value with at == NULL is SQL NULL */
void msg_data_row(struct buf *out, const struct span *values, uint16_t count);

/* Whole messages, client to server. */
void msg_query(struct buf *out, struct span sql);		/* 'Q' */
void msg_password(struct buf *out, struct span data, bool with_nul); /* 'p' */
void msg_sasl_initial(struct buf *out, const char *mechanism,
    struct span data);						/* 'p' */
void msg_empty(struct buf *out, char type);	/* 'S', 'H', 'X', '1', ... */

/*
 * The fields of an ErrorResponse or NoticeResponse. Missing ones are
 * SPAN_NONE (a server may send none at all), and so is a SQLSTATE that is not
 * five digits or capital letters: whoever has one may read five bytes. The
 * first of fields that are given twice counts. False: malformed.
 */
struct error_fields {
	struct span severity;		/* 'V' if there, else 'S' */
	struct span sqlstate;		/* 'C' */
	struct span message;		/* 'M' */
	struct span detail;		/* 'D' */
	struct span hint;		/* 'H' */
	struct span routine;		/* 'R' */
};
bool error_parse(struct span body, struct error_fields *ret);

#endif
