/*
 * auth_query.
 *
 * A user who is not in the auth_file may be asked of the database: as
 * auth_user, over a connection of its own (net/ask) that each worker keeps for
 * a while. Answers are cached for the process (auth/users), so a login seldom
 * costs a query; a login that failed with a cached answer has it asked anew
 * the next time.
 */
#include "session/lookup.h"

#include <stdio.h>
#include <string.h>

#include "auth/users.h"
#include "base/log.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "net/ask.h"
#include "pool/target.h"
#include "session/setup.h"
#include "session/worker.h"

#define ASK_IDLE_US 10000000

/* A worker's connection for the questions about one database's users. */
struct lookup_source {
	struct hash_node by_name;
	char *name;			/* of the database entry */
	struct ask *ask;
	const struct conf *conf;	/* it was made from this one */
	struct target *target;		/* where it is connected to */
};

struct lookup {
	char *database, *user;
	void (*found)(void *arg, const struct secret *secret); /* or NULL */
	void *arg;
	struct lookup **slot;		/* cleared when answered */
};

MEM_TYPE(lookup_type, lookup);
MEM_TYPE(lookup_source_type, lookup_source);

/* How to ask about the users of a database. */
struct lookup_way {
	const struct conf_database *at;	/* where the query runs */
	const char *database;		/* the name that leads there */
	const char *user;
	const char *query;
};

static bool
lookup_way(const struct conf *conf, const char *database,
    struct lookup_way *ret)
{
	const struct conf_database *db =
	    conf_find_database(conf, span_of(database));
	const char *at = conf->o.auth_dbname;

	ret->user = conf->o.auth_user;
	ret->query = conf->o.auth_query;
	if (db != NULL && db->auth_user != NULL)
		ret->user = db->auth_user;
	if (db != NULL && db->auth_query != NULL)
		ret->query = db->auth_query;
	if (db != NULL && db->auth_dbname != NULL)
		at = db->auth_dbname;
	ret->at = at[0] == '\0' ? db : conf_find_database(conf, span_of(at));
	ret->database = at[0] == '\0' ? database : at;
	return ret->at != NULL && ret->user[0] != '\0' &&
	    ret->query[0] != '\0';
}

bool
lookup_is_configured(const struct conf *conf, const char *database)
{
	struct lookup_way way;

	return lookup_way(conf, database, &way);
}

static struct ask *
source_open(struct worker *worker, const struct lookup_way *way)
{
	static const char *const modes[] = {
		"disable", "allow", "prefer", "require", "verify-ca",
		"verify-full",
	};
	static const char *const bindings[] = {
		[BINDING_PREFER] = "prefer", [BINDING_REQUIRE] = "require",
		[BINDING_DISABLE] = "disable",
	};
	const struct conf_database *db = way->at;
	const struct conf_options *o = &worker->setup->conf->o;
	const struct secret *secret = users_find(worker->setup->users,
	    span_of(way->user));
	const char *password = secret != NULL && secret->kind == SECRET_PLAIN ?
	    secret->text : NULL;
	struct ask_settings settings = {
		.host = db->hosts[0], .port = db->port,
		.dbname = db->dbname != NULL ? db->dbname :
		    db->is_fallback ? way->database : db->name,
		.user = way->user,
		.password = password != NULL ? password :
		    db->user != NULL && strcmp(db->user, way->user) == 0 ?
		    db->password : NULL,
		.sslmode = modes[db->sslmode],
		.ca_file = db->ssl_ca_file, .cert_file = db->ssl_cert_file,
		.key_file = db->ssl_key_file,
		.channel_binding = bindings[db->channel_binding],
		.connect_timeout_us = o->server_connect_timeout_us,
		.query_timeout_us = o->server_connect_timeout_us,
		.idle_us = ASK_IDLE_US,
	};

	return ask_create(worker->loop, &settings);
}

static void
source_destroy(struct lookup_source *source)
{
	ask_destroy(source->ask);
	mem_free(source->name);
	mem_delete(&lookup_source_type, source);
}

/* The worker's connection for this database, made anew after a reload. */
static struct ask *
source_get(struct worker *worker, const struct lookup_way *way,
    const char *database)
{
	uint64_t hash = span_hash(span_of(database));
	struct hash_node *node = hash_find(&worker->asks, hash);
	struct lookup_source *source;

	for (; node != NULL; node = hash_next_equal(node)) {
		source = container_of(node, struct lookup_source, by_name);
		if (strcmp(source->name, database) != 0)
			continue;
		if (source->conf == worker->setup->conf)
			return source->ask;
		hash_remove(&worker->asks, node);
		source_destroy(source);
		break;
	}
	source = mem_new(&lookup_source_type);
	if (source == NULL)
		return NULL;
	source->conf = worker->setup->conf;
	source->name = mem_strdup(database);
	source->ask = source_open(worker, way);
	source->target = target_get(way->at, span_of(way->database));
	if (source->name == NULL || source->ask == NULL ||
	    !hash_add(&worker->asks, &source->by_name, hash)) {
		source_destroy(source);
		return NULL;
	}
	return source->ask;
}

void
lookup_vacate(struct worker *worker, const struct target *target)
{
	struct hash_node *node = NULL, *after;

	for (node = hash_walk(&worker->asks, NULL); node != NULL;
	    node = after) {
		struct lookup_source *source =
		    container_of(node, struct lookup_source, by_name);
		after = hash_walk(&worker->asks, node);
		if (source->target != target || !ask_is_at_rest(source->ask))
			continue;
		hash_remove(&worker->asks, node);
		source_destroy(source);
	}
}

void
lookup_finish(struct worker *worker)
{
	struct hash_node *node;

	while ((node = hash_walk(&worker->asks, NULL)) != NULL) {
		hash_remove(&worker->asks, node);
		source_destroy(container_of(node, struct lookup_source,
		    by_name));
	}
	hash_finish(&worker->asks);
}

static void
lookup_let_go(struct lookup *lookup)
{
	if (lookup->slot != NULL)
		*lookup->slot = NULL;
	lookup->slot = NULL;
}

static void
lookup_free(struct lookup *lookup)
{
	lookup_let_go(lookup);
	mem_free(lookup->database);
	mem_free(lookup->user);
	mem_delete(&lookup_type, lookup);
}

/* One row: the user's name and secret; no row: nobody. One whose secret is NULL
 * has none, and may come in where none is asked for (trust, cert, peer). */
static void
lookup_answered(void *arg, const struct ask_answer *answer)
{
	struct lookup *lookup = arg;
	struct secret secret = { .kind = SECRET_NONE };
	const char *text = NULL;
	bool known = answer->result == ASK_ROWS && answer->rows > 0 &&
	    answer->columns >= 2;

	if (known)
		text = answer->cell(answer, 0, 1);
	if (answer->result != ASK_ROWS)
		log_error("auth_query for %s/%s failed: %s", lookup->database,
		    lookup->user, answer->error);
	else if (text != NULL)
		known = secret_parse(span_of(text), &secret);
	if (answer->result == ASK_ROWS)
		users_cache(span_of(lookup->database), span_of(lookup->user),
		    known ? &secret : NULL);
	/* Who asked may be gone once it has been told. */
	lookup_let_go(lookup);
	if (lookup->found != NULL)
		lookup->found(lookup->arg, known ? &secret : NULL);
	secret_finish(&secret);
	lookup_free(lookup);
}

void
lookup_start(struct worker *worker, const char *database, const char *user,
    void (*found)(void *arg, const struct secret *secret), void *arg,
    struct lookup **ret_lookup)
{
	struct secret secret = { .kind = SECRET_NONE };
	struct lookup_way way;
	struct lookup *lookup;
	struct ask *ask;
	bool known;

	if (users_cached(span_of(database), span_of(user), &secret, &known)) {
		found(arg, known ? &secret : NULL);
		secret_finish(&secret);
		return;
	}
	lookup = mem_new(&lookup_type);
	ask = lookup_way(worker->setup->conf, database, &way) ?
	    source_get(worker, &way, database) : NULL;
	if (lookup != NULL) {
		lookup->database = mem_strdup(database);
		lookup->user = mem_strdup(user);
	}
	if (ask == NULL || lookup == NULL || lookup->database == NULL ||
	    lookup->user == NULL) {
		if (lookup != NULL)
			lookup_free(lookup);
		found(arg, NULL);
		return;
	}
	lookup->found = found;
	lookup->arg = arg;
	lookup->slot = ret_lookup;
	*ret_lookup = lookup;
	ask_query(ask, way.query, 1, &user, lookup_answered, lookup);
}

void
lookup_cancel(struct lookup *lookup)
{
	if (lookup == NULL)
		return;
	lookup->found = NULL;
	lookup->slot = NULL;
}
