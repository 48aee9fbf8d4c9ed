/*
 * The quick look at a statement's text.
 *
 * Goes over it sixteen bytes at a time, for fragments of the words that
 * wire/sqlscan watches for. It knows nothing of quotes and comments and need
 * not: where none of the fragments is, quoted or not, nothing can hide. Each
 * fragment has a pair of letters that is rare in SQL: teMP, aDVis(ory), coNFig,
 * setsEEd, lasTVal, curRVal, pg_settinGS; and for migrate/detect miGRat(ions),
 * schema_History, CHangelog, aleMBic and more (see is_suspicious).
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/span.h"
#include "wire/sqlquick.h"

static bool
bytes_are(const char *at, const char *begin, const char *end, ptrdiff_t back,
    const char *word)
{
	struct span s;

	if (at - begin < back)
		return false;
	s.at = at - back;
	s.len = (size_t)(end - s.at);
	return span_starts_case(s, word);
}

/* Exactly: does one of the fragments stand around this byte? Asked only where
 * may_be_suspicious() has seen this byte and the next one: whatever is looked
 * for here has its pair there. */
static bool
is_suspicious(const char *at, const char *begin, const char *end)
{
	switch (*at | 0x20) {
	case ';':
		return *at == ';';
	case '&':
		return bytes_are(at, begin, end, 1, "u&\"");
	case 'm':
		return bytes_are(at, begin, end, 2, "temp") ||
		    bytes_are(at, begin, end, 3, "alembic");
	case 'd':
		return bytes_are(at, begin, end, 1, "advis");
	case 'n':
		return bytes_are(at, begin, end, 2, "config");
	case 'e':
		return bytes_are(at, begin, end, 4, "setsee");
	case 't':
		return bytes_are(at, begin, end, 3, "lastval") ||
		    bytes_are(at, begin, end, 3, "nextval") ||
		    bytes_are(at, begin, end, 2, "setval");
	case 'r':
		return bytes_are(at, begin, end, 3, "currval") ||
		    bytes_are(at, begin, end, 4, "information_schema");
	case 'g':
		return bytes_are(at, begin, end, 9, "pg_settings") ||
		    bytes_are(at, begin, end, 2, "migrat");
	case '_' | 0x20:
		return bytes_are(at, begin, end, 6, "schema_history");
	case 'c':
		return bytes_are(at, begin, end, 0, "changelog") ||
		    bytes_are(at, begin, end, 7, "atlas_schema");
	case 'b':
		return bytes_are(at, begin, end, 2, "hdb_catalog") ||
		    bytes_are(at, begin, end, 1, "obj_description") ||
		    bytes_are(at, begin, end, 7, "goose_db");
	case 's':
		return bytes_are(at, begin, end, 3, "prisma_");
	case 'z':
		return bytes_are(at, begin, end, 7, "sequelizemeta") ||
		    bytes_are(at, begin, end, 3, "drizzle");
	case 'p':
		return bytes_are(at, begin, end, 2, "nspname");
	case 'a':
		return bytes_are(at, begin, end, 5, "schemaversion");
	case 'y':
		return bytes_are(at, begin, end, 0, "yoyo_");
	default:
		return false;
	}
}

#define BLOCK 16
#define UNDERSCORE ('_' | 0x20)	/* as all is compared */

/* Bytes that are compared all at once, and what comes of it: -1 is true. */
typedef uint8_t bytes_at_once __attribute__((vector_size(BLOCK)));
typedef int8_t answers __attribute__((vector_size(BLOCK)));

/* At which of BLOCK bytes may a fragment stand? Looks at one byte more. False:
 * at none of them. */
static inline bool
may_be_suspicious(const char *at, int8_t ret_where[BLOCK])
{
	bytes_at_once here, next;
	answers hit;
	uint64_t half[BLOCK / sizeof(uint64_t)];

	memcpy(&here, at, BLOCK);
	memcpy(&next, at + 1, BLOCK);
	here |= 0x20;			/* lower case */
	next |= 0x20;
	hit = (here == ';') | (here == '&') |
	    ((here == 'm') & (next == 'p')) |
	    ((here == 'd') & (next == 'v')) |
	    ((here == 'n') & (next == 'f')) |
	    ((here == 'e') & (next == 'e')) |
	    (((here == 't') | (here == 'r') | (here == 'a')) & (next == 'v')) |
	    ((here == 'g') & ((next == 's') | (next == 'r'))) |
	    ((here == UNDERSCORE) & (next == 'h')) |
	    ((here == 'b') & ((next == UNDERSCORE) | (next == 'j'))) |
	    ((here == 'c') & (next == 'h')) |
	    ((here == 'm') & (next == 'b')) |
	    ((here == 's') & (next == 'm')) |
	    ((here == 'z') & ((next == 'e') | (next == 'z'))) |
	    ((here == 'p') & (next == 'n')) |
	    ((here == 'y') & (next == 'o')) |
	    ((here == 'r') & (next == 'm'));
	memcpy(half, &hit, sizeof(half));
	memcpy(ret_where, &hit, BLOCK);
	return (half[0] | half[1]) != 0;
}

bool
sqlquick_has_nothing(const char *begin, const char *end)
{
	char padded[BLOCK + 1] = { 0 };
	int8_t where[BLOCK];
	size_t left = (size_t)(end - begin), n, i;
	const char *at = begin;

	for (; left > 0; at += n, left -= n) {
		n = left < BLOCK ? left : BLOCK;
		if (left <= BLOCK)
			memcpy(padded, at, left);
		if (!may_be_suspicious(left <= BLOCK ? padded : at, where))
			continue;
		for (i = 0; i < n; i++)
			if (where[i] != 0 && is_suspicious(at + i, begin, end))
				return false;
	}
	return true;
}
