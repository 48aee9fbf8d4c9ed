/*
 * The log. It writes to a file of its own, under a clock that stands still,
 * so that whole lines can be compared.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/span.h"

static uint64_t fake_us;

static uint64_t
fake_clock(void)
{
	return fake_us;
}

static char log_path[] = "/tmp/test_base.XXXXXX";

static int
log_to_file(void **state)
{
	(void)state;
	int fd = mkstemp(log_path);

	if (fd < 0)
		return -1;
	close(fd);
	setenv("TZ", "UTC", 1);
	/* 2026-11-23 12:00:00.123456 */
	fake_us = UINT64_C(1795435200123456);
	clock_set_source(fake_clock);
	return 0;
}

static int
log_away(void **state)
{
	struct log_settings settings = { .to_stderr = true };

	(void)state;
	log_setup(&settings);
	clock_set_source(NULL);
	unlink(log_path);
	return 0;
}

/* Starts an empty file in this format. */
static void
log_afresh(enum log_format format, int verbose)
{
	struct log_settings settings = { .file = log_path, .format = format,
	    .verbose = verbose };

	assert_int_equal(truncate(log_path, 0), 0);
	assert_true(log_setup(&settings));
}

/* The whole file; mem_free() it. */
static char *
log_text(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t len;
	char *text = mem_zalloc(1 << 20);

	assert_non_null(file);
	len = fread(text, 1, (1 << 20) - 1, file);
	assert_true(len < (1 << 20) - 1);
	fclose(file);
	return text;
}

/* The log holds exactly this; %P stands for our pid. */
static void
expect_log(const char *fmt)
{
	char *text = log_text(log_path), *expected;
	const char *pid = strstr(fmt, "%P");

	assert_non_null(pid);
	expected = mem_printf("%.*s%ld%s", (int)(pid - fmt), fmt,
	    (long)getpid(), pid + 2);
	assert_string_equal(text, expected);
	mem_free(text);
	mem_free(expected);
}

static void
a_text_line_looks_like_pgbouncers(void **state)
{
	(void)state;
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_info("process up: %s", "pgsluice");
	expect_log("2026-11-23 12:00:00.123 UTC [%P] LOG "
	    "process up: pgsluice\n");
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_line(LOG_LEVEL_WARNING, "C-0x1: db/user@1.2.3.4:5 ", "slow");
	expect_log("2026-11-23 12:00:00.123 UTC [%P] WARNING "
	    "C-0x1: db/user@1.2.3.4:5 slow\n");
	log_afresh(LOG_FORMAT_TEXT, 0);
	fake_us += 1000000;
	errno = ENOENT;
	log_line(LOG_LEVEL_FATAL, NULL, "%m");
	assert_int_equal(errno, ENOENT);
	fake_us -= 1000000;
	expect_log("2026-11-23 12:00:01.123 UTC [%P] FATAL "
	    "No such file or directory\n");
}

static void
a_json_line_is_one_object(void **state)
{
	(void)state;
	log_afresh(LOG_FORMAT_JSON, 0);
	log_line(LOG_LEVEL_ERROR, "S-0x1: \"db\"/u ", "a \"b\" \\ \n\x01");
	expect_log("{\"time\":\"2026-11-23T12:00:00.123+0000\",\"pid\":%P,"
	    "\"level\":\"ERROR\",\"session\":\"S-0x1: \\\"db\\\"/u\","
	    "\"message\":\"a \\\"b\\\" \\\\ \\n\\u0001\"}\n");
	log_afresh(LOG_FORMAT_JSON, 0);
	log_line(LOG_LEVEL_LOG, "  ", "\xff\xc3\xa4\a\v\t");
	expect_log("{\"time\":\"2026-11-23T12:00:00.123+0000\",\"pid\":%P,"
	    "\"level\":\"LOG\",\"message\":\"\\\\xff\xc3\xa4"
	    "\\u0007\\u000b\\t\"}\n");
}

static void
expect_escaped(const char *message, const char *expected)
{
	char *line = mem_printf("2026-11-23 12:00:00.123 UTC [%%P] LOG %s\n",
	    expected);

	log_afresh(LOG_FORMAT_TEXT, 0);
	log_info("%s", message);
	expect_log(line);
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_line(LOG_LEVEL_LOG, message, "%s", "");
	expect_log(line);
	mem_free(line);
}

static void
no_byte_of_a_name_can_spoil_the_log(void **state)
{
	(void)state;
	expect_escaped("two\nlines\r\n", "two\\nlines\\r\\n");
	expect_escaped("\a\b\t\v\f", "\\a\\b\\t\\v\\f");
	expect_escaped("\x1b[2J\x7f\x01", "\\x1b[2J\\x7f\\x01");
	expect_escaped("back\\slash", "back\\\\slash");
	expect_escaped("say \"hi\"", "say \"hi\"");
	/* letters of the world stay */
	expect_escaped("Müller 表 🐘", "Müller 表 🐘");
	/* bytes that are no UTF-8: lone, overlong, surrogate, too large,
	 * cut off */
	expect_escaped("\x80\xff\xc0\xaf", "\\x80\\xff\\xc0\\xaf");
	expect_escaped("\xe0\x80\xaf", "\\xe0\\x80\\xaf");
	expect_escaped("\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf");
	expect_escaped("\xed\xa0\x80", "\\xed\\xa0\\x80");
	expect_escaped("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
	expect_escaped("\xf5\x80\x80\x80", "\\xf5\\x80\\x80\\x80");
	expect_escaped("\xc3", "\\xc3");
	expect_escaped("\xe8\xa1", "\\xe8\\xa1");
	expect_escaped("\xe0\x9f\xbf", "\\xe0\\x9f\\xbf");
	expect_escaped("\xf0\x8e\x80\x80", "\\xf0\\x8e\\x80\\x80");
	expect_escaped("\xed\xbf\xbf", "\\xed\\xbf\\xbf");
	/* the good ones next to them */
	expect_escaped("\xc2\xa0\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80",
	    "\xc2\xa0\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80");
	expect_escaped("\xf0\x90\x80\x80", "\xf0\x90\x80\x80");
	expect_escaped("\xc3" "a", "\\xc3a");
	/* C1 controls, zero width, text that turns around, line separators */
	expect_escaped("\xc2\x9b", "\\xc2\\x9b");
	expect_escaped("\xc2\x9f", "\\xc2\\x9f");
	expect_escaped("\xe2\x81\xaf", "\\xe2\\x81\\xaf");
	expect_escaped("\xe2\x80\x8b", "\\xe2\\x80\\x8b");
	expect_escaped("\xe2\x80\xae", "\\xe2\\x80\\xae");
	expect_escaped("\xe2\x80\xa8", "\\xe2\\x80\\xa8");
	expect_escaped("\xef\xbb\xbf", "\\xef\\xbb\\xbf");
	expect_escaped("\xef\xbf\xbe", "\\xef\\xbf\\xbe");
	expect_escaped("\xf3\xa0\x80\x81", "\\xf3\\xa0\\x80\\x81");
}

static void
levels_follow_verbose(void **state)
{
	static const int from[] = { 0, 0, 0, 0, 1, 2 };
	int verbose, level;

	(void)state;
	for (verbose = 0; verbose <= 3; verbose++) {
		log_afresh(LOG_FORMAT_TEXT, verbose);
		for (level = 0; level <= LOG_LEVEL_NOISE; level++)
			assert_int_equal(log_wants((enum log_level)level),
			    verbose >= from[level]);
	}
	log_afresh(LOG_FORMAT_TEXT, 1);
	log_line(LOG_LEVEL_NOISE, NULL, "unheard");
	log_debug("heard");
	expect_log("2026-11-23 12:00:00.123 UTC [%P] DEBUG heard\n");
}

static void
a_line_too_long_is_cut_and_still_a_line(void **state)
{
	char *long_text = mem_alloc(20001), *text;
	size_t len;
	int format;

	(void)state;
	for (format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++)
		for (int c = 0; c < 2; c++) {
			memset(long_text, c == 0 ? 'x' : '\x01', 20000);
			long_text[20000] = '\0';
			log_afresh((enum log_format)format, 0);
			log_line(LOG_LEVEL_LOG, long_text, "%s", long_text);
			text = log_text(log_path);
			len = strlen(text);
			assert_true(len > 4000 && len <= 8192);
			assert_ptr_equal(strchr(text, '\n'), text + len - 1);
			assert_non_null(strstr(text, format ==
			    LOG_FORMAT_JSON ? "...\"}\n" : "...\n"));
			mem_free(text);
		}
	/* also where only the message is too long for the first buffer */
	memset(long_text, 'x', 20000);
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_info("%s", long_text);
	text = log_text(log_path);
	assert_non_null(strstr(text, "xx...\n"));
	mem_free(text);
	mem_free(long_text);
}

static void
a_reload_opens_the_file_again(void **state)
{
	char *moved = mem_printf("%s.1", log_path), *text;
	struct log_settings settings = { .file = log_path };

	(void)state;
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_info("first");
	assert_int_equal(rename(log_path, moved), 0);
	log_info("second");
	assert_true(log_setup(&settings));
	log_info("third");
	text = log_text(moved);
	assert_non_null(strstr(text, "first\n"));
	assert_non_null(strstr(text, "second\n"));
	assert_null(strstr(text, "third\n"));
	mem_free(text);
	expect_log("2026-11-23 12:00:00.123 UTC [%P] LOG third\n");
	unlink(moved);
	mem_free(moved);
}

static void
a_file_that_cannot_be_opened_changes_nothing(void **state)
{
	struct log_settings settings = { .file = "/nowhere/at/all",
	    .format = LOG_FORMAT_JSON, .verbose = 3 };

	(void)state;
	log_afresh(LOG_FORMAT_TEXT, 0);
	errno = 0;
	assert_false(log_setup(&settings));
	assert_int_equal(errno, ENOENT);
	assert_false(log_wants(LOG_LEVEL_DEBUG));
	log_info("still here");
	expect_log("2026-11-23 12:00:00.123 UTC [%P] LOG still here\n");
}

static void
lines_that_cannot_be_written_are_counted(void **state)
{
	struct log_settings settings = { .file = "/dev/full" };
	uint64_t lost = log_lost_count();

	(void)state;
	log_afresh(LOG_FORMAT_TEXT, 0);
	log_info("arrives");
	assert_int_equal(log_lost_count(), lost);
	assert_true(log_setup(&settings));
	log_info("is lost");
	log_info("is lost, too");
	assert_int_equal(log_lost_count(), lost + 2);
}

static void
facilities_are_known_by_name(void **state)
{
	struct log_settings settings = { .to_syslog = true,
	    .syslog_facility = "no such", .syslog_ident = "test_base" };

	(void)state;
	assert_true(log_knows_facility("daemon"));
	assert_true(log_knows_facility("LOCAL7"));
	assert_false(log_knows_facility("local8"));
	assert_false(log_knows_facility(""));
	assert_false(log_knows_facility(NULL));
	/* without a syslog daemon the line goes nowhere, but it must go */
	assert_true(log_setup(&settings));
	log_info("to syslog");
	settings.syslog_ident = NULL;
	assert_true(log_setup(&settings));
	log_line(LOG_LEVEL_LOG, "prefix ", "to syslog\n");
}

#define LOG_THREADS 4
#define LOG_LINES 300

static void *
log_many(void *arg)
{
	int i;

	for (i = 0; i < LOG_LINES; i++)
		log_info("thread %d line %d %060d", *(int *)arg, i, 0);
	return NULL;
}

static void
lines_of_many_threads_stay_whole_through_reloads(void **state)
{
	pthread_t threads[LOG_THREADS];
	int numbers[LOG_THREADS];
	char seen[LOG_THREADS][LOG_LINES] = { { 0 } };
	struct log_settings settings = { .file = log_path };
	struct span rest, word;
	char *text, *line;
	int i, thread, number, zero, len;

	(void)state;
	log_afresh(LOG_FORMAT_TEXT, 0);
	for (i = 0; i < LOG_THREADS; i++) {
		numbers[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, log_many,
		    &numbers[i]), 0);
	}
	for (i = 0; i < 50; i++)
		assert_true(log_setup(&settings));
	for (i = 0; i < LOG_THREADS; i++)
		pthread_join(threads[i], NULL);
	text = log_text(log_path);
	rest = span_of(text);
	while (span_next(&rest, '\n', &word)) {
		line = mem_strndup(word.at, word.len);
		assert_int_equal(sscanf(line, "2026-11-23 12:00:00.123 UTC "
		    "[%*d] LOG thread %d line %d %60d%n",
		    &thread, &number, &zero, &len), 3);
		assert_int_equal(strlen(line), (size_t)len);
		mem_free(line);
		assert_in_range(thread, 0, LOG_THREADS - 1);
		assert_in_range(number, 0, LOG_LINES - 1);
		assert_int_equal(seen[thread][number]++, 0);
	}
	for (i = 0; i < LOG_THREADS * LOG_LINES; i++)
		assert_int_equal(seen[i / LOG_LINES][i % LOG_LINES], 1);
	mem_free(text);
}

static void
a_limiter_passes_so_many_a_second(void **state)
{
	struct log_limit limit = { 0 };
	uint32_t left_out = 77;
	int i;

	(void)state;
	fake_us = 500000;		/* second 0 counts like any other */
	for (i = 0; i < 10; i++) {
		assert_int_equal(log_limit_pass(&limit, 3, &left_out), i < 3);
		assert_int_equal(left_out, 0);
	}
	fake_us = 999999;
	assert_false(log_limit_pass(&limit, 3, NULL));
	fake_us = 1000000;
	assert_true(log_limit_pass(&limit, 3, &left_out));
	assert_int_equal(left_out, 8);
	assert_true(log_limit_pass(&limit, 3, &left_out));
	assert_int_equal(left_out, 0);
	fake_us = 60000000;		/* after a silence */
	assert_true(log_limit_pass(&limit, 3, &left_out));
	assert_int_equal(left_out, 0);
	assert_false(log_limit_pass(&limit, 0, &left_out));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_line_looks_like_pgbouncers),
		cmocka_unit_test(a_json_line_is_one_object),
		cmocka_unit_test(no_byte_of_a_name_can_spoil_the_log),
		cmocka_unit_test(levels_follow_verbose),
		cmocka_unit_test(a_line_too_long_is_cut_and_still_a_line),
		cmocka_unit_test(a_reload_opens_the_file_again),
		cmocka_unit_test(a_file_that_cannot_be_opened_changes_nothing),
		cmocka_unit_test(lines_that_cannot_be_written_are_counted),
		cmocka_unit_test(facilities_are_known_by_name),
		cmocka_unit_test(
		    lines_of_many_threads_stay_whole_through_reloads),
		cmocka_unit_test(a_limiter_passes_so_many_a_second),
	};

	return cmocka_run_group_tests(tests, log_to_file, log_away);
}
