/*
 * The configuration file, from memory.
 *
 * What must hold: a refused file has a reason, each of its lines naming the
 * file; an accepted one has a value for everything, and its options, printed
 * as a file, are accepted and mean the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "conf/conf.h"
#include "conf/conf_value.h"
#include "net/ask.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
print_option(void *arg, const char *name, const char *value, const char *def,
    bool changeable)
{
	(void)def;
	(void)changeable;
	buf_printf(arg, "%s = %s\n", name, value);
}

static void
check_database(const struct conf_database *db)
{
	check(db->name != NULL && db->host_count >= 1);
	check(db->host_count <= CONF_HOSTS);
	for (unsigned i = 0; i < db->host_count; i++)
		check(db->hosts[i] != NULL && strlen(db->hosts[i]) < 256);
	check(db->port >= 1 && db->port <= 65535);
	check(db->is_fallback || db->dbname != NULL);
	check(db->pool_size >= 0 && db->min_pool_size >= 0);
	check(db->sslmode >= CONF_SSL_DISABLE &&
	    db->sslmode <= CONF_SSL_VERIFY_FULL);
}

static void
check_accepted(const struct conf *conf)
{
	struct buf text = { 0 }, why = { 0 };
	struct hash_node *node = NULL;
	struct conf *again;

	while ((node = hash_walk(&conf->databases, node)) != NULL) {
		struct conf_database *db = container_of(node,
		    struct conf_database, by_name);

		check_database(db);
		check(conf_find_database(conf, span_of(db->name)) == db);
	}
	if (conf->fallback != NULL)
		check_database(conf->fallback);

	buf_add_text(&text, "[pgsluice]\n");
	conf_each_option(conf, print_option, &text);
	again = conf_load_text("again", buf_span(&text), ask_parse_conninfo,
	    &why);
	check(again != NULL);
	for (unsigned i = 0; i < conf_option_count(); i++)
		check(conf_field_equal(&conf_option_at(i)->field, &conf->o,
		    &again->o));
	conf_unref(again);
	buf_finish(&text);
	buf_finish(&why);
}

static void
check_refused(const struct buf *why)
{
	struct span rest = buf_span(why), line;

	check(rest.len > 0);
	while (span_next(&rest, '\n', &line))
		check(line.len > 6 && memcmp(line.at, "fuzz", 4) == 0 &&
		    line.at[4] == ':');
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct buf why = { 0 };
	struct span text = { (const char *)data, len };
	struct conf *conf = conf_load_text("fuzz", text, ask_parse_conninfo,
	    &why);

	if (conf != NULL)
		check_accepted(conf);
	else
		check_refused(&why);
	conf_unref(conf);
	buf_finish(&why);
	return 0;
}
