/*
 * A growing byte buffer. Out of memory is remembered instead of returned:
 * whoever composes a message of twenty fields asks once, at the end.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"

#define BUF_FIRST_CAP 256

void
buf_finish(struct buf *buf)
{
	mem_free(buf->at);
	*buf = (struct buf){ 0 };
}

void
buf_clear(struct buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

static bool
buf_grow(struct buf *buf, size_t need)
{
	size_t cap = buf->cap != 0 ? buf->cap : BUF_FIRST_CAP;
	char *at;

	while (cap < need && cap <= SIZE_MAX / 2)
		cap *= 2;
	if (cap < need)
		cap = need;
	at = mem_realloc(buf->at, cap);
	if (at == NULL) {
		buf->failed = true;
		return false;
	}
	buf->at = at;
	buf->cap = cap;
	return true;
}

bool
buf_reserve(struct buf *buf, size_t more)
{
	if (buf->failed)
		return false;
	if (more <= buf->cap - buf->len)
		return true;
	if (more > SIZE_MAX - buf->len) {
		buf->failed = true;
		return false;
	}
	return buf_grow(buf, buf->len + more);
}

void
buf_add(struct buf *buf, const void *at, size_t len)
{
	if (len == 0 || !buf_reserve(buf, len))
		return;
	memcpy(buf->at + buf->len, at, len);
	buf->len += len;
}

void
buf_add_span(struct buf *buf, struct span s)
{
	buf_add(buf, s.at, s.len);
}

void
buf_add_text(struct buf *buf, const char *text)
{
	buf_add(buf, text, strlen(text));
}

void
buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list args;
	size_t room;
	int len;

	/* Most texts fit into what is there: then one pass is enough. */
	if (!buf_reserve(buf, 1))
		return;
	room = buf->cap - buf->len;
	va_start(args, fmt);
	len = vsnprintf(buf->at + buf->len, room, fmt, args);
	va_end(args);
	if (len < 0) {
		buf->failed = true;
		return;
	}
	if ((size_t)len >= room) {
		if (!buf_reserve(buf, (size_t)len + 1))
			return;
		va_start(args, fmt);
		vsnprintf(buf->at + buf->len, (size_t)len + 1, fmt, args);
		va_end(args);
	}
	buf->len += (size_t)len;
}

void
buf_cut(struct buf *buf, size_t n)
{
	check(n <= buf->len);
	if (n == 0)
		return;
	buf->len -= n;
	memmove(buf->at, buf->at + n, buf->len);
}

struct span
buf_span(const struct buf *buf)
{
	return (struct span){ buf->at, buf->len };
}
