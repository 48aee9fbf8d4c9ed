/*
 * Texts of statements. The quick look and the whole scan give the same
 * answer, and so do a text and its statements one by one. Statements about
 * databases are read as well.
 */
#include "base/buf.h"
#include "fuzz.h"
#include "wire/sqldatabase.h"
#include "wire/sqlscan.h"

/*
 * A \' in a plain string may or may not end it. Where there is more to the
 * text, that is SQL_UNKNOWN; in one plain statement nothing depends on it,
 * and the quick look need not know.
 */
static uint32_t
doubt_in(struct span sql)
{
	return sql.len > 0 && memmem(sql.at, sql.len, "\\'", 2) != NULL ?
	    SQL_UNKNOWN : 0;
}

/* Nothing that a quick look may skip changes behind another statement. */
static void
check_behind_another(struct span sql, uint32_t effects, unsigned count)
{
	struct buf text = { 0 };
	uint32_t expected = effects | (count > 0 ? SQL_SEVERAL : 0);

	buf_add_text(&text, "SHOW a;");
	buf_add_span(&text, sql);
	effects = sqlscan(buf_span(&text), NULL);
	check((effects & expected) == expected);
	check((effects & ~expected & ~doubt_in(sql)) == 0);
	buf_finish(&text);
}

static unsigned
check_statements(struct span sql, uint32_t effects)
{
	struct span rest = sql, statement;
	uint32_t all = 0, one;
	unsigned count = 0;

	while (sqlscan_next(&rest, &statement)) {
		check(fuzz_is_within(statement, sql));
		check(fuzz_is_within(rest, sql));
		check(statement.len > 0);
		check(statement.at + statement.len <= rest.at);
		one = sqlscan(statement, NULL);
		check((one & SQL_SEVERAL) == 0);
		all |= one;
		count++;
	}
	check(rest.len == 0);
	if (count > 1)
		all |= SQL_SEVERAL;
	check((effects & all) == all);
	check((effects & ~all & ~doubt_in(sql)) == 0);
	return count;
}

/* What is to be done for a database is seen by the scan. */
static void
check_database(struct span sql, uint32_t effects)
{
	struct sqldatabase found;

	if (!sqldatabase_read(sql, &found))
		return;
	check((effects & SQL_DATABASE) != 0);
	check(found.name[0] != '\0');
	check(memchr(found.name, '\0', sizeof(found.name)) != NULL);
	check(memchr(found.other, '\0', sizeof(found.other)) != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	struct span sql = { (const char *)data, len }, name = SPAN("untouched");
	uint32_t effects = sqlscan(sql, &name);

	check(fuzz_is_within(name, sql));
	check(name.len == 0 ||
	    (effects & (SQL_DEALLOCATE | SQL_BARE)) != 0);
	check_behind_another(sql, effects, check_statements(sql, effects));
	check_database(sql, effects);
	fuzz_check_time(began);
	return 0;
}
