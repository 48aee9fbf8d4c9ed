/*
 * SHOW STATS and its relatives, and the line that log_stats writes.
 *
 * Counters only grow: each worker has a block of them in each pool, which any
 * thread may read. A row is the sum over the blocks of a database's pools.
 *
 * Averages are taken from the beginning of the last full stats_period to now,
 * as PgBouncer does: admin_stats_tick() keeps for each database what the sums
 * were when this period began and when the one before it began.
 *
 *      older           newer              now
 *   -----|---------------|-----------------|---> time
 *        |  stats_period |                 |
 *        |<------- the averages' window -->|
 */
#include "admin/console.h"
#include "admin/show.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "session/worker.h"

/* The counters that PgBouncer has too: the first rows of counters.def. */
#define SHARED (STAT_client_login_count + 1)
_Static_assert(STAT_server_assignment_count == 0 && SHARED == 12,
    "counters.def begins with the columns of SHOW STATS");

/* A database's sums at the beginning of this period and the one before. */
struct snapshot {
	struct hash_node by_quota;
	const struct pool_quota *quota;
	struct stat_sums older, newer;
};

MEM_TYPE(snapshot_type, snapshot);

static struct {
	pthread_mutex_t lock;
	struct hash of_databases;	/* of struct snapshot */
	struct snapshot all;		/* of the whole process */
	uint64_t older_us, newer_us;	/* clock_us(); 0 = not yet */
} history = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Sums of a database's pools; NULL = of all, and of what has no pool. */
static void
sum_pools(const struct pool_quota *quota, struct stat_sums *ret)
{
	struct pool *pool = NULL;

	memset(ret, 0, sizeof(*ret));
	while ((pool = pool_next(pool)) != NULL) {
		if (quota != NULL && pool->database_quota != quota)
			continue;
		for (unsigned i = 0; i < pool->shard_count; i++)
			stat_sum(&pool->shard[i].stat, 1, ret);
	}
	if (quota == NULL)
		for (unsigned i = 0; i < process.worker_count; i++)
			stat_sum(&process.worker[i]->stat, 1, ret);
}

/* Under the lock; NULL: nothing is known of it yet. */
static struct snapshot *
history_find(const struct pool_quota *quota)
{
	struct hash_node *node;

	if (quota == NULL)
		return &history.all;
	node = hash_find(&history.of_databases, (uint64_t)(uintptr_t)quota);
	return node == NULL ? NULL :
	    container_of(node, struct snapshot, by_quota);
}

static struct snapshot *
history_make(const struct pool_quota *quota)
{
	struct snapshot *snapshot = mem_new(&snapshot_type);

	if (snapshot == NULL)
		return NULL;
	snapshot->quota = quota;
	if (!hash_add(&history.of_databases, &snapshot->by_quota,
	    (uint64_t)(uintptr_t)quota)) {
		mem_delete(&snapshot_type, snapshot);
		return NULL;
	}
	return snapshot;
}

/*
 * Averages.
 */

static uint64_t
share(uint64_t sum, uint64_t count)
{
	return count > 0 ? sum / count : 0;
}

/* Counts and bytes a second; the time of one transaction, of one query;
 * time waited a second. */
static void
average(const struct stat_sums *now, const struct stat_sums *then,
    uint64_t window_us, struct stat_sums *ret)
{
	uint64_t grown[SHARED];

	memset(ret, 0, sizeof(*ret));
	if (window_us == 0)
		return;
	for (int i = 0; i < SHARED; i++) {
		grown[i] = now->value[i] - then->value[i];
		ret->value[i] = (uint64_t)((double)grown[i] * 1e6 /
		    (double)window_us);
	}
	ret->value[STAT_xact_time] = share(grown[STAT_xact_time],
	    grown[STAT_xact_count]);
	ret->value[STAT_query_time] = share(grown[STAT_query_time],
	    grown[STAT_query_count]);
}

static void
average_now(const struct pool_quota *quota, const struct stat_sums *now,
    struct stat_sums *ret)
{
	static const struct stat_sums nothing;
	const struct snapshot *snapshot;
	uint64_t since_us;

	pthread_mutex_lock(&history.lock);
	snapshot = history_find(quota);
	/* Before the first period has ended: since the start. */
	since_us = history.older_us != 0 ? clock_us() - history.older_us :
	    clock_wall_us() - process.started_us;
	average(now, snapshot != NULL ? &snapshot->older : &nothing, since_us,
	    ret);
	pthread_mutex_unlock(&history.lock);
}

/*
 * The end of a period.
 */

static void
snapshot_take(struct snapshot *snapshot, const struct stat_sums *now)
{
	snapshot->older = snapshot->newer;
	snapshot->newer = *now;
}

static void
log_averages(const struct stat_sums *average)
{
	const uint64_t *v = average->value;

	/* pgBadger and others match on these words. */
	log_info("stats: %llu xacts/s, %llu queries/s, "
	    "%llu client parses/s, %llu server parses/s, %llu binds/s, "
	    "in %llu B/s, out %llu B/s, xact %llu us, query %llu us, "
	    "wait %llu us",
	    (unsigned long long)v[STAT_xact_count],
	    (unsigned long long)v[STAT_query_count],
	    (unsigned long long)v[STAT_client_parse_count],
	    (unsigned long long)v[STAT_server_parse_count],
	    (unsigned long long)v[STAT_bind_count],
	    (unsigned long long)v[STAT_received],
	    (unsigned long long)v[STAT_sent],
	    (unsigned long long)v[STAT_xact_time],
	    (unsigned long long)v[STAT_query_time],
	    (unsigned long long)v[STAT_wait_time]);
}

void
admin_stats_tick(bool log_stats)
{
	struct pool_quota *quota = NULL;
	uint64_t now_us = clock_us();
	struct stat_sums now, last;

	pthread_mutex_lock(&history.lock);
	while ((quota = pool_quota_next(quota, false)) != NULL) {
		struct snapshot *snapshot = history_find(quota);
		if (snapshot == NULL)
			snapshot = history_make(quota);
		if (snapshot == NULL)
			continue;
		sum_pools(quota, &now);
		snapshot_take(snapshot, &now);
	}
	sum_pools(NULL, &now);
	average(&now, &history.all.newer, history.newer_us != 0 ?
	    now_us - history.newer_us : clock_wall_us() - process.started_us,
	    &last);
	snapshot_take(&history.all, &now);
	history.older_us = history.newer_us;
	history.newer_us = now_us;
	pthread_mutex_unlock(&history.lock);
	if (log_stats)
		log_averages(&last);
}

/*
 * Rows.
 */

static int
quota_compare(const void *left, const void *right)
{
	const struct pool_quota *const *a = left, *const *b = right;

	return strcmp((*a)->name, (*b)->name);
}

/* All databases that have been used, by name: an array in *buf. */
static const struct pool_quota *const *
databases_sort(struct buf *buf, size_t *ret_count)
{
	struct pool_quota *quota = NULL;

	while ((quota = pool_quota_next(quota, false)) != NULL)
		buf_add(buf, &quota, sizeof(quota));
	*ret_count = buf->len / sizeof(quota);
	if (*ret_count > 1)
		qsort(buf->at, *ret_count, sizeof(quota), quota_compare);
	return (const struct pool_quota *const *)(void *)buf->at;
}

static void
put_sums(struct rows *rows, const struct stat_sums *sums)
{
	for (int i = 0; i < SHARED; i++)
		row_int(rows, sums->value[i]);
}

static void
put_quantiles(struct rows *rows, const struct pool_quota *quota)
{
	struct hist *query = mem_zalloc(sizeof(*query));
	struct hist *wait = mem_zalloc(sizeof(*wait));
	struct pool *pool = NULL;

	if (query == NULL || wait == NULL) {
		rows->out->failed = true;
	} else {
		while ((pool = pool_next(pool)) != NULL) {
			if (pool->database_quota != quota)
				continue;
			for (unsigned i = 0; i < pool->shard_count; i++) {
				hist_merge(query, &pool->shard[i].query_time);
				hist_merge(wait, &pool->shard[i].wait_time);
			}
		}
		row_int(rows, hist_quantile(query, 0.5));
		row_int(rows, hist_quantile(query, 0.99));
		row_int(rows, hist_quantile(wait, 0.99));
	}
	mem_free(query);
	mem_free(wait);
}

enum part { TOTALS = 1, AVERAGES = 2, QUANTILES = 4, SLOW = 8 };

static void
put_databases(struct show *show, unsigned parts)
{
	struct rows *rows = show->rows;
	struct buf buf = { 0 };
	size_t count;
	const struct pool_quota *const *quota = databases_sort(&buf, &count);

	for (size_t i = 0; i < count && !rows->out->failed; i++) {
		struct stat_sums now, averages;
		sum_pools(quota[i], &now);
		average_now(quota[i], &now, &averages);
		row_begin(rows);
		row_text(rows, quota[i]->name);
		if (parts & TOTALS)
			put_sums(rows, &now);
		if (parts & AVERAGES)
			put_sums(rows, &averages);
		if (parts & QUANTILES)
			put_quantiles(rows, quota[i]);
		if (parts & SLOW)
			row_int(rows, now.value[STAT_slow_query_count]);
		if (!rows->out->failed)
			row_end(rows);
	}
	if (buf.failed)
		rows->out->failed = true;
	buf_finish(&buf);
}

void
show_stats(struct show *show)
{
	put_databases(show, TOTALS | AVERAGES | QUANTILES | SLOW);
}

void
show_stats_totals(struct show *show)
{
	put_databases(show, TOTALS);
}

void
show_stats_averages(struct show *show)
{
	put_databases(show, AVERAGES);
}

/* What SHOW TOTALS calls a counter. */
static const char *
totals_name(int counter)
{
	switch (counter) {
	case STAT_received:
		return "client_bytes";
	case STAT_sent:
		return "server_bytes";
	case STAT_client_parse_count:
		return "ps_client_parse_count";
	case STAT_server_parse_count:
		return "ps_server_parse_count";
	case STAT_bind_count:
		return "ps_bind_count";
	default:
		return stat_name((enum stat_counter)counter);
	}
}

static void
put_total(struct rows *rows, const char *prefix, int counter, uint64_t value)
{
	row_begin(rows);
	row_printf(rows, "%s_%s", prefix, totals_name(counter));
	row_int(rows, value);
	row_end(rows);
}

void
show_totals(struct show *show)
{
	struct stat_sums now, averages;

	sum_pools(NULL, &now);
	average_now(NULL, &now, &averages);
	for (int i = 0; i < SHARED; i++)
		put_total(show->rows, "total", i, now.value[i]);
	for (int i = 0; i < SHARED; i++)
		put_total(show->rows, "avg", i, averages.value[i]);
	for (int i = SHARED; i < STAT_COUNT; i++)
		put_total(show->rows, "total", i, now.value[i]);
}
