/*
 * Splitting bytes into messages. Every regular message is a type byte, a
 * length word that counts itself but not the type, and a body:
 *
 *	+------+--------+--------+--------+--------+-----------
 *	| type |        length = 4 + body          | body ...
 *	+------+--------+--------+--------+--------+-----------
 *
 * A length above 1 GB is as impossible as 0..3. Reading the header runs once
 * a message and is inline in wire/frame.h.
 */
#include "wire/frame.h"

enum frame_result
frame_take(const char *at, size_t len, uint32_t max, struct frame *ret,
    struct span *ret_body)
{
	struct frame frame;
	enum frame_result result = frame_peek(at, len, &frame);

	if (result != FRAME_OK)
		return result;
	if (frame.body > max)
		return FRAME_BAD;
	if (frame.body > len - FRAME_HEADER)
		return FRAME_MORE;
	*ret = frame;
	*ret_body = (struct span){ at + FRAME_HEADER, frame.body };
	return FRAME_OK;
}
