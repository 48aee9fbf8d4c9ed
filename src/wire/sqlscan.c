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

#include "wire/sqllex.h"
#include "wire/sqlquick.h"
#include "wire/sqlscan.h"

/* Where we are in `INTO [LOCAL | GLOBAL] TEMP`. */
enum into { INTO_NONE, INTO_INSERT, INTO_SEEN };

/* Where we are in `set_config(name, value, is_local)`. */
enum call { CALL_NONE, CALL_NAMED, CALL_OPEN };

struct scan {
	struct sqllex lex;
	uint32_t effects;
	struct span name;		/* behind DEALLOCATE */

	/* Of the statement at hand: */
	bool may_have_block;		/* it is a CREATE FUNCTION */
	bool after_begin;
	enum into into;
	enum call call;
	unsigned call_depth;		/* parentheses open inside the call */
	unsigned last_len;		/* tokens of its last argument */
	bool last_is_true;
};

/*
 * The words that matter wherever they stand.
 */

static bool
is_word(const struct scan *scan, const char *word)
{
	return sqllex_is_word(&scan->lex, word);
}

static bool
is_sign(const struct scan *scan, char sign)
{
	return sqllex_is_sign(&scan->lex, sign);
}

static bool
is_over(const struct scan *scan)
{
	return sqllex_is_over(&scan->lex);
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
			scan->call_depth = scan->lex.depth;
			scan->last_len = 0;
		} else {
			scan->effects |= SQL_SET;
			scan->call = CALL_NONE;
		}
	} else if (is_over(scan)) {
		scan->effects |= SQL_SET;
		scan->call = CALL_NONE;
	} else if (scan->lex.depth < scan->call_depth) {
		if (scan->last_len != 1 || !scan->last_is_true)
			scan->effects |= SQL_SET;
		scan->call = CALL_NONE;
	} else if (scan->lex.depth == scan->call_depth && is_sign(scan, ',')) {
		scan->last_len = 0;
	} else {
		scan->last_is_true = is_word(scan, "true");
		scan->last_len++;
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

/* What is in the names of tables that migration tools keep their books in, and
 * in questions that some of them begin with; migrate/detect knows more. */
static bool
is_bookkeeping(struct span name)
{
	static const char *const traces[] = {
		"migrat", "schema_history", "changelog", "alembic",
		"goose_db", "atlas_schema", "sequelizemeta", "prisma_",
		"drizzle", "hdb_catalog", "nspname", "schemaversion", "yoyo_",
		"obj_description", "information_schema",
	};

	for (size_t i = 0; i < sizeof(traces) / sizeof(traces[0]); i++)
		if (text_has(name, traces[i]))
			return true;
	return false;
}

/* relname = 'alembic_version': longer than a name is no name. */
static void
watch_string(struct scan *scan)
{
	if (*scan->lex.text.at == '\'' && scan->lex.text.len <= 63 + 2 &&
	    is_bookkeeping(scan->lex.text))
		scan->effects |= SQL_MIGRATION;
}

static void
watch_name(struct scan *scan)
{
	struct span name = scan->lex.text;

	if (scan->lex.token == TOKEN_NAME) {
		name.at++;
		name.len -= 2;
	}
	if (name.len < 6)
		return;
	if (is_bookkeeping(name))
		scan->effects |= SQL_MIGRATION;
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
			scan->effects |= SQL_ADVISORY | SQL_MIGRATION;
		else if (span_starts_case(name, "pg_try_advisory_xact") ||
		    span_starts_case(name, "pg_advisory_xact"))
			scan->effects |= SQL_MIGRATION;
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
	if (scan->lex.token != TOKEN_WORD)
		return;
	switch (*scan->lex.text.at | 0x20) {
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
		scan->lex.blocks++;
	else if (scan->lex.blocks > 0 && is_word(scan, "case"))
		scan->lex.blocks++;
	else if (scan->lex.blocks > 0 && is_word(scan, "end"))
		scan->lex.blocks--;
}

static void
next(struct scan *scan)
{
	sqllex_next(&scan->lex);
	if (scan->lex.doubtful)
		scan->effects |= SQL_UNKNOWN;
	if (scan->call != CALL_NONE)
		watch_call(scan);
	if (scan->lex.token == TOKEN_WORD || scan->lex.token == TOKEN_NAME)
		watch_name(scan);
	else if (scan->lex.token == TOKEN_STRING)
		watch_string(scan);
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
	scan->name = scan->lex.text;
	scan->effects |= SQL_BEGIN;
	next(scan);
	if (is_word(scan, "work") || is_word(scan, "transaction"))
		next(scan);
	read_transaction_modes(scan);
}

static void
rule_start(struct scan *scan)
{
	struct span first = scan->lex.text;

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
	struct span first = scan->lex.text;

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

/* COPY t FROM STDIN; Postgres takes FROM STDOUT for the same. */
static void
rule_copy(struct scan *scan)
{
	bool after_from = false;

	scan->effects |= SQL_SEQUENCE;
	for (next(scan); !is_over(scan); next(scan)) {
		if (after_from && scan->lex.depth == 0 &&
		    (is_word(scan, "stdin") || is_word(scan, "stdout")))
			scan->effects |= SQL_COPY_IN;
		after_from = is_word(scan, "from");
	}
}

/* May do anything; but what cannot be asked for afterwards is looked for. */
static void
rule_do(struct scan *scan)
{
	scan->effects |= SQL_UNKNOWN;
	for (next(scan); !is_over(scan); next(scan)) {
		if (scan->lex.token != TOKEN_STRING)
			continue;
		if (text_has(scan->lex.text, "setseed"))
			scan->effects |= SQL_SEED;
		if (text_has(scan->lex.text, "load"))
			scan->effects |= SQL_LOAD;
		if (text_has(scan->lex.text, "alter") ||
		    text_has(scan->lex.text, "drop") ||
		    text_has(scan->lex.text, "create") ||
		    text_has(scan->lex.text, "truncate"))
			scan->effects |= SQL_DDL | SQL_BLOCKS;
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
	name = scan->lex.text;
	if (is_word(scan, "prepare")) {
		next(scan);
		if (!is_over(scan))	/* else that is its name */
			name = scan->lex.text;
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
		if (scan->lex.token == TOKEN_STRING) {
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

/*
 * What changes the schema. Where it can be told that a statement takes no lock
 * that reading and writing have to wait for, it does not block (SQL_BLOCKS).
 */

/* Is the token at hand one of the words, "a b c"? */
static bool
is_any(const struct scan *scan, const char *words)
{
	struct span rest = span_of(words), word;

	while (span_next(&rest, ' ', &word))
		if (scan->lex.token == TOKEN_WORD &&
		    span_eq_case(scan->lex.text, word))
			return true;
	return false;
}

/* Reads on to the end; is one of the words there? */
static bool
rest_has(struct scan *scan, const char *words)
{
	bool found = false;

	for (; !is_over(scan); next(scan))
		found = found || is_any(scan, words);
	return found;
}

/* CREATE [UNIQUE] INDEX, DROP INDEX, REINDEX, REFRESH: unless CONCURRENTLY. */
static void
rule_unless_concurrently(struct scan *scan)
{
	scan->effects |= SQL_DDL;
	if (!rest_has(scan, "concurrently"))
		scan->effects |= SQL_BLOCKS;
}

/* A new table is nobody's yet, but those that it refers to are. */
static void
read_create_table(struct scan *scan)
{
	bool partition = false;

	for (; !is_over(scan); next(scan)) {
		if (is_any(scan, "references inherits") ||
		    (partition && is_word(scan, "of")))
			scan->effects |= SQL_BLOCKS;
		partition = is_word(scan, "partition");
	}
}

static void
note_database(struct scan *scan)
{
	if (is_word(scan, "database"))
		scan->effects |= SQL_DATABASE;
}

static void
rule_create(struct scan *scan)
{
	bool replace = false;

	for (next(scan); is_any(scan, "or replace local global"); next(scan))
		replace = replace || is_word(scan, "replace");
	if (is_any(scan, "temp temporary")) {
		scan->effects |= SQL_TEMP;
		return;
	}
	scan->effects |= SQL_DDL;
	note_database(scan);
	/* Elsewhere BEGIN and ATOMIC may be names of tables and types. */
	scan->may_have_block = is_any(scan, "function procedure");
	if (is_any(scan, "unique index"))
		rule_unless_concurrently(scan);
	else if (is_any(scan, "table unlogged"))
		read_create_table(scan);
	else if (is_any(scan, "trigger constraint rule policy") ||
	    (replace && is_word(scan, "view")))
		scan->effects |= SQL_BLOCKS;
}

static void
rule_drop(struct scan *scan)
{
	scan->effects |= SQL_DDL;
	next(scan);
	note_database(scan);
	if (is_word(scan, "index"))
		rule_unless_concurrently(scan);
	else if (!is_any(scan, "database role user group function procedure "
	    "aggregate tablespace subscription publication"))
		scan->effects |= SQL_BLOCKS;
}

static void
rule_alter(struct scan *scan)
{
	bool validates = false, more = false;

	scan->effects |= SQL_DDL;
	next(scan);
	note_database(scan);
	if (is_any(scan, "database role user group system default function "
	    "procedure type tablespace subscription publication"))
		return;
	for (; !is_over(scan); next(scan)) {
		validates = validates || is_word(scan, "validate");
		more = more || is_sign(scan, ',') ||
		    is_any(scan, "add drop alter rename set attach detach");
	}
	if (!validates || more)
		scan->effects |= SQL_BLOCKS;
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
		while (scan->lex.depth > 0 && !is_over(scan))
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
	explained = is_word(scan, "explain") || scan->lex.depth > 0;
	if (is_word(scan, "explain")) {
		/* Counts as what it explains: it may say ANALYZE. One in
		 * another is no SQL, and is not followed into the depths. */
		skip_explain(scan);
		if (is_over(scan))
			return;
		skip_open_parentheses(scan);
	}
	word = scan->lex.token == TOKEN_WORD ? find_word(scan->lex.text) : NULL;
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
	scan->lex.depth = scan->lex.blocks = 0;
	scan->may_have_block = scan->after_begin = false;
	do {
		next(scan);
	} while (scan->lex.token == TOKEN_SEMICOLON);
	return scan->lex.token != TOKEN_END;
}

/* From a statement's first token to the semicolon or the end. */
static void
scan_statement(struct scan *scan)
{
	scan_first_word(scan);
	while (!is_over(scan))
		next(scan);
}

/* Is this one plain statement with nothing in it to look at? */
static bool
is_plain(struct sqllex lex, uint32_t *ret_effects)
{
	const struct word *word;
	struct span rest;

	sqllex_skip_to_word(&lex);
	if (lex.text.len == 0)
		return false;
	word = find_word(lex.text);
	if (word == NULL || word->rule != rule_plain ||
	    (word->effects & ~(uint32_t)SQL_SEQUENCE) != 0)
		return false;
	*ret_effects = word->effects;
	rest = (struct span){ lex.at, (size_t)(lex.end - lex.at) };
	do
		rest = span_trim(rest);
	while (rest.len > 0 && rest.at[rest.len - 1] == ';' && rest.len-- > 0);
	return sqlquick_has_nothing(rest.at, rest.at + rest.len);
}

uint32_t
sqlscan(struct span sql, struct span *ret_name)
{
	struct scan scan = { .lex = sqllex_of(sql) };
	unsigned count = 0;

	if (!is_plain(scan.lex, &scan.effects))
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
	struct scan scan = { .lex = sqllex_of(*rest) };
	const char *begin, *end;

	if (!scan_find_statement(&scan)) {
		*rest = (struct span){ scan.lex.end, 0 };
		return false;
	}
	begin = scan.lex.text.at;
	scan_statement(&scan);
	end = scan.lex.text.at;
	*rest = (struct span){ scan.lex.at,
	    (size_t)(scan.lex.end - scan.lex.at) };
	*ret_statement = span_trim(
	    (struct span){ begin, (size_t)(end - begin) });
	return true;
}
