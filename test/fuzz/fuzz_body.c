/*
 * Message bodies. The first byte of an input says how many readings follow,
 * each a byte; the rest is the body they read. What the cursor gives is
 * compared with plain arithmetic on offsets. The body is also taken for an
 * ErrorResponse, and for texts that are composed and read again.
 */
#include "base/buf.h"
#include "fuzz.h"
#include "wire/body.h"

/* What one reading takes: as the cursor should. */
static size_t
size_of_reading(uint8_t how, const char *at, size_t left)
{
	const char *nul;

	switch (how % 6) {
	case 0:
		return 1;
	case 1:
		return 2;
	case 2:
		return 4;
	case 3:
		return how / 6;
	case 4:
		nul = left == 0 ? NULL : memchr(at, '\0', left);
		return nul != NULL ? (size_t)(nul - at) + 1 : SIZE_MAX;
	default:
		return left;
	}
}

static uint64_t
big_endian(const char *at, size_t n)
{
	uint64_t value = 0;

	while (n-- > 0)
		value = value << 8 | (uint8_t)*at++;
	return value;
}

static void
check_reading(struct body *body, uint8_t how, const char *at, size_t size)
{
	struct span s;

	switch (how % 6) {
	case 0:
		check(body_u8(body) == big_endian(at, size));
		break;
	case 1:
		check(body_u16(body) == big_endian(at, size));
		break;
	case 2:
		check(body_u32(body) == big_endian(at, size));
		break;
	case 3:
		s = body_bytes(body, how / 6);
		check(at == NULL ? s.at == NULL && s.len == 0 :
		    s.at == at && s.len == size);
		break;
	case 4:
		s = body_text(body);
		check(at == NULL ? s.at == NULL && s.len == 0 :
		    s.at == at && s.len + 1 == size);
		break;
	default:
		s = body_rest(body);
		check(at == NULL ? s.at == NULL && s.len == 0 :
		    s.at == at && s.len == size);
	}
}

static void
check_cursor(const uint8_t *how, size_t count, struct span bytes)
{
	struct body body = body_of(bytes);
	size_t done = 0, size, i;
	bool bad = false;

	for (i = 0; i < count; i++) {
		size = size_of_reading(how[i], bytes.at + done,
		    bytes.len - done);
		if (bad || size > bytes.len - done) {
			bad = true;
			check_reading(&body, how[i], NULL, 0);
			check(body.bad && body.at == bytes.at + done);
			continue;
		}
		check_reading(&body, how[i], bytes.at + done, size);
		done += size;
		check(!body.bad && body.at == bytes.at + done);
	}
	check(body_is_done(&body) == (!bad && done == bytes.len));
	/* No length is too large to be compared. */
	check(body_bytes(&body, SIZE_MAX).at == NULL && body.bad);
}

static void
check_error(struct span bytes)
{
	const struct span untouched = { "untouched", 9 };
	struct error_fields f = { .hint = untouched };
	struct span cut = bytes;

	if (!error_parse(bytes, &f)) {
		check(span_eq(f.hint, untouched));
		return;
	}
	check(fuzz_is_within(f.severity, bytes));
	check(fuzz_is_within(f.sqlstate, bytes));
	check(fuzz_is_within(f.message, bytes));
	check(fuzz_is_within(f.detail, bytes));
	check(fuzz_is_within(f.hint, bytes));
	check(f.sqlstate.len == (f.sqlstate.at != NULL ? 5 : 0));
	/* Good to its last byte: no part of it is good by itself. */
	while (cut.len-- > 0 && bytes.len - cut.len < 200) {
		char *copy = fuzz_copy(cut.at, cut.len);

		check(!error_parse((struct span){ copy, cut.len }, &f));
		free(copy);
	}
}

/* Two texts in a message: read as they were composed, or not composed. */
static void
check_composing(struct span a, struct span b)
{
	bool has_nul = (a.len > 0 && memchr(a.at, '\0', a.len) != NULL) ||
	    (b.len > 0 && memchr(b.at, '\0', b.len) != NULL);
	struct buf out = { 0 };
	struct frame frame;
	struct span bytes;
	struct body body;

	msg_parameter(&out, a, b);
	check(out.failed == has_nul);
	if (!has_nul) {
		check(frame_take(out.at, out.len, UINT32_MAX, &frame,
		    &bytes) == FRAME_OK);
		check(frame.type == 'S');
		check(out.len == FRAME_HEADER + bytes.len);
		body = body_of(bytes);
		check(span_eq(body_text(&body), a));
		check(span_eq(body_text(&body), b));
		check(body_is_done(&body));
	}
	buf_finish(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	size_t count, split;
	struct span bytes;
	char *copy;

	if (len == 0)
		return 0;
	count = data[0] < len - 1 ? data[0] : len - 1;
	bytes.len = len - 1 - count;
	copy = fuzz_copy((const char *)data + 1 + count, bytes.len);
	bytes.at = copy;
	check_cursor(data + 1, count, bytes);
	check_error(bytes);
	split = bytes.len / 2;
	check_composing((struct span){ bytes.at, split },
	    (struct span){ bytes.at + split, bytes.len - split });
	free(copy);
	fuzz_check_time(began);
	return 0;
}
