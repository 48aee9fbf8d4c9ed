/*
 * CREATE, DROP and ALTER DATABASE: which database, and what becomes of it.
 * Each text stands in a block of exactly its size, where the address sanitizer
 * sees one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "wire/sqldatabase.h"
#include "wire/sqlscan.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
/* As many bytes as a name may have, and one more. */
#define LONG "a234567890b234567890c234567890d234567890e234567890f234567890123"
#define TOO_LONG LONG "4"

/* "verb name other", or "nothing". */
static const char *
read_exact(const char *sql)
{
	static const char *const verbs[] = {
		[DATABASE_CREATE] = "create", [DATABASE_DROP] = "drop",
		[DATABASE_RENAME] = "rename", [DATABASE_MOVE] = "move",
	};
	static char text[300];
	size_t len = strlen(sql);
	char *bytes = mem_dup(sql, len);
	struct sqldatabase found;

	if (sqldatabase_read((struct span){ bytes, len }, &found))
		snprintf(text, sizeof(text), "%s %s %s", verbs[found.verb],
		    found.name, found.other);
	else
		snprintf(text, sizeof(text), "nothing");
	mem_free(bytes);
	return text;
}

struct row {
	const char *sql, *expected;
};

static void
expect_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *found = read_exact(rows[i].sql);
		if (strcmp(found, rows[i].expected) != 0)
			fail_msg("'%s' is '%s', not '%s'", rows[i].sql, found,
			    rows[i].expected);
	}
}

static void
names_are_folded_unless_quoted(void **state)
{
	static const struct row rows[] = {
		{ "DROP DATABASE App", "drop app " },
		{ "drop database \"App\";", "drop App " },
		{ "DROP DATABASE \"a \"\"b\"\" c\"", "drop a \"b\" c " },
		{ "DROP DATABASE \"\"", "nothing" },
		{ "DROP DATABASE " LONG, "drop " LONG " " },
		{ "DROP DATABASE \"" TOO_LONG "\"", "nothing" },
		{ "DROP DATABASE U&\"d\\0061ta\"", "nothing" },
		{ "DROP DATABASE \"open", "nothing" },
		{ "DROP DATABASE", "nothing" },
		{ " ; /* x */ DROP -- y\n DATABASE/**/a", "drop a " },
	};

	(void)state;
	expect_rows(rows, COUNT(rows));
}

static void
drop_says_which_database_goes(void **state)
{
	static const struct row rows[] = {
		{ "DROP DATABASE IF EXISTS \"prisma_migrate_shadow_db_1-2\" "
		    "WITH (FORCE)", "drop prisma_migrate_shadow_db_1-2 " },
		{ "DROP DATABASE IF EXISTS a", "drop a " },
		{ "DROP DATABASE a (force)", "drop a " },
		{ "DROP DATABASE if", "drop if " },
		{ "DROP DATABASE if WITH (FORCE)", "drop if " },
		{ "DROP TABLE database", "nothing" },
		{ "DROP", "nothing" },
	};

	(void)state;
	expect_rows(rows, COUNT(rows));
}

static void
create_says_what_it_copies(void **state)
{
	static const struct row rows[] = {
		{ "CREATE DATABASE a", "create a template1" },
		{ "CREATE DATABASE \"a-b\" ;", "create a-b template1" },
		{ "CREATE DATABASE a TEMPLATE b", "create a b" },
		{ "CREATE DATABASE a WITH TEMPLATE = \"B\"", "create a B" },
		{ "CREATE DATABASE a TEMPLATE 'B'", "create a B" },
		{ "CREATE DATABASE a TEMPLATE 'B''c'", "nothing" },
		{ "CREATE DATABASE a TEMPLATE DEFAULT", "create a template1" },
		{ "CREATE DATABASE a OWNER template ENCODING = 'utf8' "
		    "CONNECTION LIMIT = -1 TEMPLATE b", "create a b" },
		{ "CREATE DATABASE a OWNER = template",
		    "create a template1" },
		{ "CREATE DATABASE a CONNECTION LIMIT 5 TEMPLATE = b",
		    "create a b" },
		{ "CREATE DATABASE a TEMPLATE", "nothing" },
		{ "CREATE TABLE a", "nothing" },
	};

	(void)state;
	expect_rows(rows, COUNT(rows));
}

static void
alter_counts_where_the_database_must_be_empty(void **state)
{
	static const struct row rows[] = {
		{ "ALTER DATABASE a RENAME TO B", "rename a b" },
		{ "alter database \"A\" rename to \"B\"", "rename A B" },
		{ "ALTER DATABASE a SET TABLESPACE fast", "move a " },
		{ "ALTER DATABASE a SET work_mem = '1MB'", "nothing" },
		{ "ALTER DATABASE a OWNER TO b", "nothing" },
		{ "ALTER DATABASE a RENAME", "nothing" },
	};

	(void)state;
	expect_rows(rows, COUNT(rows));
}

static void
the_scan_sees_such_statements(void **state)
{
	static const struct {
		const char *sql;
		bool seen;
	} rows[] = {
		{ "CREATE DATABASE a", true },
		{ "drop database if exists a", true },
		{ "ALTER DATABASE a RENAME TO b", true },
		{ "/* x */ Create\nDatabase a", true },
		{ "CREATE TABLE database (a int)", false },
		{ "DROP TABLE database", false },
		{ "COMMENT ON DATABASE a IS 'x'", false },
		{ "SELECT 'drop database a'", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (((sqlscan(span_of(rows[i].sql), NULL) & SQL_DATABASE) !=
		    0) != rows[i].seen)
			fail_msg("'%s' is %s", rows[i].sql,
			    rows[i].seen ? "not seen" : "seen");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_folded_unless_quoted),
		cmocka_unit_test(drop_says_which_database_goes),
		cmocka_unit_test(create_says_what_it_copies),
		cmocka_unit_test(
		    alter_counts_where_the_database_must_be_empty),
		cmocka_unit_test(the_scan_sees_such_statements),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
