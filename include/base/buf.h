/* A growing byte buffer. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/*
 * All zeroes is an empty buffer that owns nothing. Running out of memory
 * sets `failed`, and every later append does nothing: a composer checks once,
 * at its end.
 */
struct buf {
	char *at;
	size_t len;
	size_t cap;
	bool failed;
};

void buf_finish(struct buf *buf);		/* frees; back to all zeroes */
/* len 0 and not failed: a new start that keeps the block. */
void buf_clear(struct buf *buf);
/* Room for `more` bytes behind len; false when out of memory. */
bool buf_reserve(struct buf *buf, size_t more);
/* The bytes must not be the buffer's own: growing moves them. */
void buf_add(struct buf *buf, const void *at, size_t len);
void buf_add_span(struct buf *buf, struct span s);
void buf_add_text(struct buf *buf, const char *text);	/* without its NUL */
void buf_printf(struct buf *buf, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Drops the first n bytes. */
void buf_cut(struct buf *buf, size_t n);
struct span buf_span(const struct buf *buf);

#endif
