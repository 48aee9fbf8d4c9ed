/*
 * SHOW POOLS and LISTS.
 *
 * A pool counts its clients and servers itself, but not in which state each
 * server is, nor who waits in the middle of a login: that only the workers
 * know. Each of them notes for every server it has, and for every such client,
 * the pool and the state; sorted by pool, the notes of all workers are then a
 * few counts for each row.
 */
#include "admin/show.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "conf/conf.h"
#include "net/dns.h"
#include "session/worker.h"

/* Besides those of enum server_state: */
enum {
	NOTE_USED = SERVER_STATES,	/* idles for long */
	NOTE_WELCOME,			/* a client that waits in its login */
	NOTE_CONSOLE,			/* a client of the console */
	NOTE_STATES,
};

struct note {
	const struct pool *pool;	/* NULL: the console's */
	unsigned state;
	unsigned cancels;		/* under way for it */
	uint64_t wait_us;		/* of a client */
};

struct pool_notes {
	unsigned state[NOTE_STATES];
	unsigned cancels;
	uint64_t wait_us;		/* the longest */
};

void
collect_pools(struct worker *worker, struct rows *rows)
{
	for (unsigned state = 0; state < SERVER_GONE; state++)
		list_each(node, &worker->servers[state]) {
			const struct server *server =
			    container_of(node, struct server, node);
			struct note note = {
				.pool = server->pool,
				.state = server_is_used(server) ? NOTE_USED :
				    state,
				.cancels = server->cancels,
			};
			buf_add(rows->out, &note, sizeof(note));
		}
	list_each(node, &worker->clients[CLIENT_WELCOME]) {
		const struct client *client =
		    container_of(node, struct client, node);
		struct note note = {
			.pool = client->pool, .state = NOTE_WELCOME,
			.wait_us = clock_us() - client->state_us,
		};
		buf_add(rows->out, &note, sizeof(note));
	}
	list_each(node, &worker->clients[CLIENT_CONSOLE]) {
		struct note note = { .state = NOTE_CONSOLE };
		buf_add(rows->out, &note, sizeof(note));
	}
}

static int
note_compare(const void *left, const void *right)
{
	const struct note *a = left, *b = right;

	return a->pool < b->pool ? -1 : a->pool > b->pool;
}

/* All notes, sorted; NULL with *ret_count 0: there are none. */
static struct note *
notes_sort(const struct gather *gather, struct buf *all, size_t *ret_count)
{
	for (unsigned i = 0; i < gather->part_count; i++)
		buf_add_span(all, buf_span(&gather->part[i].out));
	*ret_count = all->len / sizeof(struct note);
	if (*ret_count > 1)
		qsort(all->at, *ret_count, sizeof(struct note), note_compare);
	return (struct note *)(void *)all->at;
}

static void
notes_count(const struct note *notes, size_t count, const struct pool *pool,
    struct pool_notes *ret)
{
	size_t low = 0, high = count;

	*ret = (struct pool_notes){ 0 };
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (notes[middle].pool < pool)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < count && notes[low].pool == pool; low++) {
		ret->state[notes[low].state]++;
		ret->cancels += notes[low].cancels;
		if (notes[low].wait_us > ret->wait_us)
			ret->wait_us = notes[low].wait_us;
	}
}

const char *
pool_mode_shown(int mode)
{
	switch (mode) {
	case POOL_SESSION:
		return "session";
	case POOL_TRANSACTION:
		return "transaction";
	default:
		return "statement";
	}
}

/* What is read under the lock: a RELOAD may change it. */
struct pool_settings {
	unsigned size;
	int mode;
	bool has_host, balances;
};

static void
pool_read_settings(struct pool *pool, struct pool_settings *ret)
{
	pthread_mutex_lock(&pool->lock);
	ret->size = pool_size(pool);
	ret->mode = (int)pool_mode(pool);
	ret->has_host = pool->db->host_count > 0 &&
	    pool->db->hosts[0][0] != '\0';
	ret->balances = pool->db->load_balance_hosts;
	pthread_mutex_unlock(&pool->lock);
}

static void
put_pool(struct rows *rows, struct pool *pool,
    const struct pool_notes *notes)
{
	const unsigned *in = notes->state;
	unsigned waiting;
	uint64_t wait_us;
	struct pool_settings settings;
	struct pool_trouble trouble;
	struct pool_counts counts;

	pool_read_settings(pool, &settings);
	pool_copy_trouble(pool, &trouble);
	pool_count(pool, &counts);
	waiting = counts.waiting + in[NOTE_WELCOME];
	wait_us = counts.oldest_wait_us > notes->wait_us ?
	    counts.oldest_wait_us : notes->wait_us;
	row_begin(rows);
	row_text(rows, pool->database);
	row_text(rows, pool->user);
	row_int(rows, counts.clients > waiting ?
	    counts.clients - waiting : 0);	/* cl_active */
	row_int(rows, waiting);
	row_int(rows, notes->cancels);		/* cl_active_cancel_req */
	row_int(rows, 0);			/* cl_waiting_cancel_req */
	row_int(rows, in[SERVER_ACTIVE]);
	row_int(rows, notes->cancels);		/* sv_active_cancel */
	row_int(rows, in[SERVER_COOLING] + in[SERVER_CLOSING]);
	row_int(rows, in[SERVER_IDLE]);
	row_int(rows, in[SERVER_FREE] + in[NOTE_USED]);
	row_int(rows, in[SERVER_TESTED] + in[SERVER_RESETTING]);
	row_int(rows, in[SERVER_RESOLVING] + in[SERVER_CONNECTING] +
	    in[SERVER_TLS_ASKED] + in[SERVER_TLS] + in[SERVER_LOGIN] +
	    in[SERVER_SETUP]);
	row_int(rows, wait_us / 1000000);
	row_int(rows, wait_us % 1000000);
	row_text(rows, pool_mode_shown(settings.mode));
	row_text(rows, !settings.has_host ? NULL :
	    settings.balances ? "round-robin" : "disable");
	row_int(rows, settings.size);
	row_text(rows, trouble.since_us != 0 ? trouble.message : NULL);
	row_end(rows);
}

static void
put_console(struct rows *rows, unsigned clients)
{
	row_begin(rows);
	row_text(rows, "pgsluice");
	row_text(rows, "pgsluice");
	row_int(rows, clients);
	for (int i = 0; i < 12; i++)	/* cl_waiting to maxwait_us */
		row_int(rows, 0);
	row_text(rows, pool_mode_shown(POOL_STATEMENT));
	row_null(rows);
	row_int(rows, 0);
	row_null(rows);
	row_end(rows);
}

void
show_pools(struct show *show)
{
	struct buf all = { 0 };
	size_t count;
	const struct note *notes = notes_sort(show->gather, &all, &count);
	struct pool_notes of_pool;
	struct pool *pool = NULL;

	while ((pool = pool_next(pool)) != NULL) {
		notes_count(notes, count, pool, &of_pool);
		put_pool(show->rows, pool, &of_pool);
	}
	notes_count(notes, count, NULL, &of_pool);
	put_console(show->rows, of_pool.state[NOTE_CONSOLE]);
	if (all.failed)
		show->rows->out->failed = true;
	buf_finish(&all);
}

/*
 * LISTS
 */

struct list_counts {
	uint64_t logging_in, used_clients;
};

void
collect_lists(struct worker *worker, struct rows *rows)
{
	struct list_counts counts = { 0, 0 };

	for (int state = 0; state < CLIENT_GONE; state++) {
		uint64_t here = list_count(&worker->clients[state]);
		if (state == CLIENT_STARTUP || state == CLIENT_AUTH ||
		    state == CLIENT_WELCOME)
			counts.logging_in += here;
		else
			counts.used_clients += here;
	}
	buf_add(rows->out, &counts, sizeof(counts));
}

static void
put_item(struct rows *rows, const char *name, uint64_t items)
{
	row_begin(rows);
	row_text(rows, name);
	row_int(rows, items);
	row_end(rows);
}

/* Pools, and the servers of all. */
static uint64_t
count_pools(uint64_t *ret_servers)
{
	struct pool *pool = NULL;
	uint64_t pools = 0;

	*ret_servers = 0;
	while ((pool = pool_next(pool)) != NULL) {
		struct pool_counts counts;
		pool_count(pool, &counts);
		*ret_servers += counts.servers;
		pools++;
	}
	return pools;
}

static struct list_counts
lists_sum(const struct gather *gather)
{
	struct list_counts sum = { 0, 0 }, one;

	for (unsigned i = 0; i < gather->part_count; i++) {
		const struct buf *out = &gather->part[i].out;
		if (out->len != sizeof(one))
			continue;
		memcpy(&one, out->at, sizeof(one));
		sum.logging_in += one.logging_in;
		sum.used_clients += one.used_clients;
	}
	return sum;
}

void
show_lists(struct show *show)
{
	struct rows *rows = show->rows;
	struct list_counts clients = lists_sum(show->gather);
	uint64_t servers, pools = count_pools(&servers);
	unsigned dns_names, dns_pending;

	dns_counts(&dns_names, &dns_pending);
	put_item(rows, "databases", count_databases(show->worker));
	put_item(rows, "users", count_users(show->worker));
	put_item(rows, "peers", 0);
	put_item(rows, "pools", pools + 1);	/* with the console's */
	put_item(rows, "peer_pools", 0);
	put_item(rows, "free_clients", 0);
	put_item(rows, "used_clients", clients.used_clients);
	put_item(rows, "login_clients", clients.logging_in);
	put_item(rows, "free_servers", 0);
	put_item(rows, "used_servers", servers);
	put_item(rows, "dns_names", dns_names);
	put_item(rows, "dns_zones", 0);
	put_item(rows, "dns_queries", 0);
	put_item(rows, "dns_pending", dns_pending);
}
