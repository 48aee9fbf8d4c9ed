/*
 * Is this a migration tool?
 *
 * Tools give themselves away by the advisory lock that they take, by the table
 * where they note what they have done, and a few by a statement that nobody
 * else sends (tools.def). The scan of a statement's text has found a word that
 * makes a closer look worth its while (SQL_MIGRATION); here it is taken, and
 * only then: apps' statements hardly ever come here.
 *
 *   lock      pg_advisory_lock(72707369), pg_try_advisory_lock($1) with the key
 *             in the Bind, in a CTE, 64 bits or a text; some keys are computed
 *             from the database's name
 *   books     the table's name as a word, a quoted name or a string (relname =
 *             'alembic_version'); what only reads it may be a status page
 *   statement how it begins
 *
 * An unknown key says nothing: apps take advisory locks for other reasons.
 */
#include "migrate/detect.h"

#include <string.h>

#include "wire/body.h"
#include "wire/sqllex.h"
#include "wire/sqlscan.h"

static const struct tool tools[TOOLS] = {
#define KEY(n)		{ (n), (n), 0, false },
#define KEYS(from, to)	{ (from), (to), 0, false },
#define CRC(factor)	{ 0, 0, (factor), false },
#define CRC_GO		{ 0, 0, 1486364155, true },
#define X(id, name, companions, keys, books, statement, application) \
	[TOOL_##id] = { name, COMPANIONS_##companions, \
	    { keys }, books, statement, application },
#include "migrate/tools.def"
#undef X
};

const struct tool *
tool_of(enum tool_id id)
{
	return &tools[id];
}

/*
 * Keys.
 */

static uint32_t
crc32_of(struct span text, uint32_t crc)
{
	crc = ~crc;
	for (size_t i = 0; i < text.len; i++) {
		crc ^= (unsigned char)text.at[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1)));
	}
	return ~crc;
}

static bool
key_is(const struct tool_key *key, uint64_t value, struct span database)
{
	static const char go_table[] = "public\0schema_migrations";

	if (key->is_go) {
		uint32_t crc = crc32_of((struct span){ go_table,
		    sizeof(go_table) }, 0);
		return value == (uint32_t)(crc32_of(database, crc) *
		    (uint32_t)key->factor);
	}
	if (key->factor != 0)
		return value == key->factor * crc32_of(database, 0);
	return key->to != 0 && value >= key->from && value <= key->to;
}

static const struct tool *
tool_of_key(uint64_t value, struct span database)
{
	for (size_t i = 0; i < TOOLS; i++)
		for (size_t k = 0; k < 2; k++)
			if (key_is(&tools[i].keys[k], value, database))
				return &tools[i];
	return NULL;
}

/* The nth value of a Bind, 1 being the first; as a number. */
static bool
bind_value(struct span bind, uint64_t nth, uint64_t *ret_value)
{
	struct body body = body_of(bind);
	unsigned formats = body_u16(&body);
	bool binary = false;
	int64_t value;

	for (unsigned i = 0; i < formats; i++) {
		unsigned format = body_u16(&body);
		if (i + 1 == nth || formats == 1)
			binary = format == 1;
	}
	unsigned count = body_u16(&body);
	for (unsigned i = 1; i <= count && !body.bad; i++) {
		int32_t len = (int32_t)body_u32(&body);
		struct span bytes = body_bytes(&body,
		    len < 0 ? 0 : (size_t)len);
		if (i != nth || body.bad)
			continue;
		if (!binary) {
			bool good = span_parse_i64(bytes, &value);
			*ret_value = (uint64_t)value;
			return good;
		}
		if (len != 8 && len != 4)
			return false;
		struct body number = body_of(bytes);
		*ret_value = (uint64_t)(int64_t)(int32_t)body_u32(&number);
		if (len == 8)
			*ret_value = *ret_value << 32 | body_u32(&number);
		return true;
	}
	return false;
}

/* Behind the opening parenthesis: a number, a string with one, or $n. */
static bool
read_key(struct sqllex *lex, struct span bind, uint64_t *ret_value)
{
	bool minus = false;
	uint64_t n;
	int64_t value;

	sqllex_next(lex);
	if (sqllex_is_sign(lex, '-')) {
		minus = true;
		sqllex_next(lex);
	}
	struct span text = lex->text;
	if (text.len > 1 && *text.at == '$') {
		text.at++;
		text.len--;
		return span_parse_u64(text, &n) &&
		    bind_value(bind, n, ret_value);
	}
	if (text.len > 2 && lex->token == TOKEN_STRING && *text.at == '\'') {
		text.at++;
		text.len -= 2;
	}
	if (!span_parse_i64(text, &value))
		return false;
	*ret_value = minus ? 0 - (uint64_t)value : (uint64_t)value;
	return true;
}

static bool
is_lock(const struct sqllex *lex)
{
	return lex->token == TOKEN_WORD && lex->text.len >= 16 &&
	    (span_starts_case(lex->text, "pg_advisory_") ||
	    span_starts_case(lex->text, "pg_try_advisory_")) &&
	    !span_starts_case(lex->text, "pg_advisory_unlock");
}

/*
 * Books.
 */

static struct span
name_of(const struct sqllex *lex)
{
	struct span name = lex->text;

	if (lex->token == TOKEN_WORD)
		return name;
	if ((lex->token != TOKEN_NAME && lex->token != TOKEN_STRING) ||
	    name.len < 3 || (*name.at != '"' && *name.at != '\''))
		return SPAN_NONE;
	return (struct span){ name.at + 1, name.len - 2 };
}

static bool
book_is(struct span book, struct span name)
{
	if (book.at[book.len - 1] != '*')
		return span_eq_case(book, name);
	book.len--;
	return name.len >= book.len && span_eq_case(book,
	    (struct span){ name.at, book.len });
}

static const struct tool *
tool_of_books(const struct sqllex *lex)
{
	struct span name = name_of(lex);

	if (name.len < 9)
		return NULL;
	for (size_t i = 0; i < TOOLS; i++) {
		struct span books = span_of(tools[i].books), word;
		while (span_next(&books, ' ', &word))
			if (book_is(word, name))
				return &tools[i];
	}
	return NULL;
}

/* Does a statement that begins with this word leave everything as it is? */
static bool
is_reading(const struct sqllex *lex)
{
	return sqllex_is_word(lex, "select") || sqllex_is_word(lex, "with") ||
	    sqllex_is_word(lex, "table") || sqllex_is_word(lex, "explain") ||
	    sqllex_is_word(lex, "copy") || sqllex_is_word(lex, "show");
}

/*
 * Statements.
 */

/* Does the text begin with that, blanks being equal? */
static bool
begins_with(struct span sql, const char *text)
{
	struct sqllex a = sqllex_of(sql), b = sqllex_of(span_of(text));

	for (;;) {
		sqllex_next(&a);
		sqllex_next(&b);
		if (b.token == TOKEN_END)
			return true;
		if (a.token != b.token || !span_eq_case(a.text, b.text))
			return false;
	}
}

static const struct tool *
tool_of_statement(struct span sql)
{
	for (size_t i = 0; i < TOOLS; i++)
		if (tools[i].statement != NULL &&
		    begins_with(sql, tools[i].statement))
			return &tools[i];
	return NULL;
}

enum detected
detect_statement(struct span sql, struct span bind, struct span database,
    const struct tool **ret_tool)
{
	const struct tool *tool = tool_of_statement(sql);
	enum detected detected = DETECTED_NOTHING;
	struct sqllex lex = sqllex_of(sql);
	bool first = true, reading = true;
	uint64_t key;

	if (tool != NULL) {
		*ret_tool = tool;
		return DETECTED_READING;
	}
	for (;;) {
		sqllex_next(&lex);
		if (lex.token == TOKEN_END)
			return detected;
		if (first && lex.token != TOKEN_SEMICOLON)
			reading = is_reading(&lex);
		first = lex.token == TOKEN_SEMICOLON;
		tool = NULL;
		if (is_lock(&lex)) {
			sqllex_next(&lex);
			bool is_key = sqllex_is_sign(&lex, '(') &&
			    read_key(&lex, bind, &key);
			sqllex_next(&lex);
			/* Two numbers are another lock. */
			if (is_key && !sqllex_is_sign(&lex, ','))
				tool = tool_of_key(key, database);
			reading = reading && tool == NULL;
		} else {
			tool = tool_of_books(&lex);
		}
		if (tool == NULL)
			continue;
		*ret_tool = tool;
		if (!reading)
			return DETECTED_WRITING;
		detected = DETECTED_READING;
	}
}

const struct tool *
detect_application(struct span application_name)
{
	for (size_t i = 0; i < TOOLS; i++)
		if (tools[i].application != NULL && span_starts_case(
		    application_name, tools[i].application))
			return &tools[i];
	return NULL;
}

bool
detect_does(struct span sql, uint32_t effect)
{
	struct span rest = sql, statement;
	const struct tool *tool;

	while (sqlscan_next(&rest, &statement)) {
		uint32_t effects = sqlscan(statement, NULL);
		if (effects & effect && ((effects & SQL_MIGRATION) == 0 ||
		    detect_statement(statement, SPAN_NONE, SPAN_NONE, &tool) ==
		    DETECTED_NOTHING))
			return true;
	}
	return false;
}

/*
 * Names.
 */

/* Behind which words does the name of a table or view come? */
static bool
is_before_name(const struct sqllex *lex)
{
	static const char *const words[] = {
		"table", "on", "references", "view", "truncate", "only",
		"exists", "of", "inherits", "from",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (sqllex_is_word(lex, words[i]))
			return true;
	return false;
}

static bool
names_have(struct span names, struct span name)
{
	while (names.len > 0) {
		struct span each = { names.at, strlen(names.at) };
		if (span_eq_case(each, name))
			return true;
		names.at += each.len + 1;
		names.len -= each.len + 1;
	}
	return false;
}

size_t
detect_names(struct span sql, char *names, size_t len, size_t size)
{
	struct sqllex lex = sqllex_of(sql);
	bool before = false, dotted = false;
	struct span name = SPAN_NONE;

	/* a, "b".c, ... : of a dotted name the last part counts. */
	for (;;) {
		sqllex_next(&lex);
		bool is_name = lex.token == TOKEN_NAME ||
		    (lex.token == TOKEN_WORD && !is_before_name(&lex));
		if (is_name && (before || dotted)) {
			name = name_of(&lex);
			before = dotted = false;
			continue;
		}
		dotted = name.len > 0 && sqllex_is_sign(&lex, '.');
		if (dotted)
			continue;
		if (name.len > 0 && name.len < size - len &&
		    !names_have((struct span){ names, len }, name)) {
			memcpy(names + len, name.at, name.len);
			len += name.len;
			names[len++] = '\0';
		}
		/* DROP TABLE a, b */
		before = is_before_name(&lex) ||
		    (name.len > 0 && sqllex_is_sign(&lex, ','));
		name = SPAN_NONE;
		if (lex.token == TOKEN_END)
			return len;
	}
}

static bool
is_part_of_name(char c)
{
	return c == '_' || c == '$' || (c >= '0' && c <= '9') ||
	    ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
	    (unsigned char)c >= 0x80;
}

static bool
mentions(struct span sql, struct span name)
{
	for (size_t i = 0; i + name.len <= sql.len; i++)
		if (span_eq_case((struct span){ sql.at + i, name.len },
		    name) && (i == 0 || !is_part_of_name(sql.at[i - 1])) &&
		    (i + name.len == sql.len ||
		    !is_part_of_name(sql.at[i + name.len])))
			return true;
	return false;
}

bool
detect_mentions(struct span sql, struct span names)
{
	while (names.len > 0) {
		struct span name = { names.at, strlen(names.at) };
		if (mentions(sql, name))
			return true;
		names.at += name.len + 1;
		names.len -= name.len + 1;
	}
	return false;
}
