/*
 * The operations: what a client does with its connection. Each is a function
 * that makes a plan; checker_ops.def says how often each is chosen.
 */
#include "checker_say.h"

#include <string.h>

static void
op_insert(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned group = plan_group(p);

	if (chance(c, 500)) {
		sql.len = 0;
		if (chance(c, 200))
			bytes_print(&sql, "INSERT INTO public.ledger (nonce) "
			    "SELECT %llu FROM pg_sleep(0.0%u)",
			    (unsigned long long)plan_row(p, group),
			    1 + roll(c, 9));
		else
			sql_insert(plan_row(p, group));
		plan_query(p, sql_text());
		plan_want_tag(p, "INSERT 0 1");
		plan_commits(p, group);
		plan_want_ready(p);
		return;
	}
	extended_insert(p, group);
	plan_sync(p);
	plan_want_ready(p);
	plan_commits(p, group);
}

static void
op_error(struct client *c)
{
	struct plan *p = &c->plan;
	const struct mistake *m = mistake(c);

	if (either(c) == SIMPLE) {
		plan_query(p, m->text);
		if (strcmp(m->codes, "22012") == 0)
			want_names(p, "?column?");
		plan_want_error(p, m->codes);
	} else {
		extended_mistake(c);
		plan_sync(p);
	}
	plan_want_ready(p);
}

/* ---- simple ----------------------------------------------------------- */

static void
op_simple(struct client *c)
{
	struct plan *p = &c->plan;

	if (chance(c, 50)) {
		plan_query(p, chance(c, 500) ? "" : " ; ");
		plan_want_types(p, "I");
		plan_want_ready(p);
		return;
	}
	query_ident(p, roll(c, chance(c, 100) ? 400 : 4));
}

/*
 * Several statements in one Query are one transaction, so an error at the
 * end takes back the inserts before it.
 */
static void
op_multi(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned group = plan_group(p);
	unsigned count = 2 + roll(c, 3), i;
	bool block = chance(c, 300), fails = !block && chance(c, 200);

	sql.len = 0;
	if (block) {
		bytes_print(&sql, "BEGIN; ");
		plan_want_tag(p, "BEGIN");
	}
	for (i = 0; i < count; i++) {
		if (chance(c, 400)) {
			sql_insert(plan_row(p, group));
			plan_want_tag(p, "INSERT 0 1");
		} else {
			size_t times = roll(c, 4);

			want_ident_literal(p, sql_ident_literal(times), times);
		}
		bytes_print(&sql, "; ");
	}
	if (fails)
		bytes_print(&sql, "SELECT 1 / (SELECT 0)");
	if (block)
		bytes_print(&sql, "COMMIT");
	plan_query(p, sql_text());
	if (block) {
		plan_want_tag(p, "COMMIT");
		plan_commits(p, group);
	}
	if (fails) {
		want_names(p, "?column?");
		plan_want_error(p, "22012");
	}
	plan_want_ready(p);
	if (fails)
		plan_fails(p, group);
	else if (!block)
		plan_commits(p, group);
}

/* ---- extended --------------------------------------------------------- */

static void
op_extended(struct client *c)
{
	extended_ident(c, roll(c, chance(c, 100) ? 5000 : 50));
	plan_sync(&c->plan);
	plan_want_ready(&c->plan);
}

static void
op_flush(struct client *c)
{
	struct plan *p = &c->plan;
	uint64_t nonce = nonce_next();

	sql.len = 0;
	sql_ident("$1::int8", "flushed", "$2::text");
	set_params(nonce, 20);
	plan_parse(p, "", OID_INT8, sql_text());
	plan_describe(p, 'S', "");
	plan_message(p, 'H', NULL);
	plan_want(p, '1', CHECK_TYPE);
	/* $1 as declared, $2 as found: two types, so not CHECK_PARAMS */
	plan_want(p, 't', CHECK_TYPE);
	want_names(p, "flushed");
	plan_step(p, 0);
	plan_bind(p, "", "", 2, params);
	plan_want(p, '2', CHECK_TYPE);
	if (chance(c, 500)) {
		plan_message(p, 'H', NULL);
		plan_step(p, chance(c, 200) ? roll(c, 5000) : 0);
	}
	plan_execute(p, "", 0);
	want_ident(p, nonce, PAYLOAD_PARAM, 20);
	plan_want_tag(p, "SELECT 1");
	if (chance(c, 500)) {
		plan_message(p, 'H', NULL);
		plan_step(p, 0);
	}
	plan_sync(p);
	plan_want_ready(p);
}

static void
op_named(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned i = roll(c, STATEMENT_NAMES);

	if (!c->statements[i].prepared) {
		named_parse(c, i);
		if (chance(c, 300)) {
			plan_sync(p);
			plan_want_ready(p);
			plan_step(p, 0);
		}
	}
	named_execute(c, i, chance(c, 300));
	plan_sync(p);
	plan_want_ready(p);
}

/*
 * What lib/pq does with every query that has arguments: Parse, Describe and
 * Sync, then Bind, Execute and Sync. Another client may get the server in
 * between, and has an unnamed statement of its own.
 */
static void
op_unnamed2(struct client *c)
{
	struct plan *p = &c->plan;
	char tail[80];
	unsigned i, times = 1 + roll(c, 3);

	snprintf(tail, sizeof(tail), "'u.%u.%u.%u'", c->slot, c->generation,
	    c->names++);
	sql.len = 0;
	sql_ident("$1", "two_syncs", tail);
	plan_parse(p, "", OID_NUMERIC, sql_text());
	plan_want(p, '1', CHECK_TYPE);
	if (chance(c, 800)) {
		plan_describe(p, 'S', "");
		plan_want(p, 't', CHECK_PARAMS)->size = OID_NUMERIC;
		want_names(p, "two_syncs");
	}
	plan_sync(p);
	plan_want_ready(p);
	tail[strlen(tail) - 1] = '\0';
	for (i = 0; i < times; i++) {
		uint64_t nonce = nonce_next();
		size_t words;
		struct want *w;

		plan_step(p, chance(c, 100) ? roll(c, 3000) : 0);
		set_params(nonce, 0);
		plan_bind(p, "", "", 1, params);
		plan_execute(p, "", 0);
		plan_sync(p);
		plan_want(p, '2', CHECK_TYPE);
		words = plan_words(p, tail + 1);
		w = want_ident(p, nonce, PAYLOAD_WORDS, 0);
		w->words = words;
		w->unnamed = true;
		plan_want_tag(p, "SELECT 1");
		plan_want_ready(p);
	}
}

/* ---- pipelines -------------------------------------------------------- */

static void
pipeline_batch(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned group = plan_group(p);
	unsigned count = 1 + roll(c, 4), i, named;
	unsigned wrong = chance(c, 250) ? roll(c, count) : count;
	bool block = wrong == count && chance(c, 200);

	if (block)
		extended_plain(p, "BEGIN", "BEGIN");
	for (i = 0; i < count; i++) {
		named = roll(c, STATEMENT_NAMES);
		if (i == wrong)
			extended_mistake(c);
		else if (chance(c, 400))
			extended_insert(p, group);
		else if (c->statements[named].prepared && chance(c, 500))
			named_execute(c, named, false);
		else
			extended_ident(c, roll(c, 40));
	}
	if (block)
		extended_plain(p, "COMMIT", "COMMIT");
	if (block)
		plan_commits(p, group);
	plan_sync(p);
	plan_want_ready(p);
	if (wrong < count)
		plan_fails(p, group);
	else if (!block)
		plan_commits(p, group);
}

static void
op_pipeline(struct client *c)
{
	unsigned count = 2 + roll(c, 7), i;

	for (i = 0; i < count; i++) {
		pipeline_batch(c);
		if (chance(c, 100))
			plan_step(&c->plan, 0);
	}
}

/* ---- transactions ----------------------------------------------------- */

static void
op_set(struct client *c)
{
	set_something(c, either(c), false);
}

static void
tx_statement(struct client *c, unsigned group)
{
	struct plan *p = &c->plan;
	unsigned named = roll(c, STATEMENT_NAMES);
	uint32_t what = roll(c, 100);

	if (what < 35) {
		if (either(c) == SIMPLE) {
			sql.len = 0;
			sql_insert(plan_row(p, group));
			plan_query(p, sql_text());
			plan_want_tag(p, "INSERT 0 1");
		} else {
			extended_insert(p, group);
			plan_sync(p);
		}
		plan_want_ready(p);
	} else if (what < 50 && !checker.without[OP_set]) {
		set_something(c, either(c), chance(c, 500));
	} else if (what < 55) {
		plain(p, SIMPLE, "DO 'BEGIN PERFORM pg_sleep(0.005); END'",
		    "DO");
	} else if (what < 70 && c->statements[named].prepared) {
		named_execute(c, named, false);
		plan_sync(p);
		plan_want_ready(p);
	} else if (what < 80) {
		extended_ident(c, roll(c, 100));
		plan_sync(p);
		plan_want_ready(p);
	} else {
		query_ident(p, roll(c, 10));
	}
}

static const struct mistake no_table = {
	"SELECT * FROM no_such_table", "42P01"
};

static void
tx_error(struct client *c)
{
	struct plan *p = &c->plan;
	const struct mistake *m = &no_table;

	plan_query(p, m->text);
	plan_want_error(p, m->codes);
	plan_want_ready(p);
	if (chance(c, 300)) {
		plan_step(p, 0);
		sql.len = 0;
		sql_ident_literal(1);
		plan_query(p, sql_text());
		plan_want_error(p, "25P02");
		plan_want_ready(p);
	}
}

/* An error that a savepoint makes good again. */
static void
tx_savepoint(struct client *c)
{
	struct plan *p = &c->plan;

	plain(p, either(c), "SAVEPOINT a", "SAVEPOINT");
	plan_step(p, 0);
	tx_error(c);
	plan_step(p, 0);
	plan_query(p, "ROLLBACK TO a");
	plan_want_tag(p, "ROLLBACK");
	p->block = 'T';
	plan_want_ready(p);
	plan_step(p, 0);
}

static unsigned
tx_pause(struct client *c)
{
	return chance(c, 80) ? 1 + roll(c, 8000) : 0;
}

static void
op_tx(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned group = plan_group(p);
	unsigned count = 1 + roll(c, 4), i;
	bool fails = chance(c, 200), commit = chance(c, 750);
	enum protocol how = either(c);

	p->block = 'T';
	plain(p, either(c), "BEGIN", "BEGIN");
	for (i = 0; i < count; i++) {
		plan_step(p, tx_pause(c));
		tx_statement(c, group);
	}
	plan_step(p, tx_pause(c));
	if (chance(c, 100))
		tx_savepoint(c);
	if (fails) {
		tx_error(c);
		plan_step(p, tx_pause(c));
	}
	p->block = 'I';
	plain(p, how, commit ? "COMMIT" : "ROLLBACK",
	    commit && !fails ? "COMMIT" : "ROLLBACK");
	if (commit && !fails) {
		/* 'C' and 'Z' are the last two; the tag says it is done. */
		p->want_count--;
		plan_commits(p, group);
		p->want_count++;
		/* It is Execute that commits, not the Sync behind it. */
		if (how == EXTENDED)
			p->groups[group].commit_at = p->last_start;
	} else {
		plan_fails(p, group);
	}
}

/* ---- portals ---------------------------------------------------------- */

/*
 * In one batch with Flush, or with a portal that has a name and lives
 * through several Syncs of a transaction.
 */
static void
op_portal(struct client *c)
{
	struct plan *p = &c->plan;
	bool block = chance(c, 400);
	const char *portal = block ? "p1" : "";
	uint64_t nonce = nonce_next();
	unsigned total = roll(c, 60), piece = 1 + roll(c, 20), got = 0;
	char tag[32];

	if (block) {
		p->block = 'T';
		plain(p, either(c), "BEGIN", "BEGIN");
		plan_step(p, 0);
	}
	set_params(nonce, 0);
	sql.len = 0;
	bytes_print(&sql, "SELECT $1::int8 + g, session_user "
	    "FROM generate_series(0, %d) g", (int)total - 1);
	plan_parse(p, "", 0, sql_text());
	plan_bind(p, portal, "", 1, params);
	plan_want_types(p, "12");
	while (total - got >= piece && chance(c, 900)) {
		struct want *w;

		plan_execute(p, portal, piece);
		w = plan_want(p, 'D', CHECK_SERIES);
		w->nonce = nonce + got;
		w->repeat = piece;
		plan_want(p, 's', CHECK_TYPE);
		got += piece;
		if (block && chance(c, 500)) {
			plan_sync(p);
			plan_want_ready(p);
			plan_step(p, tx_pause(c));
		} else if (chance(c, 500)) {
			plan_message(p, 'H', NULL);
			plan_step(p, 0);
		}
	}
	plan_execute(p, portal, 0);
	want_series(p, 'D', CHECK_SERIES, nonce + got, total - got);
	snprintf(tag, sizeof(tag), "SELECT %u", total - got);
	plan_want_tag(p, tag);
	plan_sync(p);
	plan_want_ready(p);
	if (block) {
		plan_step(p, 0);
		p->block = 'I';
		plain(p, either(c), "COMMIT", "COMMIT");
	}
}

/* ---- COPY ------------------------------------------------------------- */

/* The lines in CopyData messages that are cut anywhere. */
static void
copy_lines(struct client *c, unsigned group, unsigned count)
{
	struct plan *p = &c->plan;
	size_t at = 0;

	sql.len = 0;
	for (; count > 0; count--)
		bytes_print(&sql, "%llu\n",
		    (unsigned long long)plan_row(p, group));
	while (at < sql.len) {
		size_t len = 1 + roll(c, 80);

		if (len > sql.len - at)
			len = sql.len - at;
		plan_copy_data(p, sql.at + at, len);
		at += len;
	}
}

static void
op_copy_in(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned group = plan_group(p), count = roll(c, 40);
	enum protocol how = either(c);
	uint32_t fate = roll(c, 100);
	const char *text = "COPY public.ledger (nonce) FROM STDIN";
	char tag[32];

	if (how == SIMPLE) {
		plan_query(p, text);
	} else {
		extended_start(p, text);
	}
	plan_want(p, 'G', CHECK_TYPE);
	if (chance(c, 700))
		plan_step(p, tx_pause(c));
	copy_lines(c, group, count);
	if (fate < 15) {
		plan_message(p, 'f', "on purpose");
		plan_want_error(p, "57014");
	} else if (fate < 30) {
		plan_copy_data(p, "no number\n", 10);
		if (chance(c, 500))
			copy_lines(c, group, count);
		plan_message(p, 'c', NULL);
		plan_want_error(p, "22P02");
	} else {
		plan_message(p, 'c', NULL);
		snprintf(tag, sizeof(tag), "COPY %u", count);
		plan_want_tag(p, tag);
		if (how == SIMPLE)
			plan_commits(p, group);
	}
	if (how == EXTENDED)
		plan_sync(p);
	plan_want_ready(p);
	/* Nothing to go on with after an error, unlike with a Sync. */
	if (how == SIMPLE)
		p->wants[p->want_count - 1].resume = 0;
	if (fate >= 30 && how == EXTENDED)
		plan_commits(p, group);
}

static void
op_copy_out(struct client *c)
{
	struct plan *p = &c->plan;
	enum protocol how = either(c);
	unsigned count = roll(c, chance(c, 100) ? 5000 : 100);
	uint64_t nonce = nonce_next();
	char tag[32];

	sql.len = 0;
	bytes_print(&sql, "COPY (SELECT %llu + g, session_user "
	    "FROM generate_series(0, %d) g) TO STDOUT",
	    (unsigned long long)nonce, (int)count - 1);
	if (how == SIMPLE) {
		plan_query(p, sql_text());
	} else {
		extended_start(p, sql_text());
	}
	plan_want(p, 'H', CHECK_TYPE);
	want_series(p, 'd', CHECK_LINE, nonce, count);
	plan_want_types(p, "c");
	snprintf(tag, sizeof(tag), "COPY %u", count);
	plan_want_tag(p, tag);
	if (how == EXTENDED)
		plan_sync(p);
	plan_want_ready(p);
}

/* ---- the rest --------------------------------------------------------- */

static void
op_large(struct client *c)
{
	struct plan *p = &c->plan;
	size_t size = 100000 + roll(c, 1000) * (size_t)roll(c, 2000);

	COUNT(large);
	if (either(c) == SIMPLE) {
		query_ident(p, size / 20);
		return;
	}
	extended_ident(c, size);
	plan_sync(p);
	plan_want_ready(p);
}

static void
op_call(struct client *c)
{
	struct plan *p = &c->plan;
	char text[64], quoted[64];
	unsigned long long nonce = (unsigned long long)nonce_next();
	size_t words;

	snprintf(text, sizeof(text), "c%u.n%llu", c->slot, nonce);
	snprintf(quoted, sizeof(quoted), "'c%u.n%llu'", c->slot, nonce);
	plan_call_quote(p, text);
	words = plan_words(p, quoted);
	plan_want(p, 'V', CHECK_CALL)->words = words;
	plan_want_ready(p);
}

static void
op_slow(struct client *c)
{
	struct plan *p = &c->plan;
	uint64_t nonce = nonce_next();
	char first[40], tail[64];
	enum protocol how = either(c);

	snprintf(first, sizeof(first), "%llu", (unsigned long long)nonce);
	snprintf(tail, sizeof(tail), "pg_sleep(0.0%02u)::text", 1 +
	    roll(c, 40));
	sql.len = 0;
	sql_ident(first, "slow", tail);
	if (how == SIMPLE) {
		plan_query(p, sql_text());
		want_names(p, "slow");
	} else {
		extended_start(p, sql_text());
	}
	want_ident(p, nonce, PAYLOAD_WORDS, 0);
	plan_want_tag(p, "SELECT 1");
	if (how == EXTENDED)
		plan_sync(p);
	plan_want_ready(p);
}

/* Then the name must be unknown, whatever others have under it. */
static void
forgotten(struct client *c, unsigned i)
{
	struct plan *p = &c->plan;
	char name[4];

	if (chance(c, 500))
		return;
	COUNT(use_after_close);
	plan_step(p, 0);
	snprintf(name, sizeof(name), "s%u", i + 1);
	set_params(1, 0);
	plan_bind(p, "", name, 1, params);
	plan_execute(p, "", 0);
	plan_want_error(p, "26000");
	plan_sync(p);
	plan_want_ready(p);
}

static void
op_forget(struct client *c)
{
	struct plan *p = &c->plan;
	unsigned i = roll(c, STATEMENT_NAMES);
	uint32_t what = roll(c, 100);
	char text[32];
	const char *tag = "DEALLOCATE";
	struct want *w;

	snprintf(text, sizeof(text), "DEALLOCATE s%u", i + 1);
	if (what < 40) {
		plan_close(p, 'S', text + strlen("DEALLOCATE "));
		plan_want(p, '3', CHECK_TYPE)->statement = (int)i;
		plan_sync(p);
		plan_want_ready(p);
		forgotten(c, i);
		return;
	}
	if (what < 70 && !c->statements[i].prepared) {
		plan_query(p, text);
		plan_want_error(p, "26000");
		plan_want_ready(p);
		return;
	}
	if (what >= 85) {
		tag = "DISCARD ALL";
		snprintf(text, sizeof(text), "%s", tag);
		COUNT(discard_all);
	} else if (what >= 70) {
		tag = "DEALLOCATE ALL";
		snprintf(text, sizeof(text), "%s", tag);
	}
	/* DISCARD ALL only as a Query: a batch would be a transaction. */
	plain(p, what >= 85 ? SIMPLE : either(c), text, tag);
	w = &p->wants[p->want_count - 2];
	w->statement = what >= 70 ? -2 : (int)i;
	forgotten(c, i);
}

/* ---- which ------------------------------------------------------------ */

static const struct {
	void (*plan)(struct client *);
	unsigned weight;
} ops[OPS] = {
#define X(name, weight, cancel, doom, text) { op_##name, weight },
#include "checker_ops.def"
#undef X
};

static enum op
op_choose(struct client *c)
{
	uint32_t total = 0, at;
	unsigned i;

	for (i = 0; i < OPS; i++)
		total += checker.without[i] ? 0 : ops[i].weight;
	at = roll(c, total);
	for (i = 0; ; i++) {
		uint32_t weight = checker.without[i] ? 0 : ops[i].weight;

		if (at < weight)
			return (enum op)i;
		at -= weight;
	}
}

void
op_plan(struct client *c)
{
	struct plan *p = &c->plan;
	enum op op = op_choose(c);
	size_t i;

	plan_reset(p, op);
	ops[op].plan(c);
	plan_step(p, 0);
	for (i = 0; i < p->row_count; i++)
		ledger_note(p->rows[i].nonce, c);
}

/* After a cancel struck in a transaction: any way out will do. */
void
op_plan_rollback(struct client *c)
{
	struct plan *p = &c->plan;

	plan_reset(p, OP_recover);
	plain(p, either(c), chance(c, 700) ? "ROLLBACK" : "COMMIT",
	    "ROLLBACK");
	plan_step(p, 0);
}
