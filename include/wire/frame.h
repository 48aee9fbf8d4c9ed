/* Splits bytes into protocol messages. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* What every parser in wire/ answers; nothing is consumed, nothing sent. */
enum frame_result {
	FRAME_OK,
	FRAME_MORE,		/* the bytes are good so far but too few */
	FRAME_BAD,		/* no bytes that follow can make this right */
};

#define FRAME_HEADER 5		/* type byte and length word */

/* The header of a regular message (protocol 3, "Message Formats"). */
struct frame {
	uint8_t type;
	uint32_t body;		/* bytes behind the header */
};

/* The largest length word that Postgres takes or sends (what it can allocate
 * at once); it hangs up on a larger one. */
#define FRAME_LENGTH_MAX 0x3ffffffeu

/* Numbers on the wire are big-endian and stand anywhere. */
static inline uint32_t
frame_load_u32(const char *at)
{
	const unsigned char *b = (const unsigned char *)at;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 |
	    (uint32_t)b[2] << 8 | b[3];
}

/* Reads the header at `at`; FRAME_OK when 5 bytes are there and the length
 * word is 4..FRAME_LENGTH_MAX. The body need not have arrived. */
static inline enum frame_result
frame_peek(const char *at, size_t len, struct frame *ret)
{
	uint32_t length;

	/* The first byte of the length may tell already. */
	if (len < FRAME_HEADER)
		return len >= 2 && ((unsigned char)at[1] & 0xc0) != 0 ?
		    FRAME_BAD : FRAME_MORE;
	length = frame_load_u32(at + 1);
	if (length < 4 || length > FRAME_LENGTH_MAX)
		return FRAME_BAD;
	ret->type = (uint8_t)at[0];
	ret->body = length - 4;
	return FRAME_OK;
}

/*
 * A message with its body. FRAME_MORE: header or body are not all there.
 * FRAME_BAD also when the body is longer than `max`, which is known before
 * a byte of it has come. For logins and other places where messages are
 * small; a relay uses frame_peek() and lets bodies stream.
 */
enum frame_result frame_take(const char *at, size_t len, uint32_t max,
    struct frame *ret, struct span *ret_body);

#endif
