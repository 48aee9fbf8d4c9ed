/* Text as pointer and length, and checked parsing of what operators write. */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes that somebody else owns; not NUL-terminated. */
struct span {
	const char *at;
	size_t len;
};

#define SPAN(lit) ((struct span){ (lit), sizeof(lit) - 1 })
#define SPAN_NONE ((struct span){ NULL, 0 })
/* For printf("%.*s", SPAN_ARG(s)). */
#define SPAN_ARG(s) ((int)(s).len), ((s).at != NULL ? (s).at : "")

/* NULL gives an empty span. */
static inline struct span
span_of(const char *text)
{
	return (struct span){ text, text != NULL ? strlen(text) : 0 };
}

static inline bool
span_eq(struct span a, struct span b)
{
	return a.len == b.len &&
	    (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

bool span_eq_case(struct span a, struct span b);	/* ASCII case folded */
bool span_is(struct span a, const char *text);
bool span_is_case(struct span a, const char *text);
bool span_starts_case(struct span a, const char *prefix);
struct span span_trim(struct span s);			/* white space */
/*
 * Cuts the next word off *rest at `sep`, trimmed; false when nothing but
 * white space is left. "a,,b" has an empty word in the middle, "a," has one
 * word. A blank as `sep` stands for any run of white space.
 */
bool span_next(struct span *rest, char sep, struct span *ret_word);
/* 64-bit hash, keyed by a random seed of this process. */
uint64_t span_hash(struct span s);
uint64_t span_hash_case(struct span s);

/*
 * Parsers for numbers as operators write them. The whole span must be used
 * up and the value in range, else false and *ret untouched.
 */
bool span_parse_u64(struct span s, uint64_t *ret);
bool span_parse_i64(struct span s, int64_t *ret);
/* yes/no, on/off, true/false, 1/0 */
bool span_parse_bool(struct span s, bool *ret);
/* "120", "1.5", "500ms", "2min", "1h", "7d", "30us": microseconds; a bare
 * number is in seconds. What is finer than that is rounded up, so that only
 * a zero ever means "off". */
bool span_parse_duration_us(struct span s, uint64_t *ret_us);
/* "4096", "64kB", "1MB", "2GB": bytes; powers of 1024. */
bool span_parse_size(struct span s, uint64_t *ret_bytes);

#endif
