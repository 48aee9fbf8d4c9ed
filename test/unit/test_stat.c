/* Counters and histograms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "stat/hist.h"
#include "stat/stat.h"

static void
sums_go_over_all_blocks(void **state)
{
	static struct stat_block blocks[3];
	struct stat_sums sums = { 0 };
	unsigned i;

	(void)state;
	stat_add(&blocks[0], STAT_query_count, 1);
	stat_add(&blocks[1], STAT_query_count, 10);
	stat_add(&blocks[2], STAT_query_count, 100);
	stat_add(&blocks[2], STAT_query_count, 1000);
	stat_add(&blocks[1], STAT_received, UINT64_C(1) << 40);
	stat_sum(blocks, 3, &sums);
	for (i = 0; i < STAT_COUNT; i++)
		assert_true(sums.value[i] == (i == STAT_query_count ? 1111 :
		    i == STAT_received ? UINT64_C(1) << 40 : 0));
	/* added to what is there; and only so many blocks */
	stat_sum(blocks, 2, &sums);
	assert_int_equal(sums.value[STAT_query_count], 1122);
	stat_sum(blocks, 0, &sums);
	assert_int_equal(sums.value[STAT_query_count], 1122);
}

static void
blocks_share_no_cache_line(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct stat_block) % 64, 0);
	assert_int_equal(_Alignof(struct stat_block), 64);
}

static void
every_counter_has_a_name_and_a_help(void **state)
{
	unsigned i, j;

	(void)state;
	assert_string_equal(stat_name(STAT_xact_count), "xact_count");
	assert_string_equal(stat_help(STAT_sent), "bytes sent to clients");
	for (i = 0; i < STAT_COUNT; i++) {
		assert_true(strlen(stat_name(i)) > 0);
		assert_true(strlen(stat_help(i)) > 0);
		for (j = 0; j < i; j++)
			assert_string_not_equal(stat_name(i), stat_name(j));
	}
}

static void
buckets_cover_every_value_without_a_gap(void **state)
{
	uint64_t bottom = 0;
	unsigned bucket;

	(void)state;
	for (bucket = 0; bucket < HIST_BUCKETS; bucket++) {
		uint64_t top = hist_bucket_top(bucket);

		assert_true(top >= bottom);
		assert_int_equal(hist_bucket_of(bottom), bucket);
		assert_int_equal(hist_bucket_of(top), bucket);
		assert_int_equal(hist_bucket_of((bottom + top) / 2), bucket);
		/* an eighth of its value is the widest a bucket may be */
		assert_true((top - bottom) * 8 <= bottom);
		bottom = top + 1;
	}
	assert_true(bottom == UINT64_C(1) << 34);
	assert_true(bottom > UINT64_C(3600000000));
}

static void
what_is_too_long_is_in_the_last_bucket(void **state)
{
	unsigned bit;

	(void)state;
	for (bit = 34; bit < 64; bit++)
		assert_int_equal(hist_bucket_of(UINT64_C(1) << bit),
		    HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket_of(UINT64_MAX), HIST_BUCKETS - 1);
}

static void
an_empty_histogram_has_no_quantiles(void **state)
{
	static struct hist hist;

	(void)state;
	assert_int_equal(hist_count(&hist), 0);
	assert_int_equal(hist_quantile(&hist, 0.5), 0);
}

static void
quantiles_of_small_values_are_exact(void **state)
{
	static struct hist hist;
	uint64_t us;

	(void)state;
	for (us = 1; us <= 10; us++)
		hist_add(&hist, us);
	assert_int_equal(hist_count(&hist), 10);
	assert_int_equal(hist.sum, 55);
	assert_int_equal(hist_quantile(&hist, 0), 1);
	assert_int_equal(hist_quantile(&hist, 0.1), 1);
	assert_int_equal(hist_quantile(&hist, 0.5), 5);
	assert_int_equal(hist_quantile(&hist, 0.51), 6);
	assert_int_equal(hist_quantile(&hist, 0.99), 10);
	assert_int_equal(hist_quantile(&hist, 1), 10);
	/* shares that make no sense are taken to the nearest that does */
	assert_int_equal(hist_quantile(&hist, -1), 1);
	assert_int_equal(hist_quantile(&hist, 7), 10);
	assert_int_equal(hist_quantile(&hist, __builtin_nan("")), 1);
}

static void
quantiles_are_at_most_an_eighth_too_high(void **state)
{
	static struct hist hist;
	uint64_t us, p;
	unsigned i;

	(void)state;
	for (us = 1; us <= 100000; us++)
		hist_add(&hist, us);
	for (i = 1; i <= 100; i++) {
		p = hist_quantile(&hist, i / 100.0);
		assert_true(p >= i * 1000);
		assert_true(p <= i * 1000 + i * 1000 / 8);
	}
}

static void
merging_adds_buckets_and_sums(void **state)
{
	static struct hist into, from;

	(void)state;
	hist_add(&into, 5);
	hist_add(&from, 5);
	hist_add(&from, 1000000);
	hist_merge(&into, &from);
	assert_int_equal(hist_count(&into), 3);
	assert_int_equal(hist_count(&from), 2);
	assert_int_equal(into.sum, 1000010);
	assert_int_equal(into.bucket[5], 2);
	assert_int_equal(into.bucket[hist_bucket_of(1000000)], 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_go_over_all_blocks),
		cmocka_unit_test(blocks_share_no_cache_line),
		cmocka_unit_test(every_counter_has_a_name_and_a_help),
		cmocka_unit_test(buckets_cover_every_value_without_a_gap),
		cmocka_unit_test(what_is_too_long_is_in_the_last_bucket),
		cmocka_unit_test(an_empty_histogram_has_no_quantiles),
		cmocka_unit_test(quantiles_of_small_values_are_exact),
		cmocka_unit_test(quantiles_are_at_most_an_eighth_too_high),
		cmocka_unit_test(merging_adds_buckets_and_sums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
