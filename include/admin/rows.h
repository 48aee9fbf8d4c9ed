/* Writes the rows of a SHOW table as messages; holds them to its columns. */
#ifndef ADMIN_ROWS_H
#define ADMIN_ROWS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "wire/body.h"

#define OID_INT8 20
#define OID_INT4 23
#define OID_TEXT 25

/*
 * One value is written for each column, in their order and of their type:
 * what does not fit is our bug, found by a check(). Running out of memory is
 * remembered in `out`.
 */
struct rows {
	struct buf *out;
	const struct msg_column *columns;
	uint16_t count;			/* of columns */
	uint16_t at;			/* the next one, in a row */
	size_t began;			/* of the row's message, in out */
};

void row_begin(struct rows *rows);
/* What is no UTF-8 comes out as `?`: names are the clients' to choose, and
 * one bad byte must not keep a monitor from reading the rest. */
void row_span(struct rows *rows, struct span value);	/* at NULL = NULL */
void row_text(struct rows *rows, const char *value);	/* NULL = NULL */
void row_printf(struct rows *rows, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* For INT4 columns what is larger is shown as the largest. */
void row_int(struct rows *rows, uint64_t value);
void row_null(struct rows *rows);
/* "2026-11-23 12:00:00 UTC" of microseconds since 1970; 0 = NULL. */
void row_time(struct rows *rows, uint64_t wall_us);
void row_end(struct rows *rows);

/* Appends a text, at most `most` bytes of it, as valid UTF-8. */
void text_add_utf8(struct buf *out, struct span text, size_t most);

#endif
