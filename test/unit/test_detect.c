/*
 * How migration tools give themselves away. The statements are what the tools
 * have been seen to send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "migrate/detect.h"
#include "wire/sqlscan.h"

/* "name reading", "name writing", or "nobody". What is found is in the scan's
 * effects, or nobody would have looked. */
static const char *
seen_in(const char *sql, struct span bind, const char *database)
{
	static char text[64];
	const struct tool *tool = NULL;
	enum detected detected = detect_statement(span_of(sql), bind,
	    span_of(database), &tool);

	if (detected == DETECTED_NOTHING)
		return "nobody";
	if ((sqlscan(span_of(sql), NULL) & SQL_MIGRATION) == 0)
		fail_msg("the scan does not see it: %s", sql);
	snprintf(text, sizeof(text), "%s %s", tool->name,
	    detected == DETECTED_READING ? "reading" : "writing");
	return text;
}

static const char *
seen(const char *sql)
{
	return seen_in(sql, SPAN_NONE, "tools");
}

struct row {
	const char *sql;
	const char *expected;
};

static void
expect(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(seen(rows[i].sql), rows[i].expected) != 0)
			fail_msg("%s: %s, not %s", rows[i].sql,
			    seen(rows[i].sql), rows[i].expected);
}
#define EXPECT(rows) expect(rows, sizeof(rows) / sizeof((rows)[0]))

/* Of a Bind, behind its names: values and, if not NULL, their formats. */
static struct span
bind_of(struct buf *out, const char *formats, unsigned count,
    const struct span *values)
{
	size_t format_count = formats != NULL ? strlen(formats) : 0;

	buf_clear(out);
	buf_add(out, (char[]){ 0, (char)format_count }, 2);
	for (size_t i = 0; i < format_count; i++)
		buf_add(out, (char[]){ 0, (char)(formats[i] - '0') }, 2);
	buf_add(out, (char[]){ 0, (char)count }, 2);
	for (unsigned i = 0; i < count; i++) {
		buf_add(out, (char[]){ 0, 0, 0, (char)values[i].len }, 4);
		buf_add_span(out, values[i]);
	}
	buf_add(out, (char[]){ 0, 0 }, 2);
	return buf_span(out);
}

static void
the_lock_of_every_tool_is_known(void **state)
{
	static const struct { const char *key, *name; } keys[] = {
		{ "72707369", "prisma" },
		{ "7241865325823964", "node-pg-migrate" },
		{ "4727445306447283", "graphile-migrate" },
		{ "3853314791062309107", "kysely" },
		{ "77429560795513", "flyway" },
		{ "77431708279161", "flyway" },
		{ "77433855762808", "flyway" },
		{ "8095386071473213275", "rails" },
		{ "1875283015", "golang-migrate" },
		{ "4097083626", "goose" },
		{ "2686470616", "atlas" }, { "361947982", "atlas" },
		{ "9628173550095224", "tern" },
		{ "4047693033765451890", "sqlx" },
		{ "12388221127840347", "pgroll" },
		{ "75474063", "sqitch" },
	};
	static const char *const forms[] = {
		"SELECT pg_advisory_lock(%s)",
		"select PG_TRY_ADVISORY_LOCK( %s ) as locked",
		"SELECT pg_try_advisory_xact_lock('%s')",
		"SELECT pg_catalog.pg_advisory_lock(%s::bigint);",
		"/* x */ SELECT 1; SELECT pg_advisory_lock_shared(%s)",
		"with a as (select set_config('lock_timeout', '3600000', "
		"true)) select pg_advisory_lock(%s) from a",
		"DO $$begin end$$; SELECT pg_advisory_xact_lock(/**/%s)",
	};
	char sql[256], expected[64];

	(void)state;
	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
		snprintf(expected, sizeof(expected), "%s writing",
		    keys[k].name);
		for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
			snprintf(sql, sizeof(sql), forms[f], keys[k].key);
			expect(&(struct row){ sql, expected }, 1);
		}
	}
}

static void
a_key_may_be_computed_from_the_databases_name(void **state)
{
	(void)state;
	/* As it was seen: its database was "tool_rails". */
	assert_string_equal(seen_in("SELECT pg_try_advisory_lock("
	    "3315673981631958870)", SPAN_NONE, "tool_rails"), "rails writing");
	assert_string_equal(seen("SELECT pg_try_advisory_lock("
	    "3315673981631958870)"), "nobody");
	assert_string_equal(seen_in("SELECT pg_advisory_lock(1787120056)",
	    SPAN_NONE, "app"), "golang-migrate writing");
	assert_string_equal(seen_in("SELECT pg_advisory_lock("
	    "3469795979745788610)", SPAN_NONE, "app"), "sqlx writing");
}

static void
a_key_may_be_a_value_of_the_bind(void **state)
{
	static const char sql[] = "select pg_try_advisory_lock($1) as locked";
	static const char second[] = "select $1::text, pg_advisory_lock($2)";
	/* 4727445306447283 */
	const struct span binary = { "\000\020\313\226\042\057\225\263", 8 };
	const struct span narrow = { "\004\125\155\051", 4 };	/* 72707369 */
	const struct span text = SPAN("4727445306447283");
	struct buf out = { 0 };

	(void)state;
	assert_string_equal(seen_in(sql, bind_of(&out, NULL, 1, &text), "a"),
	    "graphile-migrate writing");
	assert_string_equal(seen_in(sql, bind_of(&out, "0", 1, &text), "a"),
	    "graphile-migrate writing");
	assert_string_equal(seen_in(sql, bind_of(&out, "1", 1, &narrow), "a"),
	    "prisma writing");
	assert_string_equal(seen_in(second, bind_of(&out, "01", 2,
	    (struct span[]){ SPAN("x"), narrow }), "a"), "prisma writing");
	assert_string_equal(seen_in(second, bind_of(&out, "1", 2,
	    (struct span[]){ SPAN("x"), narrow }), "a"), "prisma writing");
	assert_string_equal(seen_in(second, bind_of(&out, "10", 2,
	    (struct span[]){ SPAN("x"), narrow }), "a"), "nobody");
	assert_string_equal(seen_in(sql, bind_of(&out, "1", 1, &binary), "a"),
	    "graphile-migrate writing");
	/* No such value, or none at all. */
	assert_string_equal(seen_in("select pg_advisory_lock($3)",
	    bind_of(&out, NULL, 1, &text), "a"), "nobody");
	assert_string_equal(seen_in("select pg_advisory_lock($0)",
	    bind_of(&out, NULL, 1, &text), "a"), "nobody");
	assert_string_equal(seen(sql), "nobody");
	assert_string_equal(seen_in(sql, bind_of(&out, "1", 1,
	    &(struct span){ "abc", 3 }), "a"), "nobody");
	/* Cut anywhere. */
	struct span whole = bind_of(&out, "0", 1, &text);
	for (size_t len = 0; len < whole.len - 2; len++)
		assert_string_equal(seen_in(sql, (struct span){ whole.at,
		    len }, "a"), "nobody");
	buf_finish(&out);
}

static void
other_locks_are_an_apps(void **state)
{
	static const struct row rows[] = {
		{ "SELECT pg_advisory_lock(4711)", "nobody" },
		{ "SELECT pg_advisory_lock(-72707369)", "nobody" },
		{ "SELECT pg_advisory_lock(727073690)", "nobody" },
		/* Two halves are another lock. */
		{ "SELECT pg_advisory_lock(72707369, 1)", "nobody" },
		{ "SELECT pg_advisory_lock(1, 72707369)", "nobody" },
		{ "SELECT pg_advisory_lock(hashtext('72707369'))", "nobody" },
		{ "SELECT pg_advisory_lock('x')", "nobody" },
		{ "SELECT pg_advisory_lock(", "nobody" },
		{ "SELECT pg_advisory_lock", "nobody" },
		{ "SELECT pg_advisory_lock(99999999999999999999)", "nobody" },
		{ "SELECT my_pg_advisory_lock(72707369)", "nobody" },
		{ "SELECT 'pg_advisory_lock(72707369)'", "nobody" },
		{ "-- pg_advisory_lock(72707369)\nSELECT 1", "nobody" },
		{ "SELECT pg_advisory_unlock(72707369)", "nobody" },
		{ "SELECT pg_advisory_unlock_shared(72707369)", "nobody" },
		{ "SELECT * FROM pg_locks WHERE objid = 72707369", "nobody" },
	};

	(void)state;
	EXPECT(rows);
}

/* Every word of every row, in every way a table may be written. */
static void
the_books_of_every_tool_are_known(void **state)
{
	static const struct { const char *form, *what; } forms[] = {
		{ "SELECT * FROM %s", "reading" },
		{ "select 1 from public.\"%s\" limit 1", "reading" },
		{ "SELECT 1 FROM pg_class WHERE relname = '%s'", "reading" },
		{ "WITH a AS (SELECT 1) SELECT * FROM %s", "reading" },
		{ "BEGIN; INSERT INTO %s VALUES (1)", "writing" },
		{ "update \"%s\" set a = 1", "writing" },
		{ "CREATE TABLE IF NOT EXISTS %s (a int)", "writing" },
		{ "SELECT * FROM t; DELETE FROM %s", "writing" },
	};
	char sql[256], expected[64];
	unsigned count = 0;

	(void)state;
	for (size_t t = 0; t < TOOLS; t++) {
		const struct tool *tool = tool_of((enum tool_id)t);
		struct span books = span_of(tool->books), word;
		while (span_next(&books, ' ', &word)) {
			char name[64];
			snprintf(name, sizeof(name), "%.*s", SPAN_ARG(word));
			count++;
			for (size_t f = 0; f < sizeof(forms) /
			    sizeof(forms[0]); f++) {
				snprintf(sql, sizeof(sql), forms[f].form,
				    name);
				snprintf(expected, sizeof(expected), "%s %s",
				    tool->name, forms[f].what);
				expect(&(struct row){ sql, expected }, 1);
			}
		}
	}
	assert_true(count >= 20);
}

static void
names_that_are_like_books_are_none(void **state)
{
	static const struct row rows[] = {
		{ "SELECT * FROM my_prisma_migrations", "nobody" },
		{ "SELECT * FROM _prisma_migrations_old", "nobody" },
		{ "SELECT * FROM \"_prisma_migrations \"", "nobody" },
		{ "SELECT 'see _prisma_migrations'", "nobody" },
		{ "SELECT * FROM a -- _prisma_migrations", "nobody" },
		{ "SELECT $$_prisma_migrations$$", "nobody" },
		{ "SELECT * FROM migrations", "nobody" },
		{ "INSERT INTO birds (migration) VALUES ('north')", "nobody" },
		{ "ALTER TABLE accounts ADD COLUMN a int", "nobody" },
		{ "", "nobody" },
		{ "\"", "nobody" },
		{ "SELECT \"_prisma_migrations", "nobody" },
		{ "SELECT * FROM yoyo_locks", "nobody" },
		{ "SELECT * FROM yoyo_tm", "nobody" },
		{ "SELECT * FROM my_yoyo_tmp_a", "nobody" },
		{ "SELECT schemaversions FROM versions", "nobody" },
		{ "SELECT * FROM information_schema.tables WHERE table_schema "
		  "= 'public'", "nobody" },
		{ "SELECT table_name, pg_catalog.obj_description(1)",
		  "nobody" },
	};

	(void)state;
	EXPECT(rows);
}

static void
tools_of_javascript_are_told_by_what_they_send(void **state)
{
	static const struct row rows[] = {
		{ "SELECT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = "
		  "$1), version(), current_setting('server_version_num')::"
		  "integer as numeric_version;", "prisma reading" },
		{ "CREATE SCHEMA IF NOT EXISTS \"drizzle\"",
		  "drizzle reading" },
		{ "CREATE TABLE IF NOT EXISTS \"drizzle\"."
		  "\"__drizzle_migrations\" ( id SERIAL PRIMARY KEY, hash "
		  "text NOT NULL, created_at bigint )", "drizzle writing" },
		{ "SELECT n.nspname AS table_schema, \n\tc.relname AS "
		  "table_name, \n CASE WHEN c.relkind = 'r' THEN 'table' WHEN "
		  "c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN "
		  "'materialized_view' END AS type, c.relrowsecurity AS "
		  "rls_enabled FROM pg_catalog.pg_class c JOIN pg_catalog."
		  "pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind "
		  "IN ('r', 'v', 'm') AND n.nspname = 'public';",
		  "drizzle reading" },
		{ "create schema if not exists graphile_migrate; create "
		  "table if not exists graphile_migrate.migrations ( hash "
		  "text primary key)", "graphile-migrate writing" },
		{ "select * from \"knex_migrations_lock\"", "knex reading" },
		{ "update \"knex_migrations_lock\" set \"is_locked\" = $1 "
		  "where \"is_locked\" = $2", "knex writing" },
		{ "select \"id\" from \"kysely_migration_lock\" where \"id\" "
		  "= $1", "kysely reading" },
		{ "with set_timeout as ( select set_config('lock_timeout', "
		  "'3600000', true) as config_val ) select pg_advisory_lock("
		  "3853314791062309107) from set_timeout", "kysely writing" },
		{ "SELECT pg_try_advisory_lock(7241865325823964) AS "
		  "\"lockObtained\"", "node-pg-migrate writing" },
		{ "SELECT table_name FROM information_schema.tables WHERE "
		  "table_schema = 'public' AND table_name = 'SequelizeMeta'",
		  "sequelize reading" },
		{ "SELECT * FROM \"migrations\" \"migrations\" ORDER BY "
		  "\"id\" DESC", "typeorm reading" },
		{ "SELECT * FROM \"information_schema\".\"tables\" WHERE "
		  "\"table_schema\" = $1 AND \"table_name\" = $2",
		  "typeorm reading" },
		{ "SELECT table_name FROM information_schema.tables WHERE "
		  "table_name = 'migrations' AND table_schema = 'public'",
		  "db-migrate reading" },
		{ "SELECT column_name\n FROM INFORMATION_SCHEMA.COLUMNS \n "
		  "WHERE table_name = 'schemaversion'", "postgrator reading" },
		{ "INSERT INTO \"schemaversion\" (version) VALUES (0)",
		  "postgrator writing" },
		{ "select table_name, table_schema as schema_name, (select "
		  "pg_catalog.obj_description(c.oid) from pg_catalog."
		  "pg_class c\n where c.oid = (select ('\"' || table_schema || "
		  "'\".\"' || table_name || '\"')::regclass::oid))",
		  "mikro-orm reading" },
		{ "create table \"public\".\"mikro_orm_migrations\" (\"id\" "
		  "serial primary key)", "mikro-orm writing" },
	};

	(void)state;
	EXPECT(rows);
}

static void
tools_of_other_languages_are_told_likewise(void **state)
{
	static const struct row rows[] = {
		{ "select relname from pg_class c join pg_namespace n on "
		  "n.oid=c.relnamespace where pg_catalog.pg_table_is_visible"
		  "(c.oid) and relname='alembic_version'", "alembic reading" },
		{ "SELECT alembic_version.version_num\nFROM alembic_version",
		  "alembic reading" },
		{ "CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT "
		  "NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY "
		  "(version_num) )", "alembic writing" },
		{ "create table if not exists public.schema_migrations "
		  "(version varchar primary key)", "dbmate reading" },
		{ "select version from public.schema_migrations order by "
		  "version desc", "schema_migrations reading" },
		{ "CREATE TABLE \"django_migrations\" (\"id\" serial NOT NULL "
		  "PRIMARY KEY, \"app\" varchar(255) NOT NULL, \"name\" "
		  "varchar(255) NOT NULL, \"applied\" timestamp with time "
		  "zone NOT NULL)", "django writing" },
		{ "\n SELECT c.relname,\n CASE WHEN c.relispartition THEN 'p' "
		  "WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END\n FROM "
		  "pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n "
		  "ON n.oid = c.relnamespace WHERE c.relkind IN ('f', 'm') "
		  "AND n.nspname NOT IN ('pg_catalog', 'pg_toast')",
		  "django reading" },
		{ "SELECT \"django_migrations\".\"id\", "
		  "\"django_migrations\".\"app\" FROM \"django_migrations\"",
		  "django reading" },
		{ "SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n "
		  "ON n.oid = c.relnamespace WHERE n.nspname = ANY "
		  "(current_schemas(false)) AND c.relname = "
		  "'schema_migrations' AND c.relkind IN ('r','p')",
		  "schema_migrations reading" },
		{ "create table if not exists \"gorp_migrations\" (\"id\" "
		  "text not null primary key, \"applied_at\" timestamp with "
		  "time zone)", "sql-migrate writing" },
		{ "SELECT pg_try_advisory_lock(75474063)", "sqitch writing" },
		{ "CREATE TABLE \"yoyo_lock\" (locked INT DEFAULT 1, ctime "
		  "TIMESTAMP,pid INT NOT NULL,PRIMARY KEY (locked))",
		  "yoyo writing" },
		{ "DROP TABLE \"yoyo_tmp_Vw78TDxqWV\"", "yoyo writing" },
		{ "SELECT migration_hash FROM \"_yoyo_migration\" ORDER by "
		  "applied_at_utc", "yoyo reading" },
		{ "select tablename from pg_catalog.pg_tables where "
		  "tablename = 'databasechangeloglock'",
		  "liquibase reading" },
		{ "SELECT COUNT(*) FROM public.databasechangeloglock",
		  "liquibase reading" },
	};

	(void)state;
	EXPECT(rows);
}

static void
an_application_is_known_by_how_its_name_begins(void **state)
{
	static const struct { const char *application, *tool; } rows[] = {
		{ "Flyway by Redgate", "flyway" }, { "flyway", "flyway" },
		{ "tern", "tern" }, { "pgroll", "pgroll" },
		{ "my Flyway", NULL }, { "ter", NULL }, { "", NULL },
		{ "psql", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct tool *tool = detect_application(
		    span_of(rows[i].application));
		if (rows[i].tool == NULL)
			assert_null(tool);
		else
			assert_string_equal(tool->name, rows[i].tool);
	}
}

static void
ddl_on_the_books_makes_nobody_wait(void **state)
{
	static const struct { const char *sql; bool blocks; } rows[] = {
		{ "ALTER TABLE accounts ADD COLUMN a int", true },
		{ "create table if not exists \"gorp_migrations\" (a int)",
		  false },
		{ "CREATE TABLE IF NOT EXISTS \"drizzle\"."
		  "\"__drizzle_migrations\" (id int); ALTER TABLE t ADD a int",
		  true },
		{ "ALTER TABLE _prisma_migrations ADD a int", false },
		{ "DROP TABLE \"yoyo_tmp_Vw78TDxqWV\"", false },
		{ "SELECT 1; SELECT * FROM _prisma_migrations", false },
		{ "CREATE INDEX CONCURRENTLY a ON b (c)", false },
		{ "ALTER TABLE t ADD a int; ALTER TABLE _prisma_migrations "
		  "ADD a int", true },
		{ "", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (detect_does(span_of(rows[i].sql), SQL_BLOCKS) !=
		    rows[i].blocks)
			fail_msg("%s", rows[i].sql);
}

/* The names, with blanks between them. */
static const char *
names_in(const char *sql)
{
	static char names[256];
	size_t len = detect_names(span_of(sql), names, 0, sizeof(names));

	for (size_t i = 0; i < len; i++)
		if (names[i] == '\0')
			names[i] = ' ';
	names[len > 0 ? len - 1 : 0] = '\0';
	return names;
}

static void
the_tables_that_ddl_is_about_are_named(void **state)
{
	static const struct row rows[] = {
		{ "ALTER TABLE accounts ADD COLUMN a int", "accounts" },
		{ "ALTER TABLE IF EXISTS ONLY public.\"Accounts\" DROP a",
		  "IF Accounts" },
		{ "DROP TABLE a, b.c, \"d\".\"e\"", "a c e" },
		{ "CREATE INDEX i ON notes (account)", "notes" },
		{ "CREATE TABLE n (a int REFERENCES accounts)",
		  "n accounts" },
		{ "ALTER TABLE a ADD b int; ALTER TABLE A ADD c int", "a" },
		{ "TRUNCATE a", "a" },
		{ "DROP VIEW v", "v" },
		{ "SELECT 1", "" }, { "", "" }, { "ALTER TABLE", "" },
		{ "ALTER TABLE \"\" ADD a int", "" },
		{ "ALTER TABLE \"a", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(names_in(rows[i].sql), rows[i].expected) != 0)
			fail_msg("%s: %s, not %s", rows[i].sql,
			    names_in(rows[i].sql), rows[i].expected);
}

static void
names_fill_their_room_and_no_more(void **state)
{
	char sql[64];

	(void)state;
	for (size_t size = 0; size < 24; size++) {
		char *names = malloc(size != 0 ? size : 1);
		size_t len = 0;
		for (int i = 10; i < 20; i++) {
			snprintf(sql, sizeof(sql), "DROP TABLE t%d", i);
			len = detect_names(span_of(sql), names, len, size);
		}
		assert_int_equal(len, size / 4 * 4);
		free(names);
	}
}

static void
a_statement_mentions_a_table_by_its_whole_name(void **state)
{
	static const char names[] = "accounts\0note";
	static const struct { const char *sql; bool mentions; } rows[] = {
		{ "SELECT * FROM accounts", true },
		{ "accounts", true },
		{ "select 1 from public.\"ACCOUNTS\" where a", true },
		{ "SELECT * FROM note;", true },
		{ "SELECT * FROM notes", false },
		{ "SELECT * FROM my_accounts", false },
		{ "SELECT accounts$ FROM \xc3\xa4note", false },
		{ "SELECT accounts_ FROM note1", false },
		{ "SELECT accounts1, x.accounts", true },
		{ "account", false }, { "", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (detect_mentions(span_of(rows[i].sql), (struct span){
		    names, sizeof(names) }) != rows[i].mentions)
			fail_msg("%s", rows[i].sql);
	assert_false(detect_mentions(SPAN("SELECT a"), SPAN_NONE));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_lock_of_every_tool_is_known),
		cmocka_unit_test(a_key_may_be_computed_from_the_databases_name),
		cmocka_unit_test(a_key_may_be_a_value_of_the_bind),
		cmocka_unit_test(other_locks_are_an_apps),
		cmocka_unit_test(the_books_of_every_tool_are_known),
		cmocka_unit_test(names_that_are_like_books_are_none),
		cmocka_unit_test(
		    tools_of_javascript_are_told_by_what_they_send),
		cmocka_unit_test(tools_of_other_languages_are_told_likewise),
		cmocka_unit_test(
		    an_application_is_known_by_how_its_name_begins),
		cmocka_unit_test(ddl_on_the_books_makes_nobody_wait),
		cmocka_unit_test(the_tables_that_ddl_is_about_are_named),
		cmocka_unit_test(names_fill_their_room_and_no_more),
		cmocka_unit_test(
		    a_statement_mentions_a_table_by_its_whole_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
