/*
 * What a statement does to the session, by the words in it.
 *
 *	text --quick look--> plain first word, no suspicious bytes: 0
 *	  |
 *	lex: blanks, comments, strings, $quotes$, "names", words, signs
 *	  |
 *	watch: the few words that matter wherever they stand
 *	  |
 *	rules: what the first word of each statement says (sqlwords.def)
 *
 * Nearly all statements that apps send end at the quick look (sqlquick.c).
 *
 * This is no parser. It may take a harmless statement for a harmful one (a
 * column named set_config); it must not do the opposite. Where two settings
 * of a server would read a text differently ('\' under standard_conforming_
 * strings), or a name is spelled so that we cannot read it (U&"..."), the
 * answer is SQL_UNKNOWN. A text that Postgres would refuse as a whole may get
 * any answer: it has no effect.
 */
#include <stdbool.h>
#include <string.h>

#include "wire/sqlquick.h"
#include "wire/sqlscan.h"

enum token {
	TOKEN_END,
	TOKEN_SEMICOLON,		/* one that ends a statement */
	TOKEN_WORD,
	TOKEN_NAME,			/* "quoted" */
	TOKEN_STRING,			/* 'x', E'x', $$x$$ */
	TOKEN_SIGN,			/* a byte by itself, or a number */
};

/* Where we are in `INTO [LOCAL | GLOBAL] TEMP`. */
enum into { INTO_NONE, INTO_INSERT, INTO_SEEN };

/* Where we are in `set_config(name, value, is_local)`. */
enum call { CALL_NONE, CALL_NAMED, CALL_OPEN };

struct scan {
	const char *at;			/* behind the token */
	const char *end;
	enum token token;
	struct span text;		/* the token's, with its quotes */
	uint32_t effects;
	struct span name;		/* behind DEALLOCATE */

	/* Of the statement at hand: */
	unsigned depth;			/* open parentheses */
	unsigned blocks;		/* open BEGIN ATOMIC and CASE */
	bool may_have_block;		/* it is a CREATE FUNCTION */
	bool after_begin;
	enum into into;
	enum call call;
	unsigned call_depth;		/* parentheses open inside the call */
	unsigned last_len;		/* tokens of its last argument */
	bool last_is_true;
};

/*
 * The lexer.
 */

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What a word starts with, and goes on with (there also digits and $). */
static bool
is_letter(char c)
{
	return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
	    (unsigned char)c >= 0x80;
}

static bool
starts_with(const struct scan *scan, const char *two)
{
	return scan->end - scan->at >= 2 && scan->at[0] == two[0] &&
	    scan->at[1] == two[1];
}

static void
skip_line(struct scan *scan)
{
	while (scan->at < scan->end && *scan->at != '\n' && *scan->at != '\r')
		scan->at++;
}

/* Comments like this one can stand inside one another in SQL. */
static void
skip_block_comment(struct scan *scan)
{
	size_t depth = 0;

	do {
		if (starts_with(scan, "/*")) {
			depth++;
			scan->at += 2;
		} else if (starts_with(scan, "*/")) {
			depth--;
			scan->at += 2;
		} else {
			scan->at++;
		}
	} while (depth > 0 && scan->at < scan->end);
}

static void
skip_blanks(struct scan *scan)
{
	for (;;) {
		while (scan->at < scan->end && is_space(*scan->at))
			scan->at++;
		if (starts_with(scan, "--"))
			skip_line(scan);
		else if (starts_with(scan, "/*"))
			skip_block_comment(scan);
		else
			return;
	}
}

static void
skip_word(struct scan *scan)
{
	while (scan->at < scan->end && (is_letter(*scan->at) ||
	    is_digit(*scan->at) || *scan->at == '$'))
		scan->at++;
}

static void
skip_digits(struct scan *scan)
{
	while (scan->at < scan->end && is_digit(*scan->at))
		scan->at++;
}

/*
 * A plain string. A doubled quote ends it and starts the next one, which
 * comes to the same. A backslash before the quote is just a backslash, or,
 * with standard_conforming_strings off, the quote is not the end.
 */
static void
skip_string(struct scan *scan)
{
	const char *open = scan->at, *close, *at;

	close = memchr(open + 1, '\'', (size_t)(scan->end - open - 1));
	if (close == NULL) {
		scan->at = scan->end;
		return;
	}
	for (at = close; at[-1] == '\\'; at--)
		continue;
	if ((close - at) % 2 != 0)
		scan->effects |= SQL_UNKNOWN;
	scan->at = close + 1;
}

/* E'...', from its quote on: a backslash takes the next byte with it. What
 * follows a doubled quote is escaped like the rest. */
static void
skip_escape_string(struct scan *scan)
{
	for (scan->at++; scan->at < scan->end; scan->at++) {
		if (*scan->at == '\'') {
			scan->at++;
			if (scan->at == scan->end || *scan->at != '\'')
				return;
		} else if (*scan->at == '\\' && scan->end - scan->at > 1) {
			scan->at++;
		}
	}
}

/* "...": a doubled quote belongs to the name. One that is never closed names
 * nothing. */
static enum token
lex_name(struct scan *scan)
{
	const char *close;

	do {
		scan->at++;
		close = memchr(scan->at, '"',
		    (size_t)(scan->end - scan->at));
		if (close == NULL) {
			scan->at = scan->end;
			return TOKEN_STRING;
		}
		scan->at = close + 1;
	} while (scan->at < scan->end && *scan->at == '"');
	return TOKEN_NAME;
}

/* At a $: a parameter $1, a string $tag$...$tag$, or nothing special. */
static enum token
lex_dollar(struct scan *scan)
{
	const char *open = scan->at++, *close;
	size_t len;

	if (scan->at < scan->end && is_digit(*scan->at)) {
		skip_digits(scan);
		return TOKEN_SIGN;
	}
	while (scan->at < scan->end &&
	    (is_letter(*scan->at) || is_digit(*scan->at)))
		scan->at++;
	if (scan->at == scan->end || *scan->at != '$') {
		scan->at = open + 1;
		return TOKEN_SIGN;
	}
	len = (size_t)(++scan->at - open);
	close = memmem(scan->at, (size_t)(scan->end - scan->at), open, len);
	scan->at = close != NULL ? close + len : scan->end;
	return TOKEN_STRING;
}

static enum token
lex_word(struct scan *scan)
{
	const char *open = scan->at;

	skip_word(scan);
	if (scan->at - open > 1 || scan->at == scan->end)
		return TOKEN_WORD;
	if ((*open | 0x20) == 'e' && *scan->at == '\'') {
		skip_escape_string(scan);
		return TOKEN_STRING;
	}
	if ((*open | 0x20) == 'u' && starts_with(scan, "&\"")) {
		/* A name in code points: it may be any. */
		scan->effects |= SQL_UNKNOWN;
		scan->at++;
		return lex_name(scan);
	}
	return TOKEN_WORD;
}

static enum token
lex_sign(struct scan *scan)
{
	char c = *scan->at++;

	if (c == '(')
		scan->depth++;
	else if (c == ')' && scan->depth > 0)
		scan->depth--;
	else if (c == ';' && scan->depth == 0 && scan->blocks == 0)
		return TOKEN_SEMICOLON;
	return TOKEN_SIGN;
}

/* The token that begins here, blanks having been skipped. */
static enum token
lex(struct scan *scan)
{
	if (scan->at == scan->end)
		return TOKEN_END;
	if (is_letter(*scan->at))
		return lex_word(scan);
	switch (*scan->at) {
	case '\'':
		skip_string(scan);
		return TOKEN_STRING;
	case '"':
		return lex_name(scan);
	case '$':
		return lex_dollar(scan);
	}
	if (is_digit(*scan->at)) {
		skip_digits(scan);
		return TOKEN_SIGN;
	}
	return lex_sign(scan);
}

/*
 * The words that matter wherever they stand.
 */

static bool
is_word(const struct scan *scan, const char *word)
{
	return scan->token == TOKEN_WORD && span_is_case(scan->text, word);
}

static bool
is_sign(const struct scan *scan, char sign)
{
	return scan->token == TOKEN_SIGN && *scan->text.at == sign;
}

static bool
is_over(const struct scan *scan)
{
	return scan->token == TOKEN_END || scan->token == TOKEN_SEMICOLON;
}

/*
 * set_config() with a plain TRUE as its last argument ends with the
 * transaction: the usual way to hand a user id to row-level security.
 * Everything else counts as a SET.
 */
static void
watch_call(struct scan *scan)
{
	if (scan->call == CALL_NAMED) {
		if (is_sign(scan, '(')) {
			scan->call = CALL_OPEN;
			scan->call_depth = scan->depth;
			scan->last_len = 0;
		} else {
			scan->effects |= SQL_SET;
			scan->call = CALL_NONE;
		}
	} else if (is_over(scan)) {
		scan->effects |= SQL_SET;
		scan->call = CALL_NONE;
	} else if (scan->depth < scan->call_depth) {
		if (scan->last_len != 1 || !scan->last_is_true)
			scan->effects |= SQL_SET;
		scan->call = CALL_NONE;
	} else if (scan->depth == scan->call_depth && is_sign(scan, ',')) {
		scan->last_len = 0;
	} else {
		scan->last_is_true = is_word(scan, "true");
		scan->last_len++;
	}
}

static void
watch_name(struct scan *scan)
{
	struct span name = scan->text;

	if (scan->token == TOKEN_NAME) {
		name.at++;
		name.len -= 2;
	}
	if (name.len < 6)
		return;
	switch (*name.at | 0x20) {
	case 'c':
	case 'l':
		if (span_is_case(name, "currval") ||
		    span_is_case(name, "lastval"))
			scan->effects |= SQL_LASTVAL;
		break;
	case 'n':
		if (span_is_case(name, "nextval"))
			scan->effects |= SQL_SEQUENCE;
		break;
	case 'p':
		if (span_is_case(name, "pg_settings"))
			scan->effects |= SQL_SET;	/* an UPDATE of it */
		if (span_starts_case(name, "pg_advisory_lock") ||
		    span_starts_case(name, "pg_try_advisory_lock"))
			scan->effects |= SQL_ADVISORY;
		else if (span_is_case(name, "pg_temp"))
			scan->effects |= SQL_TEMP;
		break;
	case 's':
		if (span_is_case(name, "setseed"))
			scan->effects |= SQL_SEED;
		if (span_is_case(name, "setval"))
			scan->effects |= SQL_SEQUENCE;
		if (!span_is_case(name, "set_config"))
			break;
		if (scan->call != CALL_NONE)	/* one inside another */
			scan->effects |= SQL_SET;
		else
			scan->call = CALL_NAMED;
		break;
	}
}

/* SELECT ... INTO TEMP; an INSERT INTO temp is about a table's name. */
static void
watch_into(struct scan *scan)
{
	enum into before = scan->into;

	scan->into = INTO_NONE;
	if (scan->token != TOKEN_WORD)
		return;
	switch (*scan->text.at | 0x20) {
	case 'i':
		if (is_word(scan, "into") && before != INTO_INSERT)
			scan->into = INTO_SEEN;
		else if (is_word(scan, "insert"))
			scan->into = INTO_INSERT;
		break;
	case 'm':
		if (is_word(scan, "merge"))
			scan->into = INTO_INSERT;
		break;
	case 'l':
	case 'g':
		if (is_word(scan, "local") || is_word(scan, "global"))
			scan->into = before;
		break;
	case 't':
		if (before == INTO_SEEN && (is_word(scan, "temp") ||
		    is_word(scan, "temporary")))
			scan->effects |= SQL_TEMP;
		break;
	}
}

/* CREATE FUNCTION ... BEGIN ATOMIC ...; ...; END: semicolons that end no
 * statement of ours. A CASE in there has an END of its own. */
static void
watch_block(struct scan *scan)
{
	bool after_begin = scan->after_begin;

	scan->after_begin = is_word(scan, "begin");
	if (after_begin && is_word(scan, "atomic"))
		scan->blocks++;
	else if (scan->blocks > 0 && is_word(scan, "case"))
		scan->blocks++;
	else if (scan->blocks > 0 && is_word(scan, "end"))
		scan->blocks--;
}

static void
next(struct scan *scan)
{
	skip_blanks(scan);
	scan->text.at = scan->at;
	scan->token = lex(scan);
	scan->text.len = (size_t)(scan->at - scan->text.at);
	if (scan->call != CALL_NONE)
		watch_call(scan);
	if (scan->token == TOKEN_WORD || scan->token == TOKEN_NAME)
		watch_name(scan);
	watch_into(scan);
	if (scan->may_have_block)
		watch_block(scan);
}

/*
 * Rules: called at the first word, they read as far as they want.
 */

static bool
next_is(struct scan *scan, const char *word)
{
	next(scan);
	return is_word(scan, word);
}

static void
rule_plain(struct scan *scan)
{
	(void)scan;
}

/* ISOLATION LEVEL ..., READ ..., [NOT] DEFERRABLE; leaves the scan behind. */
static bool
skip_transaction_mode(struct scan *scan)
{
	bool good;

	if (is_word(scan, "isolation")) {
		if (!next_is(scan, "level"))
			return false;
		if (next_is(scan, "repeatable"))
			good = next_is(scan, "read");
		else if (is_word(scan, "read"))
			good = next_is(scan, "committed") ||
			    is_word(scan, "uncommitted");
		else
			good = is_word(scan, "serializable");
	} else if (is_word(scan, "read")) {
		good = next_is(scan, "only") || is_word(scan, "write");
	} else {
		if (is_word(scan, "not"))
			next(scan);
		good = is_word(scan, "deferrable");
	}
	next(scan);
	return good;
}

/* Behind BEGIN [WORK | TRANSACTION]. */
static void
read_transaction_modes(struct scan *scan)
{
	while (!is_over(scan)) {
		if (!skip_transaction_mode(scan))
			return;
		if (is_sign(scan, ',')) {
			next(scan);
			if (is_over(scan))
				return;
		}
	}
	scan->effects |= SQL_BARE;
}

static void
rule_begin(struct scan *scan)
{
	scan->name = scan->text;
	scan->effects |= SQL_BEGIN;
	next(scan);
	if (is_word(scan, "work") || is_word(scan, "transaction"))
		next(scan);
	read_transaction_modes(scan);
}

static void
rule_start(struct scan *scan)
{
	struct span first = scan->text;

	if (!next_is(scan, "transaction")) {
		scan->effects |= SQL_UNKNOWN;
		return;
	}
	scan->name = first;
	scan->effects |= SQL_BEGIN;
	next(scan);
	read_transaction_modes(scan);
}

static void
rule_end(struct scan *scan)
{
	struct span first = scan->text;

	next(scan);
	if (is_word(scan, "work") || is_word(scan, "transaction"))
		next(scan);
	if (is_word(scan, "prepared"))
		return;			/* somebody else's transaction */
	if (is_word(scan, "to")) {
		scan->effects |= SQL_ROLLBACK_TO;
		return;
	}
	scan->effects |= SQL_END;
	if (is_over(scan)) {
		scan->name = first;
		scan->effects |= SQL_BARE;
	} else if (is_word(scan, "and") && next_is(scan, "chain")) {
		scan->effects |= SQL_BEGIN;
	}
}

/* Are we at LOCAL and the like, and not at a parameter `local.x`? */
static bool
rule_set_is_passing(struct scan *scan)
{
	if (!is_word(scan, "local") && !is_word(scan, "transaction") &&
	    !is_word(scan, "constraints"))
		return false;
	next(scan);
	return !is_sign(scan, '.') && !is_sign(scan, '=');
}

static void
rule_set(struct scan *scan)
{
	bool after_zone = false;

	next(scan);
	if (!rule_set_is_passing(scan))
		scan->effects |= SQL_SET;
	if (is_word(scan, "seed"))
		scan->effects |= SQL_SEED;
	for (; !is_over(scan); next(scan)) {
		if (is_word(scan, "default") ||
		    (after_zone && is_word(scan, "local")))
			scan->effects |= SQL_RESET;
		after_zone = is_word(scan, "zone");
	}
}

static bool
text_has(struct span text, const char *word)
{
	size_t len = strlen(word);

	for (; text.len >= len; text.at++, text.len--)
		if (span_starts_case(text, word))
			return true;
	return false;
}

/* May do anything; but what cannot be asked for afterwards is looked for. */
static void
rule_do(struct scan *scan)
{
	scan->effects |= SQL_UNKNOWN;
	for (next(scan); !is_over(scan); next(scan)) {
		if (scan->token != TOKEN_STRING)
			continue;
		if (text_has(scan->text, "setseed"))
			scan->effects |= SQL_SEED;
		if (text_has(scan->text, "load"))
			scan->effects |= SQL_LOAD;
	}
}

static void
rule_discard(struct scan *scan)
{
	scan->effects |= next_is(scan, "all") ?
	    SQL_DISCARD_ALL : SQL_DISCARD_OTHER;
}

static void
rule_deallocate(struct scan *scan)
{
	struct span name;

	next(scan);
	name = scan->text;
	if (is_word(scan, "prepare")) {
		next(scan);
		if (!is_over(scan))	/* else that is its name */
			name = scan->text;
	}
	if (is_word(scan, "all")) {
		scan->effects |= SQL_DEALLOCATE_ALL;
	} else {
		scan->effects |= SQL_DEALLOCATE;
		scan->name = name;
	}
}

static void
rule_prepare(struct scan *scan)
{
	if (next_is(scan, "transaction")) {
		next(scan);
		if (scan->token == TOKEN_STRING) {
			scan->effects |= SQL_END;
			return;
		}
	}
	scan->effects |= SQL_PREPARE;
}

static void
rule_declare(struct scan *scan)
{
	bool after_with = false;

	for (next(scan); !is_over(scan) && !is_word(scan, "for");
	    next(scan)) {
		if (after_with && is_word(scan, "hold"))
			scan->effects |= SQL_CURSOR_HOLD;
		after_with = is_word(scan, "with");
	}
}

static void
rule_create(struct scan *scan)
{
	next(scan);
	while (is_word(scan, "or") || is_word(scan, "replace") ||
	    is_word(scan, "local") || is_word(scan, "global"))
		next(scan);
	scan->effects |= is_word(scan, "temp") ||
	    is_word(scan, "temporary") ? SQL_TEMP : SQL_DDL;
	/* Elsewhere BEGIN and ATOMIC may be names of tables and types. */
	scan->may_have_block = is_word(scan, "function") ||
	    is_word(scan, "procedure");
}

/*
 * Statements.
 */

static const struct word {
	struct span text;
	void (*rule)(struct scan *scan);
	uint32_t effects;
} words[] = {
#define X(word, rule, effects) \
	{ { #word, sizeof(#word) - 1 }, rule_##rule, (effects) },
#include "wire/sqlwords.def"
#undef X
};

static const struct word *
find_word(struct span text)
{
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (words[i].text.len == text.len &&
		    (*words[i].text.at ^ *text.at) % 0x20 == 0 &&
		    span_eq_case(words[i].text, text))
			return &words[i];
	return NULL;
}

/* (SELECT ...) UNION ... */
static void
skip_open_parentheses(struct scan *scan)
{
	while (is_sign(scan, '('))
		next(scan);
}

/* Behind EXPLAIN, its options or its query in parentheses. */
static void
skip_explain(struct scan *scan)
{
	next(scan);
	if (is_sign(scan, '(')) {
		while (scan->depth > 0 && !is_over(scan))
			next(scan);
		if (!is_over(scan))
			next(scan);
	}
	while (is_word(scan, "analyze") || is_word(scan, "analyse") ||
	    is_word(scan, "verbose"))
		next(scan);
}

static void
scan_first_word(struct scan *scan)
{
	const struct word *word;
	bool explained;

	skip_open_parentheses(scan);
	explained = is_word(scan, "explain") || scan->depth > 0;
	if (is_word(scan, "explain")) {
		/* Counts as what it explains: it may say ANALYZE. One in
		 * another is no SQL, and is not followed into the depths. */
		skip_explain(scan);
		if (is_over(scan))
			return;
		skip_open_parentheses(scan);
	}
	word = scan->token == TOKEN_WORD ? find_word(scan->text) : NULL;
	if (word == NULL) {
		scan->effects |= SQL_UNKNOWN;
		return;
	}
	scan->effects |= word->effects;
	word->rule(scan);
	if (explained)
		scan->effects &= ~(uint32_t)SQL_BARE;
}

/* Moves to the next statement's first token; false at the end. */
static bool
scan_find_statement(struct scan *scan)
{
	scan->depth = scan->blocks = 0;
	scan->may_have_block = scan->after_begin = false;
	do {
		next(scan);
	} while (scan->token == TOKEN_SEMICOLON);
	return scan->token != TOKEN_END;
}

/* From a statement's first token to the semicolon or the end. */
static void
scan_statement(struct scan *scan)
{
	scan_first_word(scan);
	while (!is_over(scan))
		next(scan);
}

static struct scan
scan_of(struct span sql)
{
	const char *at = sql.at != NULL ? sql.at : "";

	return (struct scan){ .at = at, .end = at + sql.len };
}

/* Is this one plain statement with nothing in it to look at? */
static bool
is_plain(const struct scan *start, uint32_t *ret_effects)
{
	struct scan scan = *start;
	const struct word *word;
	struct span text;

	skip_blanks(&scan);
	text.at = scan.at;
	skip_word(&scan);
	text.len = (size_t)(scan.at - text.at);
	if (text.len == 0)
		return false;
	word = find_word(text);
	if (word == NULL || word->rule != rule_plain ||
	    (word->effects & ~(uint32_t)SQL_SEQUENCE) != 0)
		return false;
	*ret_effects = word->effects;
	while (scan.end > scan.at &&
	    (scan.end[-1] == ';' || is_space(scan.end[-1])))
		scan.end--;
	return sqlquick_has_nothing(scan.at, scan.end);
}

uint32_t
sqlscan(struct span sql, struct span *ret_name)
{
	struct scan scan = scan_of(sql);
	unsigned count = 0;

	if (!is_plain(&scan, &scan.effects))
		for (; scan_find_statement(&scan); count++)
			scan_statement(&scan);
	if (count > 1)
		scan.effects |= SQL_SEVERAL;
	if (ret_name != NULL)
		*ret_name = scan.name;
	return scan.effects;
}

bool
sqlscan_next(struct span *rest, struct span *ret_statement)
{
	struct scan scan = scan_of(*rest);
	const char *begin, *end;

	if (!scan_find_statement(&scan)) {
		*rest = (struct span){ scan.end, 0 };
		return false;
	}
	begin = scan.text.at;
	scan_statement(&scan);
	end = scan.text.at;
	*rest = (struct span){ scan.at, (size_t)(scan.end - scan.at) };
	*ret_statement = span_trim(
	    (struct span){ begin, (size_t)(end - begin) });
	return true;
}
