/*
 * Text as pointer and length: comparing, cutting, hashing, and the parsing
 * of numbers as operators write them. The parsers are strict: a setting that
 * is understood half is worse than one that is refused.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/span.h"

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static unsigned char
fold(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

bool
span_eq_case(struct span a, struct span b)
{
	size_t i;

	if (a.len != b.len)
		return false;
	for (i = 0; i < a.len; i++)
		if (fold(a.at[i]) != fold(b.at[i]))
			return false;
	return true;
}

bool
span_is(struct span a, const char *text)
{
	return span_eq(a, span_of(text));
}

bool
span_is_case(struct span a, const char *text)
{
	return span_eq_case(a, span_of(text));
}

bool
span_starts_case(struct span a, const char *prefix)
{
	struct span start = span_of(prefix);

	if (a.len < start.len)
		return false;
	a.len = start.len;
	return span_eq_case(a, start);
}

struct span
span_trim(struct span s)
{
	while (s.len > 0 && is_space(s.at[0])) {
		s.at++;
		s.len--;
	}
	while (s.len > 0 && is_space(s.at[s.len - 1]))
		s.len--;
	return s;
}

bool
span_next(struct span *rest, char sep, struct span *ret_word)
{
	struct span all = span_trim(*rest), word = all;
	size_t i;

	if (all.len == 0) {
		*rest = all;
		return false;
	}
	for (i = 0; i < all.len; i++)
		if (all.at[i] == sep || (sep == ' ' && is_space(all.at[i])))
			break;
	word.len = i;
	if (i < all.len)
		i++;
	*rest = (struct span){ all.at + i, all.len - i };
	*ret_word = span_trim(word);
	return true;
}

/*
 * The hash. Sixteen bytes a step go through one 64x64->128 bit product whose
 * halves are xored: every bit of input reaches every bit of output. All the
 * constants are this process's own random ones: names are the client's to
 * choose, and whoever knows the constants can choose names that collide (a
 * factor of zero forgets everything that came before it).
 */
static struct {
	pthread_once_t once;
	uint64_t word[4];
} hash_key = { .once = PTHREAD_ONCE_INIT };

static _Atomic bool hash_key_ready;

static void
hash_key_draw(void)
{
	unsigned char *at = (unsigned char *)hash_key.word;
	size_t left = sizeof(hash_key.word);

	while (left > 0) {
		ssize_t n = getrandom(at, left, 0);

		check(n > 0 || errno == EINTR);
		if (n > 0) {
			at += n;
			left -= (size_t)n;
		}
	}
	atomic_store_explicit(&hash_key_ready, true, memory_order_release);
}

static uint64_t
hash_mix(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide product = (wide)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Lower case for the eight ASCII bytes of a word at once: bit 7 of a byte
 * of `upper` is set where it is 'A'..'Z', and moves to bit 5. */
static uint64_t
hash_fold(uint64_t word)
{
	const uint64_t each = 0x0101010101010101u;
	uint64_t low = word & 0x7f * each;
	uint64_t upper = (low + (0x80 - 'A') * each) ^
	    (low + (0x7f - 'Z') * each);

	return word | ((upper & ~word & 0x80 * each) >> 2);
}

enum hash_case { HASH_AS_IS, HASH_FOLDED };

static inline uint64_t
hash_load(const char *at, size_t len, enum hash_case how)
{
	uint64_t word = 0;

	memcpy(&word, at, len);
	return how == HASH_FOLDED ? hash_fold(word) : word;
}

static inline uint64_t
hash_bytes(struct span s, enum hash_case how)
{
	const char *at = s.at;
	size_t left = s.len;
	const uint64_t *key = hash_key.word;
	uint64_t a = 0, b = 0, state;

	if (!atomic_load_explicit(&hash_key_ready, memory_order_acquire))
		pthread_once(&hash_key.once, hash_key_draw);
	state = key[0];
	for (; left > 16; at += 16, left -= 16)
		state = hash_mix(hash_load(at, 8, how) ^ key[1],
		    hash_load(at + 8, 8, how) ^ state);
	/* What is left: two words that may overlap, never read outside. */
	if (left >= 8) {
		a = hash_load(at, 8, how);
		b = hash_load(at + left - 8, 8, how);
	} else if (left >= 4) {
		a = hash_load(at, 4, how);
		b = hash_load(at + left - 4, 4, how);
	} else if (left > 0) {
		a = hash_load(at, 1, how) |
		    hash_load(at + left / 2, 1, how) << 8 |
		    hash_load(at + left - 1, 1, how) << 16;
	}
	return hash_mix(key[2] ^ s.len,
	    hash_mix(a ^ key[1], b ^ state) ^ key[3]);
}

uint64_t
span_hash(struct span s)
{
	return hash_bytes(s, HASH_AS_IS);
}

uint64_t
span_hash_case(struct span s)
{
	return hash_bytes(s, HASH_FOLDED);
}

/* Cuts digits off the front: their value, false for none or too many. */
static bool
cut_digits(struct span *s, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < s->len && s->at[i] >= '0' && s->at[i] <= '9'; i++)
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (unsigned)(s->at[i] - '0'),
		    &value))
			return false;
	if (i == 0)
		return false;
	s->at += i;
	s->len -= i;
	*ret = value;
	return true;
}

bool
span_parse_u64(struct span s, uint64_t *ret)
{
	uint64_t value;

	if (!cut_digits(&s, &value) || s.len != 0)
		return false;
	*ret = value;
	return true;
}

bool
span_parse_i64(struct span s, int64_t *ret)
{
	bool negative = s.len > 0 && s.at[0] == '-';
	uint64_t limit = (uint64_t)INT64_MAX + negative;
	uint64_t value;

	if (negative) {
		s.at++;
		s.len--;
	}
	if (!span_parse_u64(s, &value) || value > limit)
		return false;
	/* -(value - 1) - 1: no step leaves the range of the type. */
	*ret = negative && value != 0 ?
	    -(int64_t)(value - 1) - 1 : (int64_t)value;
	return true;
}

bool
span_parse_bool(struct span s, bool *ret)
{
	static const char *const words[][2] = {
		{ "no", "yes" }, { "off", "on" }, { "false", "true" },
		{ "0", "1" },
	};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (span_is_case(s, words[i][0])) {
			*ret = false;
			return true;
		}
		if (span_is_case(s, words[i][1])) {
			*ret = true;
			return true;
		}
	}
	return false;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static bool
find_unit(const struct unit *units, struct span name, uint64_t *ret_factor)
{
	for (; units->name != NULL; units++)
		if (span_is_case(name, units->name)) {
			*ret_factor = units->factor;
			return true;
		}
	return false;
}

/* Digits behind the point, as millionths; what is finer rounds up. */
static bool
cut_fraction(struct span *s, uint64_t *ret_millionths)
{
	uint64_t value = 0;
	bool finer = false;
	size_t i;

	for (i = 0; i < s->len && s->at[i] >= '0' && s->at[i] <= '9'; i++)
		if (i < 6)
			value = value * 10 + (unsigned)(s->at[i] - '0');
		else if (s->at[i] != '0')
			finer = true;
	if (i == 0)
		return false;
	s->at += i;
	s->len -= i;
	for (; i < 6; i++)
		value *= 10;
	*ret_millionths = value + finer;
	return true;
}

bool
span_parse_duration_us(struct span s, uint64_t *ret_us)
{
	static const struct unit units[] = {
		{ "", 1000000 }, { "us", 1 }, { "ms", 1000 },
		{ "s", 1000000 }, { "min", 60000000 },
		{ "h", 3600000000 }, { "d", 86400000000 }, { NULL, 0 },
	};
	uint64_t whole, millionths = 0, unit_us, us;

	if (!cut_digits(&s, &whole))
		return false;
	if (s.len > 0 && s.at[0] == '.') {
		s.at++;
		s.len--;
		if (!cut_fraction(&s, &millionths))
			return false;
	}
	if (!find_unit(units, span_trim(s), &unit_us) ||
	    __builtin_mul_overflow(whole, unit_us, &us) ||
	    __builtin_add_overflow(us,
	    (millionths * unit_us + 999999) / 1000000, &us))
		return false;
	*ret_us = us;
	return true;
}

bool
span_parse_size(struct span s, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 }, { "B", 1 }, { "kB", 1ull << 10 },
		{ "MB", 1ull << 20 }, { "GB", 1ull << 30 },
		{ "TB", 1ull << 40 }, { NULL, 0 },
	};
	uint64_t value, factor, bytes;

	if (!cut_digits(&s, &value) ||
	    !find_unit(units, span_trim(s), &factor) ||
	    __builtin_mul_overflow(value, factor, &bytes))
		return false;
	*ret_bytes = bytes;
	return true;
}
