/*
 * What the text of a statement says about the session. The rows are read as:
 * this text has these effects. Each text is scanned in a block of exactly its
 * size, where the address sanitizer sees one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "wire/sqlscan.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint32_t
scan_exact(const char *sql, struct span *ret_name)
{
	static char name[200];
	size_t len = strlen(sql);
	char *bytes = mem_dup(sql, len);
	struct span found;
	uint32_t effects = sqlscan((struct span){ bytes, len }, &found);

	if (ret_name != NULL) {
		assert_true(found.len < sizeof(name));
		snprintf(name, sizeof(name), "%.*s", SPAN_ARG(found));
		*ret_name = span_of(name);
	}
	mem_free(bytes);
	return effects;
}

struct row {
	const char *sql;
	uint32_t effects;
};

#define BLOCKING (SQL_DDL | SQL_BLOCKS)

/* But for SQL_SEQUENCE, which most of what writes has, and for SQL_MIGRATION,
 * which has tests of its own. */
static void
expect_effect(const char *sql, uint32_t expected)
{
	uint32_t effects = scan_exact(sql, NULL) &
	    ~(uint32_t)(SQL_SEQUENCE | SQL_MIGRATION);

	if (effects != expected)
		fail_msg("'%s' gave %#x, not %#x", sql, effects, expected);
}

/* Each by itself, and behind another statement, whose effect must stay. */
static void
expect_effects(const struct row *rows, size_t count)
{
	struct span rest, statement;
	char *behind;
	size_t i;

	for (i = 0; i < count; i++) {
		rest = span_of(rows[i].sql);
		behind = mem_printf("CLUSTER; %s", rows[i].sql);
		expect_effect(rows[i].sql, rows[i].effects);
		expect_effect(behind, rows[i].effects | BLOCKING |
		    (sqlscan_next(&rest, &statement) ? SQL_SEVERAL : 0));
		mem_free(behind);
	}
}

static void
harmless_statements_have_no_effect(void **state)
{
	static const struct row rows[] = {
		{ "", 0 }, { " ", 0 }, { ";", 0 }, { " ; ;; ", 0 },
		{ "-- nothing", 0 }, { "/* nothing */", 0 },
		{ "SELECT 1", 0 }, { "select 1;", 0 }, { "SELECT 1 ; ; ", 0 },
		{ "/* app */ SELECT 1", 0 }, { "-- x\nSELECT 1", 0 },
		{ "(SELECT 1) UNION (SELECT 2)", 0 }, { "((SELECT 1))", 0 },
		{ "INSERT INTO t VALUES ($1, $2) RETURNING id", 0 },
		{ "UPDATE t SET a = 1", 0 }, { "DELETE FROM t", 0 },
		{ "WITH a AS (SELECT 1) SELECT * FROM a", 0 },
		{ "VALUES (1)", 0 }, { "TABLE t", 0 },
		{ "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
		  0 },
		{ "COPY t TO STDOUT", 0 }, { "SHOW ALL", 0 },
		{ "LOCK TABLE t", 0 }, { "NOTIFY a", 0 }, { "FETCH c", 0 },
		{ "MOVE c", 0 }, { "CLOSE c", 0 }, { "VACUUM", 0 },
		{ "ANALYZE t", 0 }, { "ANALYSE t", 0 }, { "CHECKPOINT", 0 },
		{ "SAVEPOINT a", 0 }, { "RELEASE SAVEPOINT a", 0 },
		{ "DECLARE c CURSOR FOR SELECT 1", 0 },
		{ "SELECT timestamp, template, config, advised FROM t", 0 },
		{ "SELECT a & b FROM u", 0 },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
	assert_int_equal(sqlscan(SPAN_NONE, NULL), 0);
}

static void
first_words_say_what_they_do(void **state)
{
	static const struct row rows[] = {
		{ "LISTEN a", SQL_LISTEN }, { "UNLISTEN *", SQL_UNLISTEN },
		{ "LOAD 'x'", SQL_LOAD }, { "DO $$ BEGIN END $$", SQL_UNKNOWN },
		{ "CALL p()", SQL_UNKNOWN }, { "EXECUTE p", SQL_UNKNOWN },
		{ "DISCARD ALL", SQL_DISCARD_ALL },
		{ "discard /* */ all", SQL_DISCARD_ALL },
		{ "DISCARD PLANS", SQL_DISCARD_OTHER },
		{ "DISCARD SEQUENCES", SQL_DISCARD_OTHER },
		{ "DISCARD TEMP", SQL_DISCARD_OTHER },
		{ "RESET ALL", SQL_SET | SQL_RESET },
		{ "reset work_mem", SQL_SET | SQL_RESET },
		{ "SET a TO DEFAULT", SQL_SET | SQL_RESET },
		{ "SELECT setseed(0.5)", SQL_SEED },
		{ "PREPARE p AS SELECT 1", SQL_PREPARE },
		{ "PREPARE transaction AS SELECT 1", SQL_PREPARE },
		{ "PREPARE TRANSACTION 'x'", SQL_END },
		{ "CREATE TABLE t ()", SQL_DDL },
		{ "CREATE UNLOGGED TABLE t ()", SQL_DDL },
		{ "CREATE OR REPLACE VIEW v AS SELECT 1", BLOCKING },
		{ "CREATE INDEX CONCURRENTLY ON t (a)", SQL_DDL },
		{ "ALTER TABLE t ADD a int", BLOCKING },
		{ "DROP TABLE t", BLOCKING }, { "TRUNCATE t", BLOCKING },
		{ "COMMENT ON TABLE t IS 'x'", SQL_DDL },
		{ "GRANT ALL ON t TO u", SQL_DDL },
		{ "REVOKE ALL ON t FROM u", SQL_DDL },
		{ "REINDEX TABLE t", BLOCKING }, { "CLUSTER t", BLOCKING },
		{ "REFRESH MATERIALIZED VIEW v", BLOCKING },
		{ "SECURITY LABEL ON TABLE t IS 'x'", SQL_DDL },
		{ "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y", SQL_DDL },
		{ "REASSIGN OWNED BY a TO b", BLOCKING },
		{ "FROBNICATE", SQL_UNKNOWN }, { "SELECTED", SQL_UNKNOWN },
		{ "SELEC", SQL_UNKNOWN }, { "\"SELECT\" 1", SQL_UNKNOWN },
		{ "42", SQL_UNKNOWN }, { "'SELECT'", SQL_UNKNOWN },
		{ "\xc3\xa4", SQL_UNKNOWN }, { "$1", SQL_UNKNOWN },
		{ "SELECT$1", SQL_UNKNOWN }, { "(", SQL_UNKNOWN },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

#define BARE_BEGIN (SQL_BEGIN | SQL_BARE)
#define BARE_END (SQL_END | SQL_BARE)

static void
transactions_begin_and_end(void **state)
{
	static const struct row rows[] = {
		{ "BEGIN", BARE_BEGIN }, { "begin;", BARE_BEGIN },
		{ "BEGIN ISOLATION LEVEL SERIALIZABLE", BARE_BEGIN },
		{ "BEGIN WORK ISOLATION LEVEL REPEATABLE READ, READ WRITE "
		  "NOT DEFERRABLE", BARE_BEGIN },
		{ "BEGIN ISOLATION LEVEL READ UNCOMMITTED", BARE_BEGIN },
		{ "BEGIN ISOLATION LEVEL READ WRITE", SQL_BEGIN },
		{ "BEGIN ISOLATION SERIALIZABLE", SQL_BEGIN },
		{ "BEGIN READ ONLY,", SQL_BEGIN },
		{ "BEGIN READ", SQL_BEGIN }, { "BEGIN NOT", SQL_BEGIN },
		{ "BEGIN x", SQL_BEGIN }, { "BEGIN WORK WORK", SQL_BEGIN },
		{ "EXPLAIN BEGIN", SQL_BEGIN }, { "(BEGIN)", SQL_BEGIN },
		{ "START TRANSACTION READ ONLY", BARE_BEGIN },
		{ "START_REPLICATION SLOT a", SQL_UNKNOWN },
		{ "START", SQL_UNKNOWN },
		{ "COMMIT", BARE_END }, { "END", BARE_END },
		{ "END TRANSACTION", BARE_END }, { "ABORT WORK", BARE_END },
		{ "ROLLBACK", BARE_END }, { "ROLLBACK;", BARE_END },
		{ "COMMIT x", SQL_END }, { "EXPLAIN COMMIT", SQL_END },
		{ "COMMIT AND NO CHAIN", SQL_END },
		{ "COMMIT AND CHAIN", SQL_END | SQL_BEGIN },
		{ "ROLLBACK WORK AND CHAIN", SQL_END | SQL_BEGIN },
		{ "ROLLBACK TO a", SQL_ROLLBACK_TO },
		{ "ROLLBACK TRANSACTION TO SAVEPOINT a", SQL_ROLLBACK_TO },
		{ "COMMIT PREPARED 'x'", 0 }, { "ROLLBACK PREPARED 'x'", 0 },
		{ "BEGIN; COMMIT", BARE_BEGIN | BARE_END | SQL_SEVERAL },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
only_what_outlives_the_transaction_is_a_set(void **state)
{
	static const struct row rows[] = {
		{ "SET work_mem = 1", SQL_SET }, { "SET", SQL_SET },
		{ "SET SESSION work_mem TO 1", SQL_SET },
		{ "SET ROLE x", SQL_SET }, { "SET TIME ZONE 'UTC'", SQL_SET },
		{ "SET SESSION AUTHORIZATION x", SQL_SET },
		{ "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
		  SQL_SET },
		{ "SET LOCAL work_mem = 1", 0 }, { "set/**/local a.b = 1", 0 },
		{ "SET TRANSACTION READ ONLY", 0 },
		{ "SET CONSTRAINTS ALL DEFERRED", 0 },
		{ "SET local.x = 1", SQL_SET }, { "SET LOCAL = 1", SQL_SET },
		{ "SET transaction . x TO 1", SQL_SET },
		{ "SET constraints.x TO 1", SQL_SET },
		{ "SET \"local\".x TO 1", SQL_SET },
		{ "SET \"transaction\" TO 1", SQL_SET },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
set_config_counts_unless_it_is_local_for_certain(void **state)
{
	static const struct row rows[] = {
		{ "SELECT set_config('a.b', $1, false)", SQL_SET },
		{ "SELECT SET_CONFIG('a.b', $1, FALSE)", SQL_SET },
		{ "SELECT set_config('a.b', $1, $2)", SQL_SET },
		{ "SELECT set_config('a.b', $1, true)", 0 },
		{ "SELECT pg_catalog.set_config('a', (f(1, 2)), TRUE)", 0 },
		{ "SELECT \"set_config\"('a', 'b', false)", SQL_SET },
		{ "SELECT \"set_config\"('a', 'b', true)", 0 },
		{ "SELECT set_config /* x */ ('a', 'b', false)", SQL_SET },
		{ "SELECT set_config('a', 'b', true), set_config('c', 'd', "
		  "true)", 0 },
		{ "SELECT set_config('a', 'b', true), set_config('c', 'd', "
		  "false)", SQL_SET },
		{ "SELECT set_config('a', set_config('b', 'c', false), true)",
		  SQL_SET },
		{ "SELECT set_config('a', 'b', NOT true)", SQL_SET },
		{ "SELECT set_config('a', 'b', f(true))", SQL_SET },
		{ "SELECT set_config('a', 'b', (true))", SQL_SET },
		{ "SELECT set_config('a', 'b', is_local => true)", SQL_SET },
		{ "SELECT set_config('a', 'b', true", SQL_SET },
		{ "SELECT set_config", SQL_SET },
		{ "SELECT set_config; SELECT 1", SQL_SET | SQL_SEVERAL },
		{ "SELECT set_config set_config('a', 'b', true)", SQL_SET },
		{ "SELECT 'set_config(1, 2, false)'", 0 },
		{ "SELECT $$set_config(1, 2, false)$$", 0 },
		{ "SELECT 1 -- set_config(1, 2, false)", 0 },
		{ "SELECT 1 /* set_config(1, 2, false) */", 0 },
		{ "SELECT my_set_config(1, 2, false)", 0 },
		{ "SELECT set_config_all(1)", 0 },
		{ "INSERT INTO t SELECT set_config('a', 'b', false)",
		  SQL_SET },
		{ "WITH x AS (SELECT set_config('a', 'b', false)) TABLE x",
		  SQL_SET },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
advisory_locks_of_the_session_are_seen(void **state)
{
	static const struct row rows[] = {
		{ "SELECT pg_advisory_lock(72707369)", SQL_ADVISORY },
		{ "SELECT PG_ADVISORY_LOCK(1, 2)", SQL_ADVISORY },
		{ "select pg_catalog.pg_try_advisory_lock($1)",
		  SQL_ADVISORY },
		{ "SELECT pg_advisory_lock_shared(1)", SQL_ADVISORY },
		{ "SELECT pg_try_advisory_lock_shared(1)", SQL_ADVISORY },
		{ "SELECT \"pg_advisory_lock\"(1)", SQL_ADVISORY },
		{ "SELECT 1 WHERE pg_try_advisory_lock(1)", SQL_ADVISORY },
		{ "SELECT pg_advisory_xact_lock(1)", 0 },
		{ "SELECT pg_try_advisory_xact_lock_shared(1)", 0 },
		{ "SELECT pg_advisory_unlock(1)", 0 },
		{ "SELECT pg_advisory_unlock_all()", 0 },
		{ "SELECT 'pg_advisory_lock(1)'", 0 },
		{ "PREPARE p AS SELECT pg_advisory_lock(1)",
		  SQL_PREPARE | SQL_ADVISORY },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
a_copy_that_reads_from_the_client_is_seen(void **state)
{
	static const struct row rows[] = {
		{ "COPY t FROM STDIN", SQL_COPY_IN },
		{ "copy public.t (a, b) from stdin with (format csv)",
		  SQL_COPY_IN },
		{ "COPY t FROM STDOUT", SQL_COPY_IN },
		{ "/* x */ COPY t FROM /* y */ STDIN;", SQL_COPY_IN },
		{ "COPY t TO STDIN", 0 }, { "COPY t TO STDOUT", 0 },
		{ "COPY t FROM 'stdin'", 0 },
		{ "COPY (SELECT a FROM stdin) TO STDOUT", 0 },
		{ "SELECT a FROM stdin", 0 },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
what_moves_a_sequence_on_or_asks_for_it_is_seen(void **state)
{
	static const struct row rows[] = {
		{ "INSERT INTO t VALUES (1)", SQL_SEQUENCE },
		{ "WITH a AS (INSERT INTO t VALUES (1)) TABLE a",
		  SQL_SEQUENCE },
		{ "COPY t FROM 'file'", SQL_SEQUENCE },
		{ "SELECT nextval('a')", SQL_SEQUENCE },
		{ "SELECT pg_catalog.\"setval\"('a', 1)", SQL_SEQUENCE },
		{ "SELECT lastval()", SQL_LASTVAL },
		{ "UPDATE t SET a = CURRVAL('b')", SQL_LASTVAL },
		{ "SELECT 1; SELECT lastval()", SQL_LASTVAL | SQL_SEVERAL },
		{ "SELECT next_val(1), lastvalue, curr", 0 },
		{ "SELECT 'nextval'", 0 }, { "UPDATE t SET a = 1", 0 },
		{ "UPDATE pg_settings SET setting = '1'", SQL_SET },
		{ "SELECT a FROM settings", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (scan_exact(rows[i].sql, NULL) != rows[i].effects)
			fail_msg("'%s' is taken for something else",
			    rows[i].sql);
}

static void
what_a_do_block_does_for_good_is_looked_for(void **state)
{
	static const struct row rows[] = {
		{ "DO $$BEGIN PERFORM setseed(1); END$$",
		  SQL_UNKNOWN | SQL_SEED },
		{ "DO LANGUAGE plpgsql 'BEGIN EXECUTE ''LOAD x''; END'",
		  SQL_UNKNOWN | SQL_LOAD },
		{ "DO $$BEGIN END$$", SQL_UNKNOWN },
		{ "SET seed = 0.5", SQL_SET | SQL_SEED },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
temporary_objects_are_seen(void **state)
{
	static const struct row rows[] = {
		{ "CREATE TEMP TABLE t ()", SQL_TEMP },
		{ "CREATE TEMPORARY SEQUENCE s", SQL_TEMP },
		{ "CREATE LOCAL TEMP TABLE t ()", SQL_TEMP },
		{ "CREATE GLOBAL TEMPORARY TABLE t ()", SQL_TEMP },
		{ "CREATE OR REPLACE TEMP VIEW v AS SELECT 1", SQL_TEMP },
		{ "CREATE TABLE temp ()", SQL_DDL },
		{ "CREATE TABLE pg_temp.t ()", SQL_DDL | SQL_TEMP },
		{ "CREATE TABLE \"pg_temp\".t ()", SQL_DDL | SQL_TEMP },
		{ "SELECT 1 INTO TEMP t", SQL_TEMP },
		{ "SELECT 1 INTO TEMPORARY TABLE t", SQL_TEMP },
		{ "SELECT 1 INTO LOCAL TEMP t", SQL_TEMP },
		{ "WITH a AS (SELECT 1) SELECT * INTO GLOBAL TEMP t FROM a",
		  SQL_TEMP },
		{ "SELECT 1 INTO t", 0 },
		{ "SELECT 1 INTO \"temp\"", 0 },
		{ "INSERT INTO temp SELECT 1", 0 },
		{ "INSERT INTO temp (a) VALUES (1)", 0 },
		{ "MERGE INTO temp USING s ON true WHEN MATCHED THEN DELETE",
		  0 },
		{ "WITH a AS (SELECT 1) INSERT INTO temp SELECT * FROM a", 0 },
		{ "SELECT temp FROM t", 0 }, { "SELECT 'INTO TEMP'", 0 },
		{ "SELECT into_temp FROM pg_temperature", 0 },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
cursors_that_outlive_the_transaction_are_seen(void **state)
{
	static const struct row rows[] = {
		{ "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
		  SQL_CURSOR_HOLD },
		{ "declare c scroll cursor with /**/ hold for select 1",
		  SQL_CURSOR_HOLD },
		{ "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", 0 },
		{ "DECLARE hold CURSOR FOR SELECT 1", 0 },
		{ "DECLARE c CURSOR FOR WITH hold AS (SELECT 1) TABLE hold",
		  0 },
		{ "DECLARE c CURSOR WITH HOLD FOR SELECT pg_advisory_lock(1)",
		  SQL_CURSOR_HOLD | SQL_ADVISORY },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
a_deallocated_name_is_handed_out(void **state)
{
	static const struct {
		const char *sql, *name;
		uint32_t effects;
	} rows[] = {
		{ "DEALLOCATE s1", "s1", SQL_DEALLOCATE },
		{ "deallocate prepare \"a \"\"b\";", "\"a \"\"b\"",
		  SQL_DEALLOCATE },
		{ "DEALLOCATE prepare", "prepare", SQL_DEALLOCATE },
		{ "DEALLOCATE ALL", "", SQL_DEALLOCATE_ALL },
		{ "DEALLOCATE PREPARE ALL", "", SQL_DEALLOCATE_ALL },
		{ "DEALLOCATE \"all\"", "\"all\"", SQL_DEALLOCATE },
		{ "DEALLOCATE a; DEALLOCATE b", "b",
		  SQL_DEALLOCATE | SQL_SEVERAL },
		{ "DEALLOCATE", "", SQL_DEALLOCATE },
		{ "SELECT 1", "", 0 },
	};
	struct span name;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		assert_int_equal(scan_exact(rows[i].sql, &name),
		    rows[i].effects);
		if (!span_is(name, rows[i].name))
			fail_msg("'%s' gave '%.*s'", rows[i].sql,
			    SPAN_ARG(name));
	}
}

static void
every_statement_of_a_text_counts(void **state)
{
	static const struct row rows[] = {
		{ "SELECT 1; SELECT 2", SQL_SEVERAL },
		{ "SELECT 1;;", 0 },
		{ "SELECT 1; SET a = 1", SQL_SEVERAL | SQL_SET },
		{ ";SET a = 1", SQL_SET },
		{ "SELECT 1; -- SET a = 1", 0 },
		{ "SET LOCAL a = 1; SET b = 1", SQL_SEVERAL | SQL_SET },
		{ "CREATE TEMP TABLE a (); DROP TABLE b",
		  SQL_SEVERAL | SQL_TEMP | BLOCKING },
		{ "SELECT (1; SET a = 1", 0 },	/* no SQL: one bad text */
		{ "SELECT 1); SET a = 1", SQL_SEVERAL | SQL_SET },
		{ "CREATE RULE r AS ON INSERT TO t DO (NOTIFY a; NOTIFY b)",
		  BLOCKING },
		{ "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE "
		  "WHEN true THEN 1 END; SELECT 2; END; LISTEN x",
		  SQL_DDL | SQL_SEVERAL | SQL_LISTEN },
		{ "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END; LOAD 'x'",
		  SQL_DDL | SQL_SEVERAL | SQL_LOAD },
		{ "CREATE FUNCTION atomic() RETURNS int AS 'x'; SET x = 1",
		  SQL_DDL | SQL_SEVERAL | SQL_SET },
		{ "CREATE TABLE t (begin atomic); SET x = 1; END",
		  SQL_DDL | SQL_SEVERAL | SQL_SET | BARE_END },
		{ "CREATE TABLE t AS TABLE begin atomic; SET x = 1",
		  SQL_DDL | SQL_SEVERAL | SQL_SET },
		{ "BEGIN; SELECT atomic; SET x = 1",
		  BARE_BEGIN | SQL_SEVERAL | SQL_SET },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
explain_counts_as_what_it_explains(void **state)
{
	static const struct row rows[] = {
		{ "EXPLAIN SELECT 1", 0 },
		{ "EXPLAIN ANALYZE VERBOSE SELECT 1", 0 },
		{ "EXPLAIN (ANALYZE, BUFFERS) SELECT pg_advisory_lock(1)",
		  SQL_ADVISORY },
		{ "EXPLAIN (SELECT 1)", 0 },
		{ "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", SQL_DDL },
		{ "EXPLAIN ANALYSE EXECUTE p", SQL_UNKNOWN },
		{ "EXPLAIN (COSTS off) (SELECT 1)", 0 },
		{ "EXPLAIN (COSTS off) CREATE TABLE t AS SELECT 1", SQL_DDL },
		{ "EXPLAIN", 0 }, { "EXPLAIN (", 0 },
		{ "EXPLAIN (a); SET x = 1", SQL_SET | SQL_SEVERAL },
		{ "EXPLAIN EXPLAIN SELECT 1", SQL_UNKNOWN },
	};
	char *deep = mem_alloc(8 * 1000000 + 1);
	int i;

	(void)state;
	expect_effects(rows, COUNT(rows));
	/* a million of them must not need a million stack frames */
	for (i = 0; i < 1000000; i++)
		memcpy(deep + i * 8, "EXPLAIN ", 8);
	assert_int_equal(sqlscan((struct span){ deep, 8000000 }, NULL),
	    SQL_UNKNOWN);
	memset(deep, '(', 8000000);
	assert_int_equal(sqlscan((struct span){ deep, 8000000 }, NULL),
	    SQL_UNKNOWN);
	mem_free(deep);
}

static void
nothing_hides_behind_quotes_or_comments(void **state)
{
	static const struct row rows[] = {
		/* what looks closed and is not, and the other way round */
		{ "SELECT 'a''; SET x = 1'", 0 },
		{ "SELECT 'a'''; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT E'a\\'; SET x = 1'", 0 },
		{ "SELECT e'a\\\\'; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT E'a'' ; \\' '; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT N'a'; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT B'1'; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT ae'a\\\\'; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT 1e'a\\'; SET x = 1'", 0 },
		{ "SELECT \"a\"\"; SET x = 1\"", 0 },
		{ "SELECT \"a'\"; SET x = 1 --'", SQL_SEVERAL | SQL_SET },
		{ "SELECT $$a'$$; SET x = 1 --'", SQL_SEVERAL | SQL_SET },
		{ "SELECT $a$ $b$ ; $$ ; SET x = 1 $a$", 0 },
		{ "SELECT $a$ $a $a$; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT $a$ $$a$; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT $\xc3\xa4$ ; SET $\xc3\xa4$", 0 },
		{ "SELECT $a1$ ; SET x $a1$", 0 },
		{ "SELECT a$b$; SET x = 1 --$b$", SQL_SEVERAL | SQL_SET },
		{ "SELECT $1; SET x = $1", SQL_SEVERAL | SQL_SET },
		{ "SELECT $1$a$ ; SET x $a$", 0 },
		{ "SELECT $; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "/* /* */ SET x = 1 */ SELECT 1", 0 },
		{ "/* /* */ */ SET x = 1", SQL_SET },
		{ "/*/ SET x = 1 */ SELECT 1; ", 0 },
		{ "SELECT 1 -- '\n; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT 1 -- '\r; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT 1 +-- '\n; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT 1 - 1; SET x = 1", SQL_SEVERAL | SQL_SET },
		{ "SELECT 1 / 1; SET x = 1", SQL_SEVERAL | SQL_SET },
		/* never closed: Postgres refuses the text */
		{ "SELECT '; SET x = 1", 0 }, { "SELECT \"; SET x = 1", 0 },
		{ "SELECT $$; SET x = 1", 0 }, { "SELECT /*; SET x = 1", 0 },
		{ "SELECT 1; SELECT '\\", SQL_SEVERAL },
		{ "SELECT \"pg_advisory_lock  ", 0 },
		{ "SELECT E'; SET x = 1\\", 0 }, { "SELECT 1;'", SQL_SEVERAL |
		  SQL_UNKNOWN },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
what_two_servers_read_differently_is_unknown(void **state)
{
	static const struct row rows[] = {
		/* standard_conforming_strings off: the string goes on */
		{ "SELECT 'a\\'; SELECT '; SET x = 1; --'",
		  SQL_SEVERAL | SQL_UNKNOWN },
		{ "SELECT '\\'; SELECT 1", SQL_SEVERAL | SQL_UNKNOWN },
		{ "SELECT '\\\\'; SELECT 1", SQL_SEVERAL },
		{ "SELECT '\\\\\\'; SELECT 1", SQL_SEVERAL | SQL_UNKNOWN },
		{ "SELECT 'a\\b'; SELECT 1", SQL_SEVERAL },
		/* names in code points */
		{ "SELECT U&\"\\0073et_config\"('a', 'b', false)",
		  SQL_UNKNOWN },
		{ "SELECT u&\"!0073et_config\" UESCAPE '!' ('a', 'b', false)",
		  SQL_UNKNOWN },
		{ "SELECT U&'\\0073'; SELECT 1", SQL_SEVERAL },
		{ "SELECT au&\"b\"; SELECT 1", SQL_SEVERAL },
		{ "SELECT U&\"a\"; LISTEN x",
		  SQL_SEVERAL | SQL_UNKNOWN | SQL_LISTEN },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
	/* where nothing follows, nothing is in it either way */
	expect_effect("SELECT '\\'; ", 0);
}

/* What others have to wait for, and what they have not. */
static void
ddl_blocks_where_it_locks_what_others_use(void **state)
{
	static const struct row rows[] = {
		{ "CREATE INDEX ON t (a)", BLOCKING },
		{ "CREATE UNIQUE INDEX i ON t (a)", BLOCKING },
		{ "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", SQL_DDL },
		{ "DROP INDEX i", BLOCKING },
		{ "DROP INDEX CONCURRENTLY IF EXISTS i", SQL_DDL },
		{ "REINDEX INDEX CONCURRENTLY i", SQL_DDL },
		{ "REINDEX (CONCURRENTLY) INDEX i", SQL_DDL },
		{ "REFRESH MATERIALIZED VIEW CONCURRENTLY v", SQL_DDL },
		{ "CREATE TABLE t (a int PRIMARY KEY)", SQL_DDL },
		{ "CREATE TABLE t (a int REFERENCES u)", BLOCKING },
		{ "CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES u (a))",
		  BLOCKING },
		{ "CREATE TABLE t (a int) PARTITION BY RANGE (a)", SQL_DDL },
		{ "CREATE TABLE t PARTITION OF u DEFAULT", BLOCKING },
		{ "CREATE TABLE t () INHERITS (u)", BLOCKING },
		{ "CREATE VIEW v AS SELECT 1", SQL_DDL },
		{ "CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION f()",
		  BLOCKING },
		{ "CREATE POLICY p ON t", BLOCKING },
		{ "CREATE DATABASE d", SQL_DDL | SQL_DATABASE },
		{ "DROP DATABASE d", SQL_DDL | SQL_DATABASE },
		{ "ALTER ROLE r SET a = 1", SQL_DDL },
		{ "ALTER TABLE t VALIDATE CONSTRAINT c", SQL_DDL },
		{ "ALTER TABLE t VALIDATE CONSTRAINT c, ADD d int", BLOCKING },
		{ "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
		  BLOCKING },
		{ "ALTER TYPE e ADD VALUE 'x'", SQL_DDL },
		{ "DO $$ BEGIN ALTER TABLE t ADD a int; END $$",
		  BLOCKING | SQL_UNKNOWN },
		{ "DO 'BEGIN PERFORM 1; END'", SQL_UNKNOWN },
	};

	(void)state;
	expect_effects(rows, COUNT(rows));
}

static void
what_migration_tools_may_send_is_seen(void **state)
{
	static const char *const seen[] = {
		"SELECT pg_advisory_lock(72707369)",
		"SELECT pg_try_advisory_xact_lock($1)",
		"SELECT * FROM \"_prisma_migrations\"",
		"CREATE TABLE IF NOT EXISTS d.__drizzle_migrations (a int)",
		"DROP TABLE \"SequelizeMeta\"",
		"SELECT version FROM \"schemaversion\"",
		"INSERT INTO \"_yoyo_log\" (id) VALUES (1)",
		"INSERT INTO schema_migrations (version) VALUES ($1)",
		"ALTER TABLE atlas_schema_revisions ADD a int",
		"SELECT 1 FROM pg_class WHERE relname='alembic_version'",
	};
	static const char *const not_seen[] = {
		"SELECT immigrant FROM t GROUP BY a", "DROP TABLE t",
		"SELECT spname, web_id, chang, size FROM small",
		"SELECT you, yoyo FROM average ORDER BY schema_version",
		"SELECT 'a long text, and somewhere in it stands the name "
		"_prisma_migrations' FROM t; SELECT 1",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(seen); i++)
		if ((scan_exact(seen[i], NULL) & SQL_MIGRATION) == 0)
			fail_msg("not seen: %s", seen[i]);
	for (size_t i = 0; i < COUNT(not_seen); i++)
		if (scan_exact(not_seen[i], NULL) & SQL_MIGRATION)
			fail_msg("seen: %s", not_seen[i]);
}

/* The quick look works in steps of sixteen bytes: wherever a word falls, it
 * must be found; and whatever surrounds it, it must not be missed. */
static void
words_are_found_at_every_offset(void **state)
{
	static const struct {
		const char *text;
		uint32_t effects;
	} needles[] = {
		{ ";SET a=1", SQL_SEVERAL | SQL_SET },
		{ " SeT_cOnFiG(a,b,c)", SQL_SET },
		{ " pg_aDVisory_lock(1)", SQL_ADVISORY | SQL_MIGRATION },
		{ " _prisma_miGRations", SQL_MIGRATION },
		{ " \"knex_MIGRATIONS\"", SQL_MIGRATION },
		{ " flyway_schema_history", SQL_MIGRATION },
		{ " databaseCHangelog", SQL_MIGRATION },
		{ " alEMBic_version", SQL_MIGRATION },
		{ " goose_dB_version", SQL_MIGRATION },
		{ " hdb_catalog.x", SQL_MIGRATION },
		{ " \"SequeliZEMeta\"", SQL_MIGRATION },
		{ " priSMa_contract.x", SQL_MIGRATION },
		{ " atlas_sChema_revisions", SQL_MIGRATION },
		{ " drizZle.x", SQL_MIGRATION },
		{ " nsPName", SQL_MIGRATION },
		{ " schemAVersion", SQL_MIGRATION },
		{ " \"infoRMation_schema\"", SQL_MIGRATION },
		{ " pg_catalog.oBJ_description(1)", SQL_MIGRATION },
		{ " \"YOyo_lock\"", SQL_MIGRATION },
		{ " INTO tEMp t", SQL_TEMP },
		{ " pG_TeMP.t", SQL_TEMP },
		{ " U&\"a\"", SQL_UNKNOWN },
		{ " u&\"\"", SQL_UNKNOWN },
	};
	char text[160];
	size_t i, before, after;

	(void)state;
	for (i = 0; i < COUNT(needles); i++)
		for (before = 0; before < 40; before++)
			for (after = 0; after < 40; after++) {
				snprintf(text, sizeof(text), "SELECT%*s%s%*s",
				    (int)before, "", needles[i].text,
				    (int)after, "");
				if (scan_exact(text, NULL) !=
				    needles[i].effects)
					fail_msg("missed: '%s'", text);
			}
}

static void
statements_are_cut_at_their_semicolons(void **state)
{
	struct span rest = SPAN(" ; SELECT ';' ; -- c;\n SET x = 1 /*;*/ ;"
	    "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END ;(SELECT 1)  ");
	static const char *const expected[] = {
		"SELECT ';'", "SET x = 1 /*;*/",
		"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END",
		"(SELECT 1)",
	};
	struct span statement = SPAN("untouched");
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(expected); i++) {
		assert_true(sqlscan_next(&rest, &statement));
		if (!span_is(statement, expected[i]))
			fail_msg("got '%.*s'", SPAN_ARG(statement));
	}
	assert_false(sqlscan_next(&rest, &statement));
	assert_false(sqlscan_next(&rest, &statement));
	assert_int_equal(rest.len, 0);
	rest = SPAN_NONE;
	assert_false(sqlscan_next(&rest, &statement));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(harmless_statements_have_no_effect),
		cmocka_unit_test(first_words_say_what_they_do),
		cmocka_unit_test(transactions_begin_and_end),
		cmocka_unit_test(only_what_outlives_the_transaction_is_a_set),
		cmocka_unit_test(
		    set_config_counts_unless_it_is_local_for_certain),
		cmocka_unit_test(advisory_locks_of_the_session_are_seen),
		cmocka_unit_test(a_copy_that_reads_from_the_client_is_seen),
		cmocka_unit_test(
		    what_moves_a_sequence_on_or_asks_for_it_is_seen),
		cmocka_unit_test(what_a_do_block_does_for_good_is_looked_for),
		cmocka_unit_test(temporary_objects_are_seen),
		cmocka_unit_test(
		    cursors_that_outlive_the_transaction_are_seen),
		cmocka_unit_test(a_deallocated_name_is_handed_out),
		cmocka_unit_test(every_statement_of_a_text_counts),
		cmocka_unit_test(explain_counts_as_what_it_explains),
		cmocka_unit_test(nothing_hides_behind_quotes_or_comments),
		cmocka_unit_test(what_two_servers_read_differently_is_unknown),
		cmocka_unit_test(ddl_blocks_where_it_locks_what_others_use),
		cmocka_unit_test(what_migration_tools_may_send_is_seen),
		cmocka_unit_test(words_are_found_at_every_offset),
		cmocka_unit_test(statements_are_cut_at_their_semicolons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
