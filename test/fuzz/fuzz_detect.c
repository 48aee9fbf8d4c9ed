/*
 * Statements and Binds, as the detection of migration tools reads them: the
 * text up to the first NUL, then a Bind behind its names. What the DDL is
 * said to be about stands in its text.
 */
#include "fuzz.h"
#include "migrate/detect.h"
#include "wire/sqlscan.h"

static void
check_names(struct span sql, size_t size)
{
	char *names = malloc(size != 0 ? size : 1);
	size_t len = detect_names(sql, names, 0, size);

	check(len <= size && (len == 0 || names[len - 1] == '\0'));
	check(detect_names(sql, names, len, size) >= len);
	for (size_t at = 0; at < len; at += strlen(names + at) + 1) {
		struct span name = span_of(names + at);
		check(name.len > 0);
		check(memmem(sql.at, sql.len, name.at, name.len) != NULL);
	}
	detect_mentions(sql, (struct span){ names, len });
	free(names);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	size_t sql_len = strnlen((const char *)data, len);
	size_t bind_at = sql_len < len ? sql_len + 1 : len;
	char *text = fuzz_copy((const char *)data, sql_len);
	char *values = fuzz_copy((const char *)data + bind_at, len - bind_at);
	struct span sql = { text, sql_len };
	const struct tool *tool = NULL;

	enum detected detected = detect_statement(sql, (struct span){ values,
	    len - bind_at }, sql, &tool);
	check((detected != DETECTED_NOTHING) == (tool != NULL));
	/* What is seen without the Bind is seen with it. */
	tool = NULL;
	check(detect_statement(sql, SPAN_NONE, sql, &tool) <= detected);
	detect_does(sql, SQL_BLOCKS);
	detect_does(sql, SQL_DDL);
	tool = detect_application(sql);
	check(tool == NULL || tool->application != NULL);
	check_names(sql, 2048);
	check_names(sql, 16);
	check_names(sql, 0);
	free(text);
	free(values);
	fuzz_check_time(began);
	return 0;
}
