/*
 * Rows of SHOW tables, written straight into the form in which they leave.
 *
 * A table's columns are in show.def, its values come from a function far from
 * there. So every value is checked against the column that it is for: a row
 * that has drifted away from its columns does not get past the first test.
 */
#include "admin/rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/check.h"

#define NULL_VALUE UINT32_MAX		/* length of an SQL NULL */
#define TEXT_MOST 4096			/* bytes of a value that are shown */

/* How many bytes the character at `at` has; 0: this is no UTF-8 (RFC 3629:
 * shortest form, no surrogates, nothing above U+10FFFF). */
static size_t
utf8_length(const unsigned char *at, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t len;

	if (at[0] < 0x80)
		return 1;
	if (at[0] < 0xc2 || at[0] > 0xf4)
		return 0;
	len = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	if (at[0] == 0xe0)
		low = 0xa0;
	else if (at[0] == 0xed)
		high = 0x9f;
	else if (at[0] == 0xf0)
		low = 0x90;
	else if (at[0] == 0xf4)
		high = 0x8f;
	if (left < len || at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (at[i] < 0x80 || at[i] > 0xbf)
			return 0;
	return len;
}

void
text_add_utf8(struct buf *out, struct span text, size_t most)
{
	const unsigned char *at = (const unsigned char *)text.at;
	size_t left = text.len, good = 0, len;

	while (left > 0 && most > 0) {
		len = utf8_length(at + good, left);
		if (len > most)
			break;
		if (len > 0 && at[good] != '\0') {
			good += len;
			left -= len;
			most -= len;
			continue;
		}
		buf_add(out, at, good);
		buf_add(out, "?", 1);
		at += good + 1;
		good = 0;
		left--;
		most--;
	}
	buf_add(out, at, good);
}

void
row_begin(struct rows *rows)
{
	rows->began = msg_begin(rows->out, 'D');
	rows->at = 0;
	msg_u16(rows->out, rows->count);
}

void
row_end(struct rows *rows)
{
	check(rows->at == rows->count);
	msg_end(rows->out, rows->began);
}

/* The next value is for a column of this type. */
static void
row_next(struct rows *rows, bool is_text)
{
	check(rows->at < rows->count);
	check((rows->columns[rows->at].type_oid == OID_TEXT) == is_text);
	rows->at++;
}

void
row_span(struct rows *rows, struct span value)
{
	struct buf *out = rows->out;
	size_t length_at = out->len, value_at;

	if (value.at == NULL) {
		row_null(rows);
		return;
	}
	row_next(rows, true);
	msg_u32(out, 0);
	value_at = out->len;
	text_add_utf8(out, value, TEXT_MOST);
	if (out->failed)
		return;

	size_t len = out->len - value_at;
	char length[4] = { 0, 0, (char)(len >> 8), (char)len };
	_Static_assert(TEXT_MOST <= UINT16_MAX, "the length's other bytes");
	memcpy(out->at + length_at, length, sizeof(length));
}

void
row_text(struct rows *rows, const char *value)
{
	row_span(rows, span_of(value));
}

void
row_printf(struct rows *rows, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	row_text(rows, text);
}

void
row_int(struct rows *rows, uint64_t value)
{
	char text[24];
	int len;

	check(rows->at < rows->count);
	if (rows->columns[rows->at].type_oid == OID_INT4 && value > INT32_MAX)
		value = INT32_MAX;
	if (value > INT64_MAX)
		value = INT64_MAX;
	row_next(rows, false);
	len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	msg_u32(rows->out, (uint32_t)len);
	buf_add(rows->out, text, (size_t)len);
}

void
row_null(struct rows *rows)
{
	check(rows->at < rows->count);
	rows->at++;
	msg_u32(rows->out, NULL_VALUE);
}

void
row_time(struct rows *rows, uint64_t wall_us)
{
	time_t seconds = (time_t)(wall_us / 1000000);
	char text[64];
	struct tm local;

	if (wall_us == 0 || localtime_r(&seconds, &local) == NULL ||
	    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %Z", &local) == 0)
		row_null(rows);
	else
		row_text(rows, text);
}
