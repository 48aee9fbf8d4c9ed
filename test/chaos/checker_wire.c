/*
 * Bytes on the wire, for the checker.
 *
 * pgsluice has code for the same purpose. It is not used here on purpose: a
 * mistake shared by the pooler and by its checker would stay hidden.
 */
#include "checker.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void
bytes_room(struct bytes *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 256;

	if (more <= b->cap - b->len)
		return;
	while (cap - b->len < more)
		cap *= 2;
	b->at = realloc(b->at, cap);
	if (b->at == NULL)
		abort();
	b->cap = cap;
}

void
bytes_add(struct bytes *b, const void *data, size_t len)
{
	bytes_room(b, len);
	if (len > 0)
		memcpy(b->at + b->len, data, len);
	b->len += len;
}

/* Adds text without its NUL; text longer than 4 KB is a mistake here. */
void
bytes_print(struct bytes *b, const char *format, ...)
{
	va_list args;
	int len;

	bytes_room(b, 4096);
	va_start(args, format);
	len = vsnprintf(b->at + b->len, 4096, format, args);
	va_end(args);
	if (len < 0 || len >= 4096)
		abort();
	b->len += (size_t)len;
}

void
bytes_drop_front(struct bytes *b, size_t len)
{
	memmove(b->at, b->at + len, b->len - len);
	b->len -= len;
}

void
bytes_free(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){0};
}

void *
array_grow(void *items, size_t count, size_t *cap, size_t size)
{
	if (count < *cap)
		return items;
	*cap = *cap ? *cap * 2 : 16;
	items = realloc(items, *cap * size);
	if (items == NULL)
		abort();
	return items;
}

uint16_t
get_u16(const char *p)
{
	uint16_t value;

	memcpy(&value, p, sizeof(value));
	return ntohs(value);
}

uint32_t
get_u32(const char *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return ntohl(value);
}

size_t
message_begin(struct bytes *b, char type)
{
	size_t start = b->len;

	bytes_add(b, &type, 1);
	put_u32(b, 0);
	return start;
}

void
message_end(struct bytes *b, size_t start)
{
	uint32_t len = htonl((uint32_t)(b->len - start - 1));

	memcpy(b->at + start + 1, &len, sizeof(len));
}

void
put_u16(struct bytes *b, unsigned value)
{
	uint16_t net = htons((uint16_t)value);

	bytes_add(b, &net, sizeof(net));
}

void
put_u32(struct bytes *b, uint32_t value)
{
	uint32_t net = htonl(value);

	bytes_add(b, &net, sizeof(net));
}

void
put_text(struct bytes *b, const char *text)
{
	bytes_add(b, text, strlen(text) + 1);
}

const char *
cursor_bytes(struct cursor *cur, size_t len)
{
	const char *at = cur->at;

	if (cur->bad || len > (size_t)(cur->end - cur->at)) {
		cur->bad = true;
		return NULL;
	}
	cur->at += len;
	return at;
}

uint16_t
cursor_u16(struct cursor *cur)
{
	const char *at = cursor_bytes(cur, 2);

	return at != NULL ? get_u16(at) : (uint16_t)0;
}

uint32_t
cursor_u32(struct cursor *cur)
{
	const char *at = cursor_bytes(cur, 4);

	return at != NULL ? get_u32(at) : 0;
}

const char *
cursor_text(struct cursor *cur)
{
	const char *at = cur->at;
	const char *nul;

	nul = cur->bad ? NULL : memchr(at, 0, (size_t)(cur->end - at));
	if (nul == NULL) {
		cur->bad = true;
		return "";
	}
	cur->at = nul + 1;
	return at;
}

const char *
error_field(const char *body, size_t len, char field)
{
	struct cursor cur = { body, body + len, false };

	for (;;) {
		const char *code = cursor_bytes(&cur, 1);
		const char *text;

		if (code == NULL || *code == '\0')
			return "";
		text = cursor_text(&cur);
		if (*code == field)
			return text;
	}
}

/* splitmix64: good enough to make every input look unlike its neighbour. */
uint64_t
mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}
