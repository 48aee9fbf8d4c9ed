/*
 * The configuration: an immutable, reference-counted snapshot.
 *
 *   file --- ini --- on_section, on_setting --- check, resolve --- conf
 *   URL  -------------- one entry ---------------'                  |
 *                                                       everybody reads it;
 *   conf --- copy --- one option set --- check, resolve --- conf    a reload
 *            (the console's SET)                                    swaps it
 *
 * All or nothing: whatever is wrong, and all that is wrong, is told with its
 * file and line, and the snapshot that was in use stays in use.
 */
#include "conf/conf.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "conf/conf_check.h"
#include "conf/conf_database.h"
#include "conf/conf_value.h"
#include "conf/ini.h"

MEM_TYPE(conf_type, conf);

/* While a snapshot is being made. */
struct loading {
	struct conf *conf;
	conf_conninfo_parser *conninfo;
	struct buf *why;		/* the errors, one a line */
	struct ini_place *places;	/* one an option; NULL = default */
	const char *source;		/* for what has no line of its own */
	enum { IN_OPTIONS, IN_DATABASES, IN_USERS } section;
	bool was_read;			/* some of the file */
	bool failed;
};

/*
 * Errors
 */

/* "pgsluice.ini:12: " in front of a new line of `why`. */
static void
say_place(struct loading *loading, const struct ini_place *place)
{
	loading->failed = true;
	if (loading->why->len > 0)
		buf_add_text(loading->why, "\n");
	if (place == NULL || place->file == NULL) {
		if (loading->source != NULL)
			buf_printf(loading->why, "%s: ", loading->source);
	} else if (place->line == 0) {
		buf_printf(loading->why, "%s: ", place->file);
	} else {
		buf_printf(loading->why, "%s:%u: ", place->file, place->line);
	}
}

static void
fail(struct loading *loading, const struct ini_place *place,
    const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void
fail(struct loading *loading, const struct ini_place *place,
    const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	say_place(loading, place);
	buf_add_text(loading->why, text);
}

static void
fail_for_memory(struct loading *loading)
{
	fail(loading, NULL, "out of memory");
}

/*
 * Options
 */

static bool
options_set_defaults(struct conf_options *options)
{
	struct buf why = { 0 };
	bool ok = true;

	for (unsigned i = 0; ok && i < conf_option_count(); i++) {
		const struct conf_option *option = conf_option_at(i);

		ok = conf_field_set(&option->field, options,
		    span_of(option->def), &why);
	}
	buf_finish(&why);
	return ok;
}

static void
options_finish(struct conf_options *options)
{
	for (unsigned i = 0; i < conf_option_count(); i++)
		conf_field_finish(&conf_option_at(i)->field, options);
}

/* A setting that no row has: why. False: it asks for nothing, let it be. */
static bool
say_unknown(struct span name, struct span value, struct buf *why)
{
	const char *near;

	switch (conf_missing_find(name, value)) {
	case CONF_NOT_YET_BUT_OFF:
		return false;
	case CONF_NOT_YET:
		buf_printf(why, "%.*s: a PgBouncer setting that pgsluice does "
		    "not have yet", SPAN_ARG(name));
		return true;
	case CONF_UNKNOWN:
		break;
	}
	buf_printf(why, "%.*s: there is no such setting", SPAN_ARG(name));
	near = conf_suggest(name, conf_option_name_at, NULL);
	if (near != NULL)
		buf_printf(why, "; did you mean %s?", near);
	return true;
}

static void
on_option(struct loading *loading, const struct ini_place *place,
    struct span name, struct span value)
{
	int index = conf_option_find(name);
	struct buf why = { 0 };

	if (index < 0) {
		if (say_unknown(name, value, &why)) {
			say_place(loading, place);
			buf_add_span(loading->why, buf_span(&why));
		}
	} else if (conf_field_set(&conf_option_at((unsigned)index)->field,
	    &loading->conf->o, value, &why)) {
		loading->places[index] = *place;
	} else {
		say_place(loading, place);
		buf_printf(loading->why, "%.*s: ", SPAN_ARG(name));
		buf_add_span(loading->why, buf_span(&why));
	}
	buf_finish(&why);
}

/*
 * Entries
 */

static struct conf_database *
database_find(const struct conf *conf, struct span name)
{
	struct hash_node *node = hash_find(&conf->databases, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct conf_database *db = container_of(node,
		    struct conf_database, by_name);

		if (span_is(name, db->name))
			return db;
	}
	return NULL;
}

static struct conf_user *
user_find(const struct conf *conf, struct span name)
{
	struct hash_node *node = hash_find(&conf->users, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct conf_user *user = container_of(node, struct conf_user,
		    by_name);

		if (span_is(name, user->name))
			return user;
	}
	return NULL;
}

/* Takes the entry, in place of one of the same name; false: out of memory,
 * and it is still the caller's. */
static bool
database_add(struct conf *conf, struct conf_database *db)
{
	struct span name = span_of(db->name);
	struct conf_database *before = database_find(conf, name);

	if (db->is_fallback) {
		conf_database_destroy(conf->fallback);
		conf->fallback = db;
		return true;
	}
	if (!hash_add(&conf->databases, &db->by_name, span_hash(name)))
		return false;
	if (before != NULL) {
		hash_remove(&conf->databases, &before->by_name);
		conf_database_destroy(before);
	}
	return true;
}

static bool
user_add(struct conf *conf, struct conf_user *user)
{
	struct span name = span_of(user->name);
	struct conf_user *before = user_find(conf, name);

	if (!hash_add(&conf->users, &user->by_name, span_hash(name)))
		return false;
	if (before != NULL) {
		hash_remove(&conf->users, &before->by_name);
		conf_user_destroy(before);
	}
	return true;
}

static bool
is_console(struct span name)
{
	return span_is(name, "pgsluice") || span_is(name, "pgbouncer");
}

static void
on_database(struct loading *loading, const struct ini_place *place,
    struct span name, struct span value)
{
	struct conf_database *db;
	struct buf why = { 0 };

	if (is_console(name)) {
		fail(loading, place, "%.*s: this name is the console's",
		    SPAN_ARG(name));
		return;
	}
	db = conf_database_create(name);
	if (db == NULL) {
		fail_for_memory(loading);
	} else if (!conf_database_parse(db, value, loading->conninfo, &why)) {
		say_place(loading, place);
		buf_printf(loading->why, "%s: ", db->name);
		buf_add_span(loading->why, buf_span(&why));
	} else if (!database_add(loading->conf, db)) {
		fail_for_memory(loading);
	} else {
		db = NULL;
	}
	conf_database_destroy(db);
	buf_finish(&why);
}

static void
on_user(struct loading *loading, const struct ini_place *place,
    struct span name, struct span value)
{
	struct conf_user *user = conf_user_create(name);
	struct buf why = { 0 };

	if (user == NULL) {
		fail_for_memory(loading);
	} else if (!conf_user_parse(user, value, &why)) {
		say_place(loading, place);
		buf_printf(loading->why, "%s: ", user->name);
		buf_add_span(loading->why, buf_span(&why));
	} else if (!user_add(loading->conf, user)) {
		fail_for_memory(loading);
	} else {
		user = NULL;
	}
	conf_user_destroy(user);
	buf_finish(&why);
}

/*
 * Files
 */

static bool
on_section(void *arg, const struct ini_place *place, struct span name)
{
	struct loading *loading = arg;

	loading->was_read = true;
	if (span_is(name, "pgsluice") || span_is(name, "pgbouncer")) {
		loading->section = IN_OPTIONS;
	} else if (span_is(name, "databases")) {
		loading->section = IN_DATABASES;
	} else if (span_is(name, "users")) {
		loading->section = IN_USERS;
	} else if (span_is(name, "peers")) {
		fail(loading, place, "[peers]: a PgBouncer section that "
		    "pgsluice does not have yet");
		return false;
	} else {
		fail(loading, place, "[%.*s]: there is no such section; "
		    "expected [pgsluice], [databases] or [users]",
		    SPAN_ARG(name));
		return false;
	}
	return true;
}

static void
on_setting(void *arg, const struct ini_place *place, const char *section,
    const char *name, const char *value)
{
	struct loading *loading = arg;

	(void)section;
	switch (loading->section) {
	case IN_OPTIONS:
		on_option(loading, place, span_of(name), span_of(value));
		break;
	case IN_DATABASES:
		on_database(loading, place, span_of(name), span_of(value));
		break;
	case IN_USERS:
		on_user(loading, place, span_of(name), span_of(value));
		break;
	}
}

static void
on_ini_error(void *arg, const struct ini_place *place, const char *text)
{
	fail(arg, place, "%s", text);
}

static void
on_check_failed(void *arg, const char *name, const char *text)
{
	struct loading *loading = arg;
	int index = conf_option_find(span_of(name));

	check(index >= 0);
	fail(loading, loading->places != NULL ? &loading->places[index] : NULL,
	    "%s: %s", name, text);
}

/*
 * Snapshots
 */

static void
conf_destroy(struct conf *conf)
{
	if (conf == NULL)
		return;
	for (struct hash_node *node;
	    (node = hash_walk(&conf->databases, NULL)) != NULL;) {
		hash_remove(&conf->databases, node);
		conf_database_destroy(container_of(node,
		    struct conf_database, by_name));
	}
	for (struct hash_node *node;
	    (node = hash_walk(&conf->users, NULL)) != NULL;) {
		hash_remove(&conf->users, node);
		conf_user_destroy(container_of(node, struct conf_user,
		    by_name));
	}
	hash_finish(&conf->databases);
	hash_finish(&conf->users);
	conf_database_destroy(conf->fallback);
	options_finish(&conf->o);
	mem_free(conf->path);
	mem_free(conf->url_user);
	if (conf->url_password != NULL)
		mem_wipe(conf->url_password, strlen(conf->url_password));
	mem_free(conf->url_password);
	mem_delete(&conf_type, conf);
}

static struct conf *
conf_create(void)
{
	struct conf *conf = mem_new(&conf_type);

	if (conf == NULL)
		return NULL;
	atomic_init(&conf->refs, 1);
	return conf;
}

struct conf *
conf_ref(struct conf *conf)
{
	atomic_fetch_add_explicit(&conf->refs, 1, memory_order_relaxed);
	return conf;
}

void
conf_unref(struct conf *conf)
{
	if (conf == NULL)
		return;
	if (atomic_fetch_sub_explicit(&conf->refs, 1,
	    memory_order_acq_rel) == 1)
		conf_destroy(conf);
}

/* Any authority's certificate for any host would pass. */
static void
database_check(struct loading *loading, const struct conf_database *db)
{
	if (db->sslmode == CONF_SSL_VERIFY_CA &&
	    loading->conf->o.server_tls_sslmode != CONF_SSL_VERIFY_CA &&
	    (db->ssl_ca_file == NULL ||
	    strcmp(db->ssl_ca_file, "system") == 0))
		fail(loading, NULL, "%s: sslmode: verify-ca needs a file in "
		    "sslrootcert", db->name);
}

static void
database_complete(struct loading *loading, struct conf_database *db)
{
	if (conf_database_resolve(db, &loading->conf->o))
		database_check(loading, db);
	else
		fail_for_memory(loading);
}

/* The last step: the entries get the values that the options have now. */
static void
conf_complete(struct loading *loading)
{
	struct conf *conf = loading->conf;
	struct hash_node *node = NULL;

	while ((node = hash_walk(&conf->databases, node)) != NULL)
		database_complete(loading, container_of(node,
		    struct conf_database, by_name));
	if (conf->fallback != NULL)
		database_complete(loading, conf->fallback);
}

/* The snapshot, or NULL when anything went wrong. */
static struct conf *
loading_finish(struct loading *loading)
{
	mem_free(loading->places);
	if (!loading->failed)
		return loading->conf;
	conf_destroy(loading->conf);
	return NULL;
}

static bool
loading_start(struct loading *loading)
{
	loading->conf = conf_create();
	loading->places = mem_zalloc(sizeof(*loading->places) *
	    conf_option_count());
	if (loading->conf == NULL || loading->places == NULL ||
	    !options_set_defaults(&loading->conf->o)) {
		fail_for_memory(loading);
		return false;
	}
	return true;
}

/* Remembers the file; SHOW CONFIG names it as PgBouncer does. */
static bool
remember_path(struct conf *conf, const char *path)
{
	conf->path = mem_strdup(path);
	if (conf->path == NULL)
		return false;
	if (conf->o.conffile[0] != '\0')
		return true;
	mem_free(conf->o.conffile);
	conf->o.conffile = mem_strdup(path);
	return conf->o.conffile != NULL;
}

static struct conf *
load(struct loading *loading, const char *name, const struct span *text)
{
	struct ini_events events = {
		on_section, on_setting, on_ini_error, loading,
	};
	struct ini *ini;

	if (!loading_start(loading))
		return loading_finish(loading);
	ini = ini_create(&events);
	if (ini == NULL) {
		fail_for_memory(loading);
		return loading_finish(loading);
	}
	/* A file with errors is looked at to its end, and as a whole: all
	 * that is wrong is told at once, unless it could not be opened. */
	if (text != NULL ? ini_read_text(ini, name, *text) :
	    ini_read_file(ini, name))
		loading->was_read = true;
	if (loading->was_read) {
		conf_check_options(&loading->conf->o, on_check_failed,
		    loading);
		conf_complete(loading);
	}
	if (text == NULL && !remember_path(loading->conf, name))
		fail_for_memory(loading);
	ini_destroy(ini);
	return loading_finish(loading);
}

struct conf *
conf_load(const char *path, conf_conninfo_parser *conninfo,
    struct buf *ret_why)
{
	struct loading loading = {
		.conninfo = conninfo, .why = ret_why, .source = path,
	};

	return load(&loading, path, NULL);
}

struct conf *
conf_load_text(const char *name, struct span text,
    conf_conninfo_parser *conninfo, struct buf *ret_why)
{
	struct loading loading = {
		.conninfo = conninfo, .why = ret_why, .source = name,
	};

	return load(&loading, name, &text);
}

/*
 * A URL
 */

/* The entry that the URL describes, or NULL with an error told. */
static struct conf_database *
database_from_url(struct loading *loading, const char *url)
{
	struct conf_database *db = conf_database_create(SPAN("url"));
	struct buf why = { 0 };
	const char *lack = NULL;
	bool ok;

	if (db == NULL) {
		fail_for_memory(loading);
		return NULL;
	}
	ok = conf_database_parse(db, span_of(url), loading->conninfo, &why);
	if (!ok) {
		say_place(loading, NULL);
		buf_add_span(loading->why, buf_span(&why));
	}
	buf_finish(&why);
	if (!ok) {
		conf_database_destroy(db);
		return NULL;
	}
	if (db->user == NULL)
		lack = "user: the URL must name one, whom clients log in as";
	else if (db->password == NULL)
		lack = "password: the URL must have one, for clients to "
		    "prove that they know it";
	if (lack == NULL) {
		/* Its name among ours is the database's; libpq's rule for a
		 * URL without one is the user's. */
		mem_free(db->name);
		db->name = mem_strdup(db->dbname != NULL ? db->dbname :
		    db->user);
		if (db->name == NULL)
			lack = "out of memory";
	}
	if (lack == NULL && is_console(span_of(db->name)))
		lack = "dbname: this name is the console's";
	if (lack != NULL) {
		fail(loading, NULL, "%s", lack);
		conf_database_destroy(db);
		return NULL;
	}
	return db;
}

/* localhost and not 127.0.0.1: some clients try ::1 first. */
static bool
options_set_for_url(struct conf_options *o, const char *user)
{
	mem_free(o->listen_addr);
	o->listen_addr = mem_strdup("localhost");
	mem_free(o->admin_users);
	o->admin_users = mem_strdup(user);
	return o->listen_addr != NULL && o->admin_users != NULL;
}

struct conf *
conf_from_url(const char *url, conf_conninfo_parser *conninfo,
    struct buf *ret_why)
{
	struct loading loading = {
		.conninfo = conninfo, .why = ret_why, .source = "URL",
	};
	struct conf_database *db;
	struct conf *conf;

	if (!loading_start(&loading))
		return loading_finish(&loading);
	db = database_from_url(&loading, url);
	if (db == NULL)
		return loading_finish(&loading);
	conf = loading.conf;
	conf->url_user = mem_strdup(db->user);
	conf->url_password = mem_strdup(db->password);
	if (conf->url_user == NULL || conf->url_password == NULL ||
	    !options_set_for_url(&conf->o, db->user) ||
	    !database_add(conf, db)) {
		conf_database_destroy(db);
		fail_for_memory(&loading);
		return loading_finish(&loading);
	}
	conf_check_options(&conf->o, on_check_failed, &loading);
	conf_complete(&loading);
	return loading_finish(&loading);
}

/*
 * SET
 */

static void
on_check_counted(void *arg, const char *name, const char *text)
{
	unsigned *count = arg;

	(void)name;
	(void)text;
	(*count)++;
}

/*
 * A SET must not break what holds between options, but it is not to blame
 * for what was broken before: a certificate's file that was taken away must
 * not keep the operator from changing a timeout.
 */
static void
set_check(struct loading *loading, const struct conf *before)
{
	unsigned had = 0, has = 0;

	conf_check_options(&before->o, on_check_counted, &had);
	conf_check_options(&loading->conf->o, on_check_counted, &has);
	if (has > had)
		conf_check_options(&loading->conf->o, on_check_failed,
		    loading);
}

static bool
copy_text(char **to, const char *from)
{
	*to = from != NULL ? mem_strdup(from) : NULL;
	return from == NULL || *to != NULL;
}

static bool
copy_entries(struct conf *to, const struct conf *from)
{
	struct hash_node *node = NULL;

	while ((node = hash_walk(&from->databases, node)) != NULL) {
		struct conf_database *db = conf_database_copy(container_of(
		    node, struct conf_database, by_name));

		if (db == NULL || !database_add(to, db)) {
			conf_database_destroy(db);
			return false;
		}
	}
	while ((node = hash_walk(&from->users, node)) != NULL) {
		struct conf_user *user = conf_user_copy(container_of(node,
		    struct conf_user, by_name));

		if (user == NULL || !user_add(to, user)) {
			conf_user_destroy(user);
			return false;
		}
	}
	if (from->fallback == NULL)
		return true;
	to->fallback = conf_database_copy(from->fallback);
	return to->fallback != NULL;
}

static struct conf *
conf_copy(const struct conf *from)
{
	struct conf *to = conf_create();
	bool ok = to != NULL;

	for (unsigned i = 0; ok && i < conf_option_count(); i++)
		ok = conf_field_copy(&conf_option_at(i)->field, &to->o,
		    &from->o);
	if (ok && copy_text(&to->path, from->path) &&
	    copy_text(&to->url_user, from->url_user) &&
	    copy_text(&to->url_password, from->url_password) &&
	    copy_entries(to, from))
		return to;
	conf_destroy(to);
	return NULL;
}

struct conf *
conf_with(const struct conf *conf, struct span name, struct span value,
    struct buf *ret_why)
{
	struct loading loading = { .why = ret_why };
	int index = conf_option_find(name);
	const struct conf_option *option;
	size_t had;

	if (index < 0) {
		if (!say_unknown(name, value, ret_why))
			buf_printf(ret_why, "%.*s: a PgBouncer setting that "
			    "pgsluice does not have yet", SPAN_ARG(name));
		return NULL;
	}
	option = conf_option_at((unsigned)index);
	if (option->when == CONF_RESTART) {
		buf_printf(ret_why, "%.*s: can be changed by a restart only",
		    SPAN_ARG(name));
		return NULL;
	}
	loading.conf = conf_copy(conf);
	if (loading.conf == NULL) {
		fail_for_memory(&loading);
		return NULL;
	}
	had = ret_why->len;
	buf_printf(ret_why, "%.*s: ", SPAN_ARG(name));
	if (!conf_field_set(&option->field, &loading.conf->o, value,
	    ret_why)) {
		conf_destroy(loading.conf);
		return NULL;
	}
	ret_why->len = had;
	set_check(&loading, conf);
	conf_complete(&loading);
	return loading_finish(&loading);
}

/*
 * Questions
 */

const struct conf_database *
conf_find_database(const struct conf *conf, struct span name)
{
	const struct conf_database *db = database_find(conf, name);

	return db != NULL ? db : conf->fallback;
}

const struct conf_database *
conf_find_own_database(const struct conf *conf, struct span name)
{
	return database_find(conf, name);
}

const struct conf_database *
conf_find_created(const struct conf *conf, struct span through)
{
	struct conf_database *db = database_find(conf, through);

	if (db == NULL)
		db = conf->fallback;
	return db != NULL ? conf_database_created(db) : NULL;
}

const struct conf_user *
conf_find_user(const struct conf *conf, struct span name)
{
	return user_find(conf, name);
}

void
conf_each_restart_needed(const struct conf *was, const struct conf *is,
    void (*each)(void *arg, const char *name), void *arg)
{
	for (unsigned i = 0; i < conf_option_count(); i++) {
		const struct conf_option *option = conf_option_at(i);

		if (option->when == CONF_RESTART &&
		    !conf_field_equal(&option->field, &was->o, &is->o))
			each(arg, option->field.name);
	}
}

bool
conf_list_has(const char *list, struct span word)
{
	struct span rest = span_of(list), item;

	while (span_next(&rest, ',', &item))
		if (item.len > 0 && span_eq(item, word))
			return true;
	return false;
}
