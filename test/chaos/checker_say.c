/*
 * The statements that the operations are made of.
 *
 * Nearly every one asks the same question, "who am I", and carries a nonce
 * that no other statement in the whole run has:
 *
 *	SELECT <nonce> AS n<nonce>, session_user, current_database(),
 *	    pg_backend_pid(), <four settings>, <payload>
 *
 * so that a reply can be told from every other reply, and a statement that
 * ran on behalf of somebody else, or with somebody else's settings, gives
 * itself away. Statements that write put a nonce into the ledger instead.
 */
#include "checker_say.h"

#include <string.h>

struct bytes sql, params[2];

enum protocol
either(struct client *c)
{
	return chance(c, 500) ? SIMPLE : EXTENDED;
}

/* ---- who am I --------------------------------------------------------- */

void
sql_ident(const char *first, const char *alias, const char *tail)
{
	bytes_print(&sql, "SELECT %s AS %s, session_user, current_database(), "
	    "pg_backend_pid(), current_setting('application_name'), "
	    "current_setting('TimeZone'), current_setting('DateStyle'), "
	    "%s, %s", first, alias, checker.search_path ?
	    "(SELECT name FROM whoami)" : "''", tail);
}

const char *
sql_text(void)
{
	bytes_add(&sql, "", 1);
	return sql.at;
}

void
want_names(struct plan *p, const char *alias)
{
	size_t words = plan_words(p, alias);

	plan_want(p, 'T', CHECK_NAMES)->words = words;
}

struct want *
want_ident(struct plan *p, uint64_t nonce, enum payload payload, size_t size)
{
	struct want *w = plan_want(p, 'D', CHECK_IDENT);

	w->nonce = nonce;
	w->payload = payload;
	w->size = size;
	return w;
}

/* The question with its nonce in the text; `times` makes the reply long. */
uint64_t
sql_ident_literal(size_t times)
{
	uint64_t nonce = nonce_next();
	char first[24], alias[32], tail[80];

	snprintf(first, sizeof(first), "%llu", (unsigned long long)nonce);
	snprintf(alias, sizeof(alias), "n%s", first);
	snprintf(tail, sizeof(tail), "repeat('%s.', %zu)", first, times);
	sql_ident(first, alias, tail);
	return nonce;
}

void
want_ident_literal(struct plan *p, uint64_t nonce, size_t times)
{
	char alias[40];

	snprintf(alias, sizeof(alias), "n%llu", (unsigned long long)nonce);
	want_names(p, alias);
	want_ident(p, nonce, PAYLOAD_REPEAT, times);
	plan_want_tag(p, "SELECT 1");
}

void
query_ident(struct plan *p, size_t times)
{
	uint64_t nonce;

	sql.len = 0;
	nonce = sql_ident_literal(times);
	plan_query(p, sql_text());
	want_ident_literal(p, nonce, times);
	plan_want_ready(p);
}

void
want_series(struct plan *p, char type, enum check check, uint64_t nonce,
    unsigned count)
{
	struct want *w;

	if (count == 0)
		return;
	w = plan_want(p, type, check);
	w->nonce = nonce;
	w->repeat = count;
}

/* ---- extended: one statement, no Sync --------------------------------- */

/* Both parameters of a statement: the nonce, and a payload made from it. */
void
set_params(uint64_t nonce, size_t size)
{
	size_t i;

	params[0].len = params[1].len = 0;
	bytes_print(&params[0], "%llu", (unsigned long long)nonce);
	for (i = 0; i < size; i++) {
		char byte = payload_byte(nonce, i);

		bytes_add(&params[1], &byte, 1);
	}
}

void
extended_ident(struct client *c, size_t size)
{
	struct plan *p = &c->plan;
	uint64_t nonce = nonce_next();
	bool described = chance(c, 500);

	sql.len = 0;
	sql_ident("$1::int8", "unnamed", "$2::text");
	set_params(nonce, size);
	plan_parse(p, "", 0, sql_text());
	plan_bind(p, "", "", 2, params);
	if (described)
		plan_describe(p, 'P', "");
	plan_execute(p, "", 0);
	plan_want_types(p, "12");
	if (described)
		want_names(p, "unnamed");
	want_ident(p, nonce, PAYLOAD_PARAM, size);
	plan_want_tag(p, "SELECT 1");
}

/* Parse, Bind and Execute of a statement without parameters. */
void
extended_start(struct plan *p, const char *text)
{
	plan_parse(p, "", 0, text);
	plan_bind(p, "", "", 0, NULL);
	plan_execute(p, "", 0);
	plan_want_types(p, "12");
}

void
extended_plain(struct plan *p, const char *text, const char *tag)
{
	extended_start(p, text);
	plan_want_tag(p, tag);
}

/* A whole exchange of one plain statement, in either protocol. */
void
plain(struct plan *p, enum protocol how, const char *text, const char *tag)
{
	if (how == SIMPLE) {
		plan_query(p, text);
		plan_want_tag(p, tag);
	} else {
		extended_plain(p, text, tag);
		plan_sync(p);
	}
	plan_want_ready(p);
}

/* ---- named statements ------------------------------------------------- */

static void
oid_choose(struct client *c, struct statement *s, const char **ret_type)
{
	static const uint32_t oids[] = { OID_INT8, OID_TEXT, OID_NUMERIC };
	static const char *const types[] = { "bigint", "text", "numeric" };
	unsigned i = s->prepared ? 0 : roll(c, 3);

	if (!s->prepared)
		s->oid = oids[i];
	for (i = 0; s->oid != oids[i]; i++)
		;
	*ret_type = types[i];
}

/*
 * Half of the texts are this client's own, and the other half are the same
 * for everybody, so that a cache of texts is shared; of those, three exist
 * that differ in nothing but the declared type of $1, which the rows show.
 */
void
named_parse(struct client *c, unsigned i)
{
	struct statement *s = &c->statements[i];
	struct plan *p = &c->plan;
	char name[4], tail[160];
	const char *type;
	struct want *w;

	snprintf(name, sizeof(name), "s%u", i + 1);
	oid_choose(c, s, &type);
	if (chance(c, 500))
		snprintf(s->tag, sizeof(s->tag), "shared.%s", type);
	else
		snprintf(s->tag, sizeof(s->tag), "c%u.g%u.%s.%u.%s", c->slot,
		    c->generation, name, c->names++, type);
	snprintf(tail, sizeof(tail), "'%.*s.' || pg_typeof($1)",
	    (int)(strrchr(s->tag, '.') - s->tag), s->tag);
	sql.len = 0;
	sql_ident("$1", "named", tail);
	plan_parse(p, name, s->oid, sql_text());
	w = plan_want(p, '1', CHECK_TYPE);
	w->statement = (int)i;
}

void
named_execute(struct client *c, unsigned i, bool describe)
{
	struct statement *s = &c->statements[i];
	struct plan *p = &c->plan;
	char name[4];
	uint64_t nonce = nonce_next();
	size_t words;
	struct want *w;

	snprintf(name, sizeof(name), "s%u", i + 1);
	if (describe) {
		plan_describe(p, 'S', name);
		plan_want(p, 't', CHECK_PARAMS)->size = s->oid;
		want_names(p, "named");
	}
	set_params(nonce, 0);
	plan_bind(p, "", name, 1, params);
	plan_execute(p, "", 0);
	plan_want(p, '2', CHECK_TYPE);
	words = plan_words(p, s->tag);
	w = want_ident(p, nonce, PAYLOAD_WORDS, 0);
	w->words = words;
	w->statement = (int)i;
	plan_want_tag(p, "SELECT 1");
}

/* ---- the ledger ------------------------------------------------------- */

void
sql_insert(uint64_t nonce)
{
	bytes_print(&sql, "INSERT INTO public.ledger (nonce) VALUES (%llu)",
	    (unsigned long long)nonce);
}

void
extended_insert(struct plan *p, unsigned group)
{
	set_params(plan_row(p, group), 0);
	plan_parse(p, "", 0, "INSERT INTO public.ledger (nonce) VALUES ($1)");
	plan_bind(p, "", "", 1, params);
	plan_execute(p, "", 0);
	plan_want_types(p, "12");
	plan_want_tag(p, "INSERT 0 1");
}

/* ---- errors on purpose ------------------------------------------------ */

static const struct mistake mistakes[] = {
	{ "SELECT 1 / (SELECT 0)", "22012" },
	{ "SELEC 1", "42601" },
	{ "SELECT * FROM no_such_table", "42P01" },
	{ "SELECT 'abc'::int4", "22P02" },
	{ "DO $$BEGIN RAISE EXCEPTION 'on purpose'; END$$", "P0001" },
};

const struct mistake *
mistake(struct client *c)
{
	return &mistakes[roll(c, sizeof(mistakes) / sizeof(mistakes[0]))];
}

void
extended_mistake(struct client *c)
{
	struct plan *p = &c->plan;
	const struct mistake *m;
	unsigned i;

	/* A name that is taken, or one that nobody ever gave. */
	i = roll(c, STATEMENT_NAMES);
	if (chance(c, 300) && c->statements[i].prepared &&
	    !checker.without[OP_named]) {
		char name[4];

		snprintf(name, sizeof(name), "s%u", i + 1);
		plan_parse(p, name, 0, "SELECT 1");
		plan_want_error(p, "42P05");
		return;
	}
	if (chance(c, 200) && !checker.without[OP_named]) {
		plan_bind(p, "", "never_prepared", 0, NULL);
		plan_want_error(p, "26000");
		return;
	}
	m = mistake(c);
	plan_parse(p, "", 0, m->text);
	plan_bind(p, "", "", 0, NULL);
	plan_execute(p, "", 0);
	if (strcmp(m->codes, "22012") == 0 || strcmp(m->codes, "P0001") == 0)
		plan_want_types(p, "12");
	plan_want_error(p, m->codes);
}

/* ---- settings, and the login ------------------------------------------ */

static const char *const zones[] = {
	"UTC", "Europe/Berlin", "Asia/Tokyo", "America/Lima", "Africa/Cairo"
};

static const char *const styles[] = {
	"ISO, MDY", "ISO, DMY", "SQL, DMY", "German, DMY", "Postgres, MDY"
};

static const char *const schemas[] = { "s0", "s1", "s2", "s3" };

/* Chooses a setting and a value for it, and returns the statement's want. */
void
set_something(struct client *c, enum protocol how, bool local)
{
	static const char *const names[SETTINGS] = {
		"application_name", "TimeZone", "DateStyle", "search_path"
	};
	struct plan *p = &c->plan;
	enum setting which;
	char value[NAME_SIZE];
	struct want *w;

	which = (enum setting)roll(c, checker.session_set ? 4 : 3);
	if (which == SET_APP)
		snprintf(value, sizeof(value), "c%u.g%u.set%u", c->slot,
		    c->generation, c->names++);
	else
		snprintf(value, sizeof(value), "%s",
		    which == SET_ZONE ? zones[roll(c, 5)] :
		    which == SET_STYLE ? styles[roll(c, 5)] :
		    schemas[roll(c, 4)]);
	sql.len = 0;
	bytes_print(&sql, "SET %s%s TO '%s'", local ? "LOCAL " : "",
	    names[which], value);
	plain(p, how, sql_text(), "SET");
	/* The tag is the one before the ReadyForQuery just wanted. */
	w = &p->wants[p->want_count - 2];
	w->setting = (int)which;
	w->local = local;
	w->value = plan_words(p, value);
}

static void
startup_pair(struct bytes *b, const char *name, const char *value)
{
	put_text(b, name);
	put_text(b, value);
}

void
op_plan_login(struct client *c)
{
	struct plan *p = &c->plan;
	struct bytes *out = &p->out;
	char name[16];
	uint32_t len;
	unsigned i;

	plan_reset(p, OP_login);
	settings_start(c);
	put_u32(out, 0);
	put_u32(out, 196608);
	snprintf(name, sizeof(name), "u%u", c->user);
	startup_pair(out, "user", name);
	snprintf(name, sizeof(name), "d%u", c->database);
	startup_pair(out, "database", name);
	snprintf(c->startup[SET_APP], NAME_SIZE, "c%u.g%u", c->slot,
	    c->generation);
	startup_pair(out, "application_name", c->startup[SET_APP]);
	for (i = SET_ZONE; i < SETTINGS; i++) {
		static const char *const names[SETTINGS] = {
			"", "TimeZone", "DateStyle", "search_path"
		};
		const char *value;

		value = i == SET_ZONE ? zones[roll(c, 5)] :
		    i == SET_STYLE ? styles[roll(c, 5)] : schemas[roll(c, 4)];
		if (i == SET_PATH ? !checker.search_path : chance(c, 300))
			continue;
		snprintf(c->startup[i], NAME_SIZE, "%s", value);
		startup_pair(out, names[i], value);
	}
	bytes_add(out, "", 1);
	len = (uint32_t)out->len;
	out->len = 0;
	put_u32(out, len);
	out->len = len;
	for (i = 0; i < SETTINGS; i++) {
		memcpy(c->session[i], c->startup[i], NAME_SIZE);
		memcpy(c->now[i], c->startup[i], NAME_SIZE);
	}
	plan_want(p, 'Z', CHECK_READY)->status = 'I';
	plan_step(p, 0);
}
