/*
 * Entries of the [databases] and [users] sections.
 *
 * Both are tables of keys, as the options are. A [databases] entry is
 * "resolved": a key that it does not set takes the value of the option of
 * the same meaning, so that nobody downstream has to look in two places. It
 * remembers in `own` which keys were its own, and can therefore be resolved
 * again when the console's SET changes an option.
 */
#include "conf/conf_database.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "conf/conf_value.h"

MEM_TYPE(database_type, conf_database);
MEM_TYPE(user_type, conf_user);

struct key {
	struct conf_field field;
	const char *option;		/* holds where not set; "" = none */
	const char *help;
};

#define MAX_CONNECTIONS "1000000"
#define MAX_CLIENTS "10000000"
#define FOREVER "36500d"

#define AT(member) offsetof(struct conf_database, member)

static const struct key database_keys[] = {
	{ { "port", CONF_INT, AT(port), "1", "65535" }, "",
	    "Port of the server, or the number in its unix socket's name; "
	    "5432 when not given." },
	{ { "dbname", CONF_TEXT_OR_NONE, AT(dbname), "", "" }, "",
	    "Name of the database on the server; this entry's when not "
	    "given." },
	{ { "user", CONF_TEXT_OR_NONE, AT(user), "", "" }, "",
	    "Log in to the server as this user, whoever the client is: one "
	    "pool for all." },
	{ { "password", CONF_TEXT_OR_NONE, AT(password), "", "" }, "",
	    "The password of `user`." },
	{ { "auth_user", CONF_TEXT_OR_NONE, AT(auth_user), "", "" },
	    "auth_user", "As the option." },
	{ { "auth_query", CONF_TEXT_OR_NONE, AT(auth_query), "", "" },
	    "auth_query", "As the option." },
	{ { "auth_dbname", CONF_TEXT_OR_NONE, AT(auth_dbname), "", "" },
	    "auth_dbname", "As the option." },
	{ { "connect_query", CONF_TEXT_OR_NONE, AT(connect_query), "", "" },
	    "", "Run on each new server connection." },
	{ { "application_name", CONF_TEXT_OR_NONE, AT(application_name), "",
	    "" }, "", "Asked of the server at login." },
	{ { "client_encoding", CONF_TEXT_OR_NONE, AT(client_encoding), "",
	    "" }, "", "Asked of the server at login." },
	{ { "datestyle", CONF_TEXT_OR_NONE, AT(datestyle), "", "" }, "",
	    "Asked of the server at login." },
	{ { "timezone", CONF_TEXT_OR_NONE, AT(timezone), "", "" }, "",
	    "Asked of the server at login." },
	{ { "pool_size", CONF_INT, AT(pool_size), "0", MAX_CONNECTIONS },
	    "default_pool_size", "Server connections for each user." },
	{ { "min_pool_size", CONF_INT, AT(min_pool_size), "0",
	    MAX_CONNECTIONS }, "min_pool_size", "As the option." },
	{ { "reserve_pool_size", CONF_INT, AT(reserve_pool_size), "0",
	    MAX_CONNECTIONS }, "reserve_pool_size",
	    "As the option; `reserve_pool` is the same." },
	{ { "pool_mode", CONF_POOL_MODE, AT(pool_mode), "", "" },
	    "pool_mode", "As the option." },
	{ { "max_db_connections", CONF_INT, AT(max_db_connections), "0",
	    MAX_CONNECTIONS }, "max_db_connections", "As the option." },
	{ { "max_db_client_connections", CONF_INT,
	    AT(max_db_client_connections), "0", MAX_CLIENTS },
	    "max_db_client_connections", "As the option." },
	{ { "server_lifetime", CONF_DURATION, AT(server_lifetime_us), "0",
	    FOREVER }, "server_lifetime", "As the option." },
	{ { "query_wait_timeout", CONF_DURATION, AT(query_wait_timeout_us),
	    "0", FOREVER }, "query_wait_timeout", "As the option." },
	{ { "load_balance_hosts", CONF_BALANCE, AT(load_balance_hosts), "",
	    "" }, "", "With several hosts: take turns, or stay with one "
	    "until it fails; round-robin when not given." },
	{ { "sslmode", CONF_SSLMODE, AT(sslmode), "", "" },
	    "server_tls_sslmode", "As the option. PgBouncer has no TLS "
	    "settings for a database." },
	{ { "sslrootcert", CONF_TEXT_OR_NONE, AT(ssl_ca_file), "", "" },
	    "server_tls_ca_file", "File of the certificates that sign the "
	    "server's; `system` is the operating system's, and what "
	    "verify-full uses when none is given." },
	{ { "sslcert", CONF_TEXT_OR_NONE, AT(ssl_cert_file), "", "" },
	    "server_tls_cert_file", "As the option." },
	{ { "sslkey", CONF_TEXT_OR_NONE, AT(ssl_key_file), "", "" },
	    "server_tls_key_file", "As the option." },
	{ { "channel_binding", CONF_BINDING, AT(channel_binding), "", "" },
	    "", "With `require` the server must prove by SCRAM-SHA-256-PLUS "
	    "that nobody sits in between; prefer when not given. Not in "
	    "PgBouncer." },
	{ { "migrate", CONF_BOOL, AT(migrate), "", "" }, "",
	    "Every client of this entry runs schema migrations; 0 when not "
	    "given. Not in PgBouncer." },
};
#undef AT

#define DATABASE_KEY_COUNT (sizeof(database_keys) / sizeof(database_keys[0]))
_Static_assert(DATABASE_KEY_COUNT <= 64, "one bit of `own` for each key");

#define AT(member) offsetof(struct conf_user, member)

static const struct key user_keys[] = {
	{ { "pool_size", CONF_INT, AT(pool_size), "0", MAX_CONNECTIONS },
	    "default_pool_size",
	    "Server connections for each database; goes before the "
	    "database's." },
	{ { "reserve_pool_size", CONF_INT, AT(reserve_pool_size), "0",
	    MAX_CONNECTIONS }, "reserve_pool_size", "As the option." },
	{ { "pool_mode", CONF_POOL_MODE, AT(pool_mode), "", "" },
	    "pool_mode", "As the option." },
	{ { "max_user_connections", CONF_INT, AT(max_user_connections), "0",
	    MAX_CONNECTIONS }, "max_user_connections", "As the option." },
	{ { "max_user_client_connections", CONF_INT,
	    AT(max_user_client_connections), "0", MAX_CLIENTS },
	    "max_user_client_connections", "As the option." },
	{ { "query_timeout", CONF_DURATION, AT(query_timeout_us), "0",
	    FOREVER }, "query_timeout", "As the option." },
	{ { "query_wait_timeout", CONF_DURATION, AT(query_wait_timeout_us),
	    "0", FOREVER }, "query_wait_timeout", "As the option." },
	{ { "idle_transaction_timeout", CONF_DURATION,
	    AT(idle_transaction_timeout_us), "0", FOREVER },
	    "idle_transaction_timeout", "As the option." },
	{ { "transaction_timeout", CONF_DURATION, AT(transaction_timeout_us),
	    "0", FOREVER }, "transaction_timeout", "As the option." },
	{ { "client_idle_timeout", CONF_DURATION, AT(client_idle_timeout_us),
	    "0", FOREVER }, "client_idle_timeout", "As the option." },
};
#undef AT

#define USER_KEY_COUNT (sizeof(user_keys) / sizeof(user_keys[0]))

/* For conf_suggest(): `host` has no row of its own. */
static const char *
database_key_at(const void *arg, unsigned index)
{
	(void)arg;
	if (index == DATABASE_KEY_COUNT)
		return "host";
	return index < DATABASE_KEY_COUNT ? database_keys[index].field.name :
	    NULL;
}

static const char *
user_key_at(const void *arg, unsigned index)
{
	(void)arg;
	return index < USER_KEY_COUNT ? user_keys[index].field.name : NULL;
}

static void
complain_of_key(struct buf *why, struct span key,
    const char *(*name_at)(const void *arg, unsigned index))
{
	const char *near = conf_suggest(key, name_at, NULL);

	buf_printf(why, "%.*s: there is no such key", SPAN_ARG(key));
	if (near != NULL)
		buf_printf(why, "; did you mean %s?", near);
}

bool
conf_file_is_readable(const char *path, struct buf *why)
{
	struct stat status;
	int error = 0;

	if (stat(path, &status) != 0 || access(path, R_OK) != 0)
		error = errno;
	else if (S_ISDIR(status.st_mode))
		error = EISDIR;
	if (error == 0)
		return true;
	buf_printf(why, "cannot read \"%s\": %s", path, strerror(error));
	return false;
}

/*
 * Cutting an entry up
 */

/*
 * The next key=value of *rest, by PgBouncer's rules: a value ends at white
 * space, or stands between single quotes, '' being one quote in it.
 * The value is put together in `value`. Returns 1, 0 at the end, -1 with why.
 */
static int
pair_next(struct span *rest, struct span *ret_key, struct buf *value,
    struct buf *why)
{
	struct span text = span_trim(*rest);
	size_t at = 0;

	buf_clear(value);
	if (text.len == 0)
		return 0;
	while (at < text.len && strchr("= \t'", text.at[at]) == NULL)
		at++;
	*ret_key = (struct span){ text.at, at };
	text = span_trim((struct span){ text.at + at, text.len - at });
	if (at == 0 || text.len == 0 || text.at[0] != '=') {
		/* What stands here may be half of a password with a space
		 * in it, so it is not shown. */
		buf_add_text(why, "expected key=value key=value ... (a value "
		    "with spaces goes into single quotes)");
		return -1;
	}
	text = span_trim((struct span){ text.at + 1, text.len - 1 });
	if (text.len > 0 && text.at[0] == '\'') {
		for (at = 1;; at++) {
			if (at == text.len) {
				buf_printf(why, "%.*s: the closing quote is "
				    "missing", SPAN_ARG(*ret_key));
				return -1;
			}
			if (text.at[at] == '\'' && (++at == text.len ||
			    text.at[at] != '\''))
				break;
			buf_add(value, text.at + at, 1);
		}
	} else {
		for (at = 0; at < text.len && text.at[at] != ' ' &&
		    text.at[at] != '\t'; at++)
			continue;
		buf_add(value, text.at, at);
	}
	*rest = (struct span){ text.at + at, text.len - at };
	if (value->failed) {
		buf_add_text(why, "out of memory");
		return -1;
	}
	return 1;
}

static bool
set_hosts(struct conf_database *db, struct span list, struct buf *why)
{
	struct span word;

	for (unsigned i = 0; i < db->host_count; i++) {
		mem_free(db->hosts[i]);
		db->hosts[i] = NULL;
	}
	db->host_count = 0;
	while (span_next(&list, ',', &word)) {
		if (db->host_count == CONF_HOSTS) {
			buf_printf(why, "host: more than %d", CONF_HOSTS);
			return false;
		}
		if (word.len == 0 || word.len > 255 ||
		    (word.at[0] == '@' && word.len == 1)) {
			buf_add_text(why, "host: expected a comma list of "
			    "names, addresses, /directories and @abstract "
			    "sockets");
			return false;
		}
		db->hosts[db->host_count] = mem_strndup(word.at, word.len);
		if (db->hosts[db->host_count] == NULL) {
			buf_add_text(why, "out of memory");
			return false;
		}
		db->host_count++;
	}
	return true;
}

static bool
is_pem_key(const char *name)
{
	return strcmp(name, "sslrootcert") == 0 ||
	    strcmp(name, "sslcert") == 0 || strcmp(name, "sslkey") == 0;
}

static bool
set_key(struct conf_database *db, struct span key, struct span value,
    struct buf *why)
{
	if (span_is(key, "host"))
		return set_hosts(db, value, why);
	if (span_is(key, "reserve_pool"))
		key = SPAN("reserve_pool_size");
	for (unsigned i = 0; i < DATABASE_KEY_COUNT; i++) {
		const struct conf_field *field = &database_keys[i].field;
		size_t had = why->len;

		if (!span_is(key, field->name))
			continue;
		buf_printf(why, "%s: ", field->name);
		if (!conf_field_set(field, db, value, why))
			return false;
		if (is_pem_key(field->name) && value.len > 0 &&
		    !span_is(value, "system") && !conf_file_is_readable(
		    *(char **)(void *)((char *)db + field->at), why))
			return false;
		why->len = had;
		db->own |= UINT64_C(1) << i;
		return true;
	}
	complain_of_key(why, key, database_key_at);
	return false;
}

/*
 * URLs
 */

/*
 * What the client libraries of the world put into a URL for themselves;
 * Postgres's own parser of URLs refuses them. They say nothing about the
 * server, so they are cut out.
 */
static const char *const drivers_params[] = {
	/* Prisma */
	"schema", "connection_limit", "pool_timeout", "socket_timeout",
	"pgbouncer", "statement_cache_size", "sslaccept", "sslidentity",
	"single_use_connections",
	/* node-postgres, postgres.js */
	"uselibpqcompat", "max", "idle_timeout", "prepare",
	/* asyncpg and SQLAlchemy, pgx */
	"prepared_statement_cache_size", "pool_max_conns", "pool_min_conns",
	"default_query_exec_mode", "statement_cache_capacity",
	/* Supabase, Vercel */
	"supa", "workaround",
};

/* libpq's parameters that change nothing here, with the value that they may
 * have; NULL = any. */
static const struct { const char *keyword, *value; } ignored_params[] = {
	{ "connect_timeout", NULL }, { "fallback_application_name", NULL },
	{ "gssencmode", "disable" }, { "gssencmode", "prefer" },
	{ "keepalives", NULL }, { "keepalives_count", NULL },
	{ "keepalives_idle", NULL }, { "keepalives_interval", NULL },
	{ "krbsrvname", NULL }, { "sslcompression", "0" },
	{ "sslnegotiation", "postgres" }, { "sslsni", "1" },
	{ "target_session_attrs", "any" }, { "tcp_user_timeout", NULL },
	{ "ssl_min_protocol_version", "TLSv1.2" },
};

static bool
is_drivers_param(struct span key)
{
	size_t count = sizeof(drivers_params) / sizeof(drivers_params[0]);

	for (size_t i = 0; i < count; i++)
		if (span_is(key, drivers_params[i]))
			return true;
	return false;
}

/* The URL without the drivers' own parameters. */
static void
url_without_drivers_params(struct span url, struct buf *out)
{
	const char *mark = memchr(url.at, '?', url.len);
	struct span rest, param, key;
	char sign = '?';

	if (mark == NULL) {
		buf_add_span(out, url);
		return;
	}
	rest = (struct span){ mark + 1, url.len - (size_t)(mark - url.at) -
	    1 };
	buf_add(out, url.at, (size_t)(mark - url.at));
	while (span_next(&rest, '&', &param)) {
		key = param;
		mark = param.len > 0 ? memchr(param.at, '=', param.len) :
		    NULL;
		if (mark != NULL)
			key.len = (size_t)(mark - param.at);
		if (is_drivers_param(key))
			continue;
		buf_add(out, &sign, 1);
		buf_add_span(out, param);
		sign = '&';
	}
}

/* While the conninfo parser calls back. */
struct url_reading {
	struct conf_database *db;
	struct buf *why;
	bool failed;
};

static bool
is_ignored_param(const char *keyword, const char *value)
{
	size_t count = sizeof(ignored_params) / sizeof(ignored_params[0]);

	for (size_t i = 0; i < count; i++)
		if (strcmp(keyword, ignored_params[i].keyword) == 0 &&
		    (ignored_params[i].value == NULL ||
		    strcmp(value, ignored_params[i].value) == 0))
			return true;
	return false;
}

/* "5432,5432" for two hosts: all must be the same, for a database has one. */
static bool
set_url_port(struct url_reading *reading, struct span list)
{
	struct span first, next;

	if (!span_next(&list, ',', &first))
		return true;
	while (span_next(&list, ',', &next))
		if (!span_eq(first, next)) {
			buf_add_text(reading->why, "port: all hosts of a "
			    "database have the same one here");
			return false;
		}
	return first.len == 0 || set_key(reading->db, SPAN("port"), first,
	    reading->why);
}

static void
on_url_pair(void *arg, const char *keyword, const char *value)
{
	static const char *const taken[] = {
		"host", "dbname", "user", "password", "application_name",
		"client_encoding", "sslmode", "sslrootcert", "sslcert",
		"sslkey", "channel_binding",
	};
	struct url_reading *reading = arg;

	if (reading->failed || value[0] == '\0' ||
	    is_ignored_param(keyword, value))
		return;
	if (strcmp(keyword, "port") == 0) {
		reading->failed = !set_url_port(reading, span_of(value));
		return;
	}
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (strcmp(keyword, taken[i]) == 0) {
			reading->failed = !set_key(reading->db,
			    span_of(keyword), span_of(value), reading->why);
			return;
		}
	buf_printf(reading->why, "%s: pgsluice cannot do this to a server",
	    keyword);
	if (strcmp(keyword, "options") == 0)
		buf_add_text(reading->why, "; connect_query=... can set "
		    "parameters");
	reading->failed = true;
}

/*
 * An error shows the value that it is about. In a URL that is not written
 * right this may be the password: postgres://user:password, without a host,
 * has the password for a port.
 */
static void
hide_value(struct buf *why, size_t from)
{
	static const char quoting[] = ", not \"";
	char *quoted = why->len > from ? memmem(why->at + from,
	    why->len - from, quoting, sizeof(quoting) - 1) : NULL;

	if (quoted != NULL)
		why->len = (size_t)(quoted - why->at);
}

static bool
is_url(struct span text)
{
	return span_starts_case(text, "postgres://") ||
	    span_starts_case(text, "postgresql://");
}

static bool
parse_url(struct conf_database *db, struct span url,
    conf_conninfo_parser *conninfo, struct buf *why)
{
	struct url_reading reading = { db, why, false };
	struct buf clean = { 0 };
	size_t had = why->len;
	char text[256] = "";
	bool ok = false;

	if (conninfo == NULL) {
		buf_add_text(why, "URLs cannot be read here");
		return false;
	}
	url_without_drivers_params(url, &clean);
	buf_add(&clean, "", 1);
	if (clean.failed)
		buf_add_text(why, "out of memory");
	else if (!conninfo(clean.at, on_url_pair, &reading, text,
	    sizeof(text)))
		buf_add_text(why, text);
	else
		ok = !reading.failed;
	hide_value(why, had);
	if (clean.at != NULL)
		mem_wipe(clean.at, clean.len);
	buf_finish(&clean);
	return ok;
}

bool
conf_database_parse(struct conf_database *db, struct span text,
    conf_conninfo_parser *conninfo, struct buf *why)
{
	struct buf value = { 0 };
	struct span key, url;
	int got = 1;

	text = span_trim(text);
	if (is_url(text)) {
		check(span_next(&text, ' ', &url));
		if (!parse_url(db, url, conninfo, why))
			return false;
	}
	while ((got = pair_next(&text, &key, &value, why)) > 0)
		if (!set_key(db, key, buf_span(&value), why)) {
			got = -1;
			break;
		}
	if (value.at != NULL)
		mem_wipe(value.at, value.cap);
	buf_finish(&value);
	return got == 0;
}

/*
 * The life of an entry
 */

struct conf_database *
conf_database_create(struct span name)
{
	struct conf_database *db = mem_new(&database_type);

	if (db == NULL)
		return NULL;
	db->name = mem_strndup(name.at, name.len);
	db->is_fallback = span_is(name, "*");
	db->port = 5432;
	db->load_balance_hosts = true;
	if (db->name == NULL) {
		conf_database_destroy(db);
		return NULL;
	}
	return db;
}

void
conf_database_destroy(struct conf_database *db)
{
	if (db == NULL)
		return;
	for (unsigned i = 0; i < DATABASE_KEY_COUNT; i++)
		conf_field_finish(&database_keys[i].field, db);
	for (unsigned i = 0; i < db->host_count; i++)
		mem_free(db->hosts[i]);
	conf_database_destroy(db->created);
	mem_free(db->name);
	mem_delete(&database_type, db);
}

struct conf_database *
conf_database_copy(const struct conf_database *from)
{
	struct conf_database *db = conf_database_create(span_of(from->name));
	bool ok = db != NULL;

	if (db == NULL)
		return NULL;
	db->own = from->own;
	for (unsigned i = 0; ok && i < DATABASE_KEY_COUNT; i++)
		ok = conf_field_copy(&database_keys[i].field, db, from);
	for (unsigned i = 0; ok && i < from->host_count; i++) {
		db->hosts[i] = mem_strdup(from->hosts[i]);
		ok = db->hosts[i] != NULL;
		db->host_count += ok;
	}
	if (!ok) {
		conf_database_destroy(db);
		return NULL;
	}
	return db;
}

struct conf_database *
conf_database_created(struct conf_database *db)
{
	struct conf_database *found = db->created, *made;

	if (found != NULL)
		return found;
	made = conf_database_copy(db);
	if (made == NULL)
		return NULL;
	mem_free(made->dbname);
	made->dbname = NULL;
	made->is_fallback = made->is_created = true;
	made->min_pool_size = 0;
	if (atomic_compare_exchange_strong(&db->created, &found, made))
		return made;
	conf_database_destroy(made);
	return found;
}

/* One key from its option. The types may differ in one thing: an option's
 * text is never NULL. */
static bool
take_option(struct conf_database *db, const struct key *key,
    const struct conf_options *options)
{
	int at = conf_option_find(span_of(key->option));
	const struct conf_field *from;
	struct buf text = { 0 };
	bool ok;

	check(at >= 0);
	from = &conf_option_at((unsigned)at)->field;
	conf_field_print(from, options, &text);
	ok = !text.failed && conf_field_set(&key->field, db, buf_span(&text),
	    &(struct buf){ .failed = true });
	buf_finish(&text);
	return ok;
}

bool
conf_database_resolve(struct conf_database *db,
    const struct conf_options *options)
{
	for (unsigned i = 0; i < DATABASE_KEY_COUNT; i++) {
		const struct key *key = &database_keys[i];

		if ((db->own >> i & 1) == 0 && key->option[0] != '\0' &&
		    !take_option(db, key, options))
			return false;
	}
	if (db->host_count == 0) {
		db->hosts[0] = mem_strdup("");
		if (db->hosts[0] == NULL)
			return false;
		db->host_count = 1;
	}
	if (db->dbname == NULL && !db->is_fallback) {
		db->dbname = mem_strdup(db->name);
		if (db->dbname == NULL)
			return false;
	}
	/* What a verified connection needs, and what browsers do. */
	if (db->ssl_ca_file == NULL && db->sslmode == CONF_SSL_VERIFY_FULL) {
		db->ssl_ca_file = mem_strdup("system");
		if (db->ssl_ca_file == NULL)
			return false;
	}
	return true;
}

static bool
is_of_server(const char *name)
{
	static const char *const keys[] = {
		"port", "dbname", "user", "password", "connect_query",
		"application_name", "client_encoding", "datestyle",
		"timezone", "sslmode", "sslrootcert", "sslcert", "sslkey",
		"channel_binding",
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(keys[i], name) == 0)
			return true;
	return false;
}

bool
conf_database_is_same_server(const struct conf_database *a,
    const struct conf_database *b)
{
	if (a->host_count != b->host_count)
		return false;
	for (unsigned i = 0; i < a->host_count; i++)
		if (strcmp(a->hosts[i], b->hosts[i]) != 0)
			return false;
	for (unsigned i = 0; i < DATABASE_KEY_COUNT; i++) {
		const struct conf_field *field = &database_keys[i].field;

		if (is_of_server(field->name) && !conf_field_equal(field, a, b))
			return false;
	}
	return true;
}

/*
 * [users]
 */

struct conf_user *
conf_user_create(struct span name)
{
	struct conf_user *user = mem_new(&user_type);

	if (user == NULL)
		return NULL;
	user->name = mem_strndup(name.at, name.len);
	if (user->name == NULL) {
		conf_user_destroy(user);
		return NULL;
	}
	user->pool_size = user->reserve_pool_size = user->pool_mode = -1;
	user->max_user_connections = user->max_user_client_connections = -1;
	user->query_timeout_us = user->query_wait_timeout_us = UINT64_MAX;
	user->idle_transaction_timeout_us = UINT64_MAX;
	user->transaction_timeout_us = UINT64_MAX;
	user->client_idle_timeout_us = UINT64_MAX;
	return user;
}

void
conf_user_destroy(struct conf_user *user)
{
	if (user == NULL)
		return;
	mem_free(user->name);
	mem_delete(&user_type, user);
}

struct conf_user *
conf_user_copy(const struct conf_user *from)
{
	struct conf_user *user = conf_user_create(span_of(from->name));

	if (user == NULL)
		return NULL;
	for (unsigned i = 0; i < USER_KEY_COUNT; i++)
		(void)conf_field_copy(&user_keys[i].field, user, from);
	return user;
}

static bool
set_user_key(struct conf_user *user, struct span key, struct span value,
    struct buf *why)
{
	for (unsigned i = 0; i < USER_KEY_COUNT; i++) {
		const struct conf_field *field = &user_keys[i].field;
		size_t had = why->len;

		if (!span_is(key, field->name))
			continue;
		buf_printf(why, "%s: ", field->name);
		if (!conf_field_set(field, user, value, why))
			return false;
		why->len = had;
		return true;
	}
	complain_of_key(why, key, user_key_at);
	return false;
}

bool
conf_user_parse(struct conf_user *user, struct span text, struct buf *why)
{
	struct buf value = { 0 };
	struct span key;
	int got;

	while ((got = pair_next(&text, &key, &value, why)) > 0)
		if (!set_user_key(user, key, buf_span(&value), why)) {
			got = -1;
			break;
		}
	buf_finish(&value);
	return got == 0;
}

/*
 * Documentation
 */

static void
each_key(const struct key *keys, size_t count, void (*each)(void *arg,
    const char *key, const char *expect, const char *option,
    const char *help), void *arg)
{
	for (size_t i = 0; i < count; i++) {
		struct buf expect = { 0 };

		conf_field_expect(&keys[i].field, &expect);
		buf_add(&expect, "", 1);
		if (!expect.failed)
			each(arg, keys[i].field.name, expect.at,
			    keys[i].option, keys[i].help);
		buf_finish(&expect);
	}
}

void
conf_database_each_key(void (*each)(void *arg, const char *key,
    const char *expect, const char *option, const char *help), void *arg)
{
	each(arg, "host", "a comma list", "",
	    "Names, addresses, `/directory` or `@abstract` of unix sockets; "
	    "the unix_socket_dir when not given.");
	each_key(database_keys, DATABASE_KEY_COUNT, each, arg);
}

void
conf_user_each_key(void (*each)(void *arg, const char *key,
    const char *expect, const char *option, const char *help), void *arg)
{
	each_key(user_keys, USER_KEY_COUNT, each, arg);
}
