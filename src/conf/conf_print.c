/*
 * The configuration as text: SHOW CONFIG, and the page of all settings that
 * the documentation has, made from the same tables that parse them.
 */
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "conf/conf.h"
#include "conf/conf_database.h"
#include "conf/conf_value.h"

void
conf_each_option(const struct conf *conf,
    void (*each)(void *arg, const char *name, const char *value,
    const char *def, bool changeable), void *arg)
{
	struct conf_options defaults = { 0 };

	for (unsigned i = 0; i < conf_option_count(); i++) {
		const struct conf_option *option = conf_option_at(i);
		const struct conf_field *field = &option->field;
		struct buf value = { 0 }, def = { 0 };

		/* The default in the form of the value: "120", not "120s". */
		if (conf_field_set(field, &defaults, span_of(option->def),
		    &def))
			conf_field_print(field, &defaults, &def);
		conf_field_print(field, &conf->o, &value);
		buf_add(&value, "", 1);
		buf_add(&def, "", 1);
		if (!value.failed && !def.failed)
			each(arg, field->name, value.at, def.at,
			    option->when == CONF_RELOAD);
		conf_field_finish(field, &defaults);
		buf_finish(&value);
		buf_finish(&def);
	}
}

/*
 * doc/settings.md
 */

/* The rows and the headings between them, in order. */
static const struct row {
	const char *heading, *name;	/* one of them is NULL */
} rows[] = {
#define GROUP(title) { title, NULL },
#define X(type, name, def, min, max, when, help) { NULL, #name },
#include "conf/options.def"
#undef X
};

/* "Takes ...", for what is not just any text. */
static void
print_expect(struct buf *out, struct span expect)
{
	if (expect.len == 0 || span_is(expect, "a text"))
		return;
	buf_printf(out, "Takes %.*s. ", SPAN_ARG(expect));
}

static void
print_option(struct buf *out, const struct conf_option *option)
{
	struct buf expect = { 0 };

	buf_printf(out, "### %s\n\n%s\n\n", option->field.name,
	    option->help);
	conf_field_expect(&option->field, &expect);
	print_expect(out, buf_span(&expect));
	buf_finish(&expect);
	if (option->def[0] != '\0')
		buf_printf(out, "Default: `%s`. ", option->def);
	else
		buf_add_text(out, "Default: empty. ");
	buf_add_text(out, option->when == CONF_RELOAD ?
	    "Changed by RELOAD or SET.\n\n" : "Changed by a restart.\n\n");
}

static void
print_key(void *arg, const char *key, const char *expect, const char *option,
    const char *help)
{
	struct buf *out = arg;

	buf_printf(out, "* `%s`: %s ", key, help);
	print_expect(out, span_of(expect));
	if (option[0] != '\0')
		buf_printf(out, "Where not given: `%s`.", option);
	while (out->len > 0 && out->at[out->len - 1] == ' ')
		out->len--;
	buf_add_text(out, "\n");
}

void
conf_print_settings(struct buf *out)
{
	buf_add_text(out,
	    "# Settings\n\n"
	    "Names and meanings are PgBouncer's, and its `pgbouncer.ini` can "
	    "be read as it is:\nthe section `[pgbouncer]` is the same as "
	    "`[pgsluice]`. Where a default is not\nPgBouncer's, the text says "
	    "so. What PgBouncer has and pgsluice does not have yet\nis "
	    "refused by name, never passed over.\n\n"
	    "A time is `90s`, `2min`, `1h`, `500ms`, or a number of seconds; "
	    "a size is `4096`,\n`64kB` or `1MB`; yes and no are `1` and `0`, "
	    "`on` and `off`, `yes` and `no`.\nThe file has `name = value` "
	    "lines in sections; a line that begins with `;` or `#`\nis a "
	    "comment; `%include file` reads another file in its place; of "
	    "two lines for\nthe same thing the later one counts. This page is "
	    "made by the program\nfrom the table that it parses with.\n\n"
	    "# Section [pgsluice]\n\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].heading != NULL) {
			buf_printf(out, "## %s\n\n", rows[i].heading);
			continue;
		}
		int index = conf_option_find(span_of(rows[i].name));

		check(index >= 0);
		print_option(out, conf_option_at((unsigned)index));
	}
	buf_add_text(out,
	    "# Section [databases]\n\n"
	    "A line for each database: `name = key=value key=value ...`. A "
	    "value with spaces\nstands between single quotes, `''` being one "
	    "quote in it. Or a URL, with keys\nbehind it if need be: `app = "
	    "postgres://user:password@host/db pool_size=10`.\nA name with "
	    "other signs than letters, digits and `_.-` stands between double"
	    "\nquotes. The entry `*` is for all names that have none.\n\n");
	conf_database_each_key(print_key, out);
	buf_add_text(out,
	    "\n# Section [users]\n\n"
	    "A line for each user, as in `[databases]`: `name = key=value "
	    "...`. What is not\ngiven is as the wider setting says.\n\n");
	conf_user_each_key(print_key, out);
}
