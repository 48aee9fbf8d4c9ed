/* The configuration: an immutable snapshot, read from a file or a URL. */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"

enum pool_mode { POOL_SESSION, POOL_TRANSACTION, POOL_STATEMENT };
enum auth_type {
	AUTH_TRUST, AUTH_ANY, AUTH_PLAIN, AUTH_MD5, AUTH_SCRAM, AUTH_CERT,
	AUTH_HBA,
};
/* the order of enum tls_mode in net/tls.h (asserted where they meet) */
enum conf_sslmode {
	CONF_SSL_DISABLE, CONF_SSL_ALLOW, CONF_SSL_PREFER, CONF_SSL_REQUIRE,
	CONF_SSL_VERIFY_CA, CONF_SSL_VERIFY_FULL,
};
enum conf_migration_lock {
	MIGRATION_LOCK_EXCLUSIVE, MIGRATION_LOCK_SESSION, MIGRATION_LOCK_OFF,
};
enum conf_on_drain_timeout { DRAIN_PROCEED, DRAIN_ABORT, DRAIN_CANCEL };
enum conf_ddl_hold { DDL_HOLD_MIGRATORS, DDL_HOLD_ALL, DDL_HOLD_NONE };
enum conf_binding { BINDING_PREFER, BINDING_REQUIRE, BINDING_DISABLE };

/*
 * The options: one row each in options.def,
 *   X(TYPE, name, default, min, max, when, help)
 * TYPE gives the field: BOOL bool name; INT and OCTAL int name; DURATION
 * and DURATION_MS uint64_t name_us; SIZE uint64_t name_bytes; TEXT and COMMAND
 * char *name (never NULL); the enums int name. `when` is RELOAD or RESTART.
 */
struct conf_options {
#define FIELD_BOOL(name)	bool name;
#define FIELD_INT(name)		int name;
#define FIELD_DURATION(name)	uint64_t name##_us;
#define FIELD_DURATION_MS(name)	uint64_t name##_us;
#define FIELD_OCTAL(name)	int name;
#define FIELD_SIZE(name)	uint64_t name##_bytes;
#define FIELD_TEXT(name)	char *name;
#define FIELD_COMMAND(name)	char *name;
#define FIELD_POOL_MODE(name)	int name;
#define FIELD_AUTH_TYPE(name)	int name;
#define FIELD_SSLMODE(name)	int name;
#define FIELD_LOG_FORMAT(name)	int name;
#define FIELD_MIGRATION_LOCK(name) int name;
#define FIELD_ON_DRAIN_TIMEOUT(name) int name;
#define FIELD_DDL_HOLD(name)	int name;
#define X(type, name, def, min, max, when, help) FIELD_##type(name)
#include "conf/options.def"
#undef X
};

#define CONF_HOSTS 8

/*
 * A [databases] entry, every setting resolved: what the entry itself does
 * not say has the global value. In `*` (is_fallback) dbname is NULL: the
 * name the client asked for.
 */
struct conf_database {
	struct hash_node by_name;
	char *name;
	bool is_fallback;
	char *hosts[CONF_HOSTS];	/* name, address, "/dir", "@x"; */
	unsigned host_count;		/* one "" = default unix directory */
	unsigned port;
	char *dbname;			/* NULL = as the client's */
	char *user;			/* NULL = the client's own */
	char *password;			/* NULL = none */
	char *auth_user, *auth_query, *auth_dbname;	/* NULL = none */
	char *connect_query;		/* NULL = none */
	char *application_name, *client_encoding, *datestyle, *timezone;
	int pool_size, min_pool_size, reserve_pool_size;
	int pool_mode;			/* enum pool_mode */
	int max_db_connections, max_db_client_connections;	/* 0 = none */
	uint64_t server_lifetime_us, query_wait_timeout_us;
	bool load_balance_hosts;	/* round-robin, else stick */
	int sslmode;			/* enum conf_sslmode, to servers */
	char *ssl_ca_file, *ssl_cert_file, *ssl_key_file;  /* NULL = none */
	int channel_binding;		/* enum conf_binding, to servers */
	bool migrate;			/* every client of it is a migrator */
	uint64_t own;			/* which keys the entry itself set */
	/* What it is for databases that clients create through it; NULL: none
	 * has asked (conf_find_created). In that one is_created is set, and
	 * dbname is NULL. */
	_Atomic(struct conf_database *) created;
	bool is_created;
};

/* A [users] entry; -1 / UINT64_MAX: not set, the wider setting holds. */
struct conf_user {
	struct hash_node by_name;
	char *name;
	int pool_size, reserve_pool_size, pool_mode;
	int max_user_connections, max_user_client_connections;
	uint64_t query_timeout_us, query_wait_timeout_us;
	uint64_t idle_transaction_timeout_us, transaction_timeout_us;
	uint64_t client_idle_timeout_us;
};

struct conf {
	_Atomic unsigned refs;
	struct conf_options o;
	struct hash databases;		/* of struct conf_database */
	struct conf_database *fallback;	/* `*`, or NULL */
	struct hash users;		/* of struct conf_user */
	char *path;			/* NULL: made from a URL */
	/* Made from a URL: the one user that clients log in as. */
	char *url_user, *url_password;
};

/*
 * conf/ knows no libpq: whoever loads hands in the parser of postgres://
 * URLs and conninfo strings (net/ask's ask_parse_conninfo).
 */
typedef bool conf_conninfo_parser(const char *text,
    void (*each)(void *arg, const char *keyword, const char *value),
    void *arg, char *why, size_t why_size);

/*
 * Both give a validated snapshot with one reference, or NULL and a text:
 * "pgsluice.ini:12: query_wait_timeout: ..." - every error of the file is
 * reported, one a line. All or nothing.
 */
struct conf *conf_load(const char *path, conf_conninfo_parser *conninfo,
    struct buf *ret_why);
/* The same from memory; `name` stands for the file, %include is refused. */
struct conf *conf_load_text(const char *name, struct span text,
    conf_conninfo_parser *conninfo, struct buf *ret_why);
struct conf *conf_from_url(const char *url, conf_conninfo_parser *conninfo,
    struct buf *ret_why);
/* A copy with one option changed (the console's SET); NULL and a text. */
struct conf *conf_with(const struct conf *conf, struct span name,
    struct span value, struct buf *ret_why);
struct conf *conf_ref(struct conf *conf);
void conf_unref(struct conf *conf);

/* The entry of this name, else the fallback, else NULL. */
const struct conf_database *conf_find_database(const struct conf *conf,
    struct span name);
/* Only its own entry; NULL: none. */
const struct conf_database *conf_find_own_database(const struct conf *conf,
    struct span name);
/*
 * The entry for a database that a client has created through the entry
 * `through`: the same hosts, users and limits, but for the database that is
 * asked for, and with no servers that nobody uses (min_pool_size). It lives as
 * long as the snapshot. Any thread. NULL: out of memory, or there is no
 * `through`.
 */
const struct conf_database *conf_find_created(const struct conf *conf,
    struct span through);
const struct conf_user *conf_find_user(const struct conf *conf,
    struct span name);			/* NULL = no entry */

/* Settings that differ between two snapshots and need a restart: called
 * for each; a reload logs them. */
void conf_each_restart_needed(const struct conf *was, const struct conf *is,
    void (*each)(void *arg, const char *name), void *arg);
/* For SHOW CONFIG: every option as text, in the order of options.def. */
void conf_each_option(const struct conf *conf,
    void (*each)(void *arg, const char *name, const char *value,
    const char *def, bool changeable), void *arg);
/* doc/settings.md, from the table. */
void conf_print_settings(struct buf *out);

/* Is `word` in the comma list `list` ("admin_users")? */
bool conf_list_has(const char *list, struct span word);

#endif
