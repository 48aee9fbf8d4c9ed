/*
 * SHOW DATABASES and USERS: what the configuration says, and what has come
 * up besides it - databases that the entry `*` stands for or that clients have
 * created, users that only auth_query knows.
 *
 * The names come from several places, so they are put in order first; a name
 * then has one row however often it was found.
 */
#include "admin/show.h"

#include <stdlib.h>
#include <string.h>

#include "auth/users.h"
#include "conf/conf.h"
#include "pool/created.h"
#include "session/setup.h"
#include "session/worker.h"

#define CONSOLE "pgsluice"

/* Names, borrowed from whoever has them. */
struct names {
	struct buf spans;		/* of struct span */
};

static void
names_add(void *arg, struct span name)
{
	struct names *names = arg;

	buf_add(&names->spans, &name, sizeof(name));
}

static int
span_compare(const void *left, const void *right)
{
	const struct span *a = left, *b = right;
	size_t len = a->len < b->len ? a->len : b->len;
	int order = len > 0 ? memcmp(a->at, b->at, len) : 0;

	return order != 0 ? order : a->len < b->len ? -1 : a->len > b->len;
}

/* Sorted, each once. */
static const struct span *
names_sort(struct names *names, size_t *ret_count)
{
	struct span *span = (struct span *)(void *)names->spans.at;
	size_t count = names->spans.len / sizeof(*span), kept = 0;

	if (count > 1)
		qsort(span, count, sizeof(*span), span_compare);
	for (size_t i = 0; i < count; i++)
		if (kept == 0 || !span_eq(span[kept - 1], span[i]))
			span[kept++] = span[i];
	*ret_count = kept;
	return span;
}

static void
names_finish(struct names *names, struct rows *rows)
{
	if (names->spans.failed && rows != NULL)
		rows->out->failed = true;
	buf_finish(&names->spans);
}

/*
 * Databases.
 */

static const struct conf_database *
entry_of(const struct conf *conf, struct span name)
{
	return created_find_entry(conf, name, SPAN_NONE);
}

/* A database that was taken out by a RELOAD, or that a client has created and
 * dropped, may have pools still, but it has no entry. */
static void
find_databases(const struct worker *worker, struct names *names)
{
	const struct conf *conf = worker->setup->conf;
	struct pool_quota *quota = NULL;
	struct hash_node *node = NULL;

	while ((node = hash_walk(&conf->databases, node)) != NULL)
		names_add(names, span_of(container_of(node,
		    struct conf_database, by_name)->name));
	while ((quota = pool_quota_next(quota, false)) != NULL)
		if (entry_of(conf, span_of(quota->name)) != NULL)
			names_add(names, span_of(quota->name));
	names_add(names, SPAN(CONSOLE));
}

static void
put_hosts(struct rows *rows, const struct conf_database *db)
{
	struct buf list = { 0 };

	for (unsigned i = 0; i < db->host_count; i++)
		buf_printf(&list, "%s%s", i > 0 ? "," : "", db->hosts[i]);
	row_span(rows, list.len > 0 ? buf_span(&list) : SPAN_NONE);
	buf_finish(&list);
}

static void
put_console(struct rows *rows, int port)
{
	row_begin(rows);
	row_text(rows, CONSOLE);
	row_null(rows);
	row_int(rows, (uint64_t)port);
	row_text(rows, CONSOLE);
	row_text(rows, CONSOLE);
	for (int i = 0; i < 4; i++)	/* pool_size to server_lifetime */
		row_int(rows, 0);
	row_text(rows, pool_mode_shown(POOL_STATEMENT));
	row_null(rows);
	for (int i = 0; i < 6; i++)	/* max_connections to disabled */
		row_int(rows, 0);
	row_end(rows);
}

static uint64_t
count_of(int value)
{
	return value > 0 ? (uint64_t)value : 0;
}

static void
put_database(struct rows *rows, struct span name,
    const struct conf_database *db)
{
	const struct pool_quota *quota = pool_quota_find(name, false);

	row_begin(rows);
	row_span(rows, name);
	put_hosts(rows, db);
	row_int(rows, db->port);
	row_span(rows, db->dbname != NULL ? span_of(db->dbname) : name);
	row_text(rows, db->user);
	row_int(rows, count_of(db->pool_size));
	row_int(rows, count_of(db->min_pool_size));
	row_int(rows, count_of(db->reserve_pool_size));
	row_int(rows, db->server_lifetime_us / 1000000);
	row_text(rows, pool_mode_shown(db->pool_mode));
	row_text(rows, db->host_count == 0 || db->hosts[0][0] == '\0' ? NULL :
	    db->load_balance_hosts ? "round-robin" : "disable");
	row_int(rows, count_of(db->max_db_connections));
	row_int(rows, quota != NULL ? count_of(quota->servers) : 0);
	row_int(rows, count_of(db->max_db_client_connections));
	row_int(rows, quota != NULL ? count_of(quota->clients) : 0);
	row_int(rows, gate_state() == GATE_PAUSED ||
	    (quota != NULL && quota->paused));
	row_int(rows, quota != NULL && quota->disabled);
	row_end(rows);
}

void
show_databases(struct show *show)
{
	const struct conf *conf = show->worker->setup->conf;
	struct names names = { 0 };
	const struct span *name;
	size_t count;

	find_databases(show->worker, &names);
	name = names_sort(&names, &count);
	for (size_t i = 0; i < count; i++) {
		const struct conf_database *db = entry_of(conf, name[i]);
		if (span_is(name[i], CONSOLE))
			put_console(show->rows, conf->o.listen_port);
		else if (db != NULL)
			put_database(show->rows, name[i], db);
	}
	names_finish(&names, show->rows);
}

uint64_t
count_databases(const struct worker *worker)
{
	struct names names = { 0 };
	size_t count;

	find_databases(worker, &names);
	names_sort(&names, &count);
	names_finish(&names, NULL);
	return count;
}

/*
 * Users.
 */

static void
find_users(const struct worker *worker, struct names *names)
{
	const struct conf *conf = worker->setup->conf;
	struct pool_quota *quota = NULL;
	struct hash_node *node = NULL;

	users_each(worker->setup->users, names_add, names);
	while ((node = hash_walk(&conf->users, node)) != NULL)
		names_add(names, span_of(container_of(node,
		    struct conf_user, by_name)->name));
	while ((quota = pool_quota_next(quota, true)) != NULL)
		names_add(names, span_of(quota->name));
}

/* What [users] does not say is NULL: the database's or global value holds. */
static void
put_own(struct rows *rows, int value)
{
	if (value < 0)
		row_null(rows);
	else
		row_int(rows, (uint64_t)value);
}

static void
put_user(struct rows *rows, struct span name, const struct conf *conf)
{
	static const struct conf_user unset = {
		.pool_size = -1, .reserve_pool_size = -1, .pool_mode = -1,
		.max_user_connections = -1, .max_user_client_connections = -1,
	};
	const struct conf_user *user = conf_find_user(conf, name);
	const struct pool_quota *quota = pool_quota_find(name, true);

	if (user == NULL)
		user = &unset;
	row_begin(rows);
	row_span(rows, name);
	put_own(rows, user->pool_size);
	put_own(rows, user->reserve_pool_size);
	row_text(rows, user->pool_mode >= 0 ?
	    pool_mode_shown(user->pool_mode) : NULL);
	row_int(rows, count_of(user->max_user_connections >= 0 ?
	    user->max_user_connections : conf->o.max_user_connections));
	row_int(rows, quota != NULL ? count_of(quota->servers) : 0);
	row_int(rows, count_of(user->max_user_client_connections >= 0 ?
	    user->max_user_client_connections :
	    conf->o.max_user_client_connections));
	row_int(rows, quota != NULL ? count_of(quota->clients) : 0);
	row_end(rows);
}

void
show_users(struct show *show)
{
	struct names names = { 0 };
	const struct span *name;
	size_t count;

	find_users(show->worker, &names);
	name = names_sort(&names, &count);
	for (size_t i = 0; i < count; i++)
		put_user(show->rows, name[i], show->worker->setup->conf);
	names_finish(&names, show->rows);
}

uint64_t
count_users(const struct worker *worker)
{
	struct names names = { 0 };
	size_t count;

	find_users(worker, &names);
	names_sort(&names, &count);
	names_finish(&names, NULL);
	return count;
}
