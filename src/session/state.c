/*
 * Session state under transaction pooling.
 *
 * A client keeps what it has set on its connection, whichever server it gets.
 * Some of it can be carried from server to server (parameters: client->vars,
 * applied by link.c); the rest ties the client to the server that has it, for
 * as long as it is there (a pin).
 *
 *   text --sqlscan--> no effect ------------------> nothing to do
 *                        |
 *                     effects: server->touched
 *                        |
 *   transaction's end: touched, or pinned? ask the server (the probe)
 *                        |
 *   rows: 'v' name value   a parameter that the session has set
 *         'l' name         a channel that it listens to (channels.c)
 *         'p' number       a pin that is there
 *                        |
 *   answer's end: client->vars, server->vars, server->pins
 *
 * So it is Postgres itself that says what a statement has done, after all the
 * rules of its own: SET LOCAL, rollbacks, savepoints, set_config() with
 * computed arguments, DO. The scan of the text only decides whether to ask,
 * and may err on that side. The client has its ReadyForQuery before we ask;
 * what it sends meanwhile goes to the same server, behind the question.
 *
 * Postgres lists no parameters that it does not know (app.user). Those are
 * asked for by name: every word with a dot in it that stood in a text, or in
 * a Bind's values, of a statement that may set one (server->customs).
 *
 * What a sequence gave last (lastval(), currval()) can be neither seen nor
 * moved. Nearly no app asks for it later than in the same transaction, and
 * every INSERT may change it. So a client is tied down for it only once it has
 * asked (client->keeps_sequences); and who asks never gets a stranger's value,
 * nor one of its own from before what it did elsewhere: the server is made to
 * forget that first.
 *
 * What a startup packet has set is not the server's default: a parameter that
 * the probe does not show was reset, and goes back to the packet's value.
 */
#include "session/state.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/stream.h"
#include "pool/pool.h"
#include "pool/vars.h"
#include "session/channels.h"
#include "session/client.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/sqlscan.h"

/* How much of a statement an audit names. */
#define AUDIT_SQL_MAX 200
/* Names asked for, and how long one may be. */
#define CUSTOMS_MAX 64
#define CUSTOM_LEN_MAX 63

static const struct pin {
	const char *shown;
	uint32_t effects;
	bool final;
	const char *where;
} pins[STATE_PINS] = {
#define X(name, shown, effects, final, where) \
	[PIN_##name] = { shown, (effects), final, where },
#include "session/pins.def"
#undef X
};

/* Among the pins that are shown: a statement of which nothing is known, until
 * the server has said what it did. */
#define PIN_UNKNOWN (1u << 31)

/* Parameters may have changed. */
#define SETS (SQL_SET | SQL_UNKNOWN)

static uint32_t
pin_effects(void)
{
	uint32_t effects = 0;

	for (unsigned i = 0; i < STATE_PINS; i++)
		effects |= pins[i].effects;
	return effects;
}

static bool
state_is_kept(const struct server *server)
{
	return server->client != NULL &&
	    (pool_mode(server->pool) != POOL_SESSION ||
	    server->client->login != NULL);
}

/*
 * Names with a dot.
 */

static bool
is_name_byte(char c)
{
	return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
	    (c >= '0' && c <= '9') || c == '$' || c == '.';
}

static void
note_name(struct server *server, struct span name)
{
	struct vars *customs;

	if (name.len > CUSTOM_LEN_MAX || (name.at[0] >= '0' &&
	    name.at[0] <= '9') || name.at[0] == '.' ||
	    memchr(name.at, '.', name.len) == NULL ||
	    span_starts_case(name, "pg_catalog.") ||
	    vars_get(server->customs, name).at != NULL ||
	    vars_count(server->customs) >= CUSTOMS_MAX)
		return;
	customs = vars_with(server->customs, name, SPAN(""));
	if (customs == NULL)
		server->tainted = true;
	else
		server->customs = customs;
}

/* Each run of bytes that may be a name. */
static void
note_names(struct server *server, struct span text)
{
	const char *end = text.at + text.len;
	const char *dot = text.at;

	while ((dot = memchr(dot, '.', (size_t)(end - dot))) != NULL) {
		const char *from = dot, *to = dot;
		while (from > text.at && is_name_byte(from[-1]))
			from--;
		while (to < end && is_name_byte(*to))
			to++;
		note_name(server, (struct span){ from, (size_t)(to - from) });
		dot = to;
	}
}

void
state_begin(struct server *server)
{
	int every = server->worker->setup->conf->o.state_audit;

	server->audited = every > 0 && state_is_kept(server) &&
	    server->client->login == NULL &&
	    atomic_fetch_add(&server->pool->audits, 1) % (unsigned)every == 0;
}

/* What an audit may have to name. */
static void
audit_note(struct server *server, struct span sql)
{
	mem_free(server->audit_sql);
	server->audit_sql = mem_strndup(sql.at, sql.len < AUDIT_SQL_MAX ?
	    sql.len : AUDIT_SQL_MAX);
	note_names(server, sql);
}

/* Is what this client creates temporary, without a word of it? What it has
 * said of its path just now may not be known yet. */
static bool
creates_temp(const struct server *server)
{
	struct span path = server->client == NULL ? SPAN_NONE :
	    vars_get(server->client->vars, SPAN("search_path"));

	return server->touched & SQL_TEMP || (path.at != NULL &&
	    memmem(path.at, path.len, "pg_temp", 7) != NULL);
}

void
state_note(struct server *server, uint32_t effects, struct span sql)
{
	if (server->audited)
		audit_note(server, sql);
	if (creates_temp(server))
		effects |= SQL_TEMP;
	/* What a startup packet has set is gone as by a RESET. */
	if (effects & SQL_DISCARD_ALL && server->client != NULL &&
	    vars_count(server->client->startup_vars) > 0)
		effects |= SQL_SET | SQL_RESET;
	effects = channels_note(server, effects) &
	    (pin_effects() | SETS | SQL_RESET);
	if (effects == 0 || server->client == NULL)
		return;
	if (pool_mode(server->pool) == POOL_SESSION) {
		/* All else ends with the server_reset_query. */
		server->touched_final |= effects & (SQL_LOAD | SQL_SEED);
		return;
	}
	if (effects & (SQL_SEQUENCE | SQL_UNKNOWN)) {
		server->sequences_of = server->client->id;
		server->client->sequences_on = server->id;
	}
	if (!server->client->keeps_sequences ||
	    server->pins & 1u << PIN_SEQUENCE)
		effects &= ~(uint32_t)SQL_SEQUENCE;
	server->touched |= effects;
	server->touched_since |= effects;
	if (effects & SETS)
		note_names(server, sql);
}

bool
state_must_forget(struct server *server, uint32_t effects)
{
	struct client *client = server->client;

	if ((effects & SQL_LASTVAL) == 0 || !state_is_kept(server))
		return false;
	client->keeps_sequences = true;
	if ((server->sequences_of == client->id &&
	    client->sequences_on == server->id) || server->status == 'E')
		return false;
	server->sequences_of = client->id;
	client->sequences_on = server->id;
	return true;
}

void
state_note_bind(struct server *server, struct span text)
{
	struct body body = body_of(text);
	unsigned formats = body_u16(&body);

	for (unsigned i = 0; i < formats; i++)
		body_u16(&body);
	for (unsigned left = body_u16(&body); left > 0 && !body.bad; left--) {
		uint32_t len = body_u32(&body);
		if (len == UINT32_MAX)
			continue;	/* NULL */
		struct span value = body_bytes(&body, len);
		if (!body.bad && value.len <= CUSTOM_LEN_MAX)
			note_names(server, value);
	}
}

/*
 * The probe.
 */

static void
probe_add_name(struct buf *out, struct span name)
{
	buf_add_text(out, ",('");
	buf_add_span(out, name);
	buf_add_text(out, "')");
}

static void
probe_add_parameters(const struct server *server, struct buf *out)
{
	struct span name, value;

	buf_add_text(out, "SELECT 'v',name,setting FROM "
	    "pg_catalog.pg_settings WHERE source='session' AND "
	    "pg_catalog.left(name,12)<>'transaction_';"
	    "SELECT 'v',n,pg_catalog.current_setting(n,true) FROM "
	    "(VALUES ('role'),('session_authorization')");
	for (unsigned i = 0; i < vars_count(server->customs); i++) {
		vars_at(server->customs, i, &name, &value);
		probe_add_name(out, name);
	}
	for (unsigned i = 0; i < vars_count(server->vars); i++) {
		vars_at(server->vars, i, &name, &value);
		if (memchr(name.at, '.', name.len) != NULL &&
		    memchr(name.at, '\'', name.len) == NULL &&
		    vars_get(server->customs, name).at == NULL)
			probe_add_name(out, name);
	}
	buf_add_text(out, ")t(n) WHERE "
	    "pg_catalog.current_setting(n,true)<>'';");
}

/* One question for each kind that may be there. */
static void
probe_add_pins(const struct server *server, struct buf *out)
{
	char text[320];

	for (unsigned i = 0; i < STATE_PINS; i++) {
		if (pins[i].where == NULL ||
		    ((server->touched & (pins[i].effects | SQL_UNKNOWN)) == 0
		    && (server->pins & 1u << i) == 0))
			continue;
		if (i == PIN_LISTEN && channels_are_carried(server->client))
			continue;
		snprintf(text, sizeof(text), "SELECT 'p','%u','' WHERE "
		    "EXISTS(SELECT FROM %s);", i, pins[i].where);
		buf_add_text(out, text);
	}
}

/* Which channels, where a client that listens need not be pinned for it. */
static void
probe_add_channels(struct server *server, struct buf *out)
{
	server->channels_asked = false;
	if (!channels_are_carried(server->client) ||
	    ((server->touched & (SQL_LISTEN | SQL_UNKNOWN)) == 0 &&
	    (server->pins & 1u << PIN_LISTEN) == 0))
		return;
	channels_probe_begin(server);
	buf_add_text(out, "SELECT 'l',c,'' FROM "
	    "pg_catalog.pg_listening_channels() c;");
}

/* `patient`: not subject to the statement_timeout that the client has set,
 * which is told apart, as it cannot be seen while it does not apply. */
static bool
probe_send(struct server *server, bool patient)
{
	struct buf *out = &server->worker->scratch;
	struct owed_entry *entry;
	size_t began;

	buf_clear(out);
	began = msg_begin(out, 'Q');
	if (patient)
		buf_add_text(out, "SELECT 'v','statement_timeout',"
		    "pg_catalog.current_setting('statement_timeout');"
		    "BEGIN;SET LOCAL statement_timeout TO 0;");
	if (patient || server->touched & SETS)
		probe_add_parameters(server, out);
	probe_add_pins(server, out);
	probe_add_channels(server, out);
	if (patient)
		buf_add_text(out, "COMMIT");
	buf_add(out, "", 1);
	msg_end(out, began);
	entry = owed_push(&server->owed, OWED_QUERY, OWED_SWALLOW);
	if (out->failed || entry == NULL)
		return false;
	entry->probe = true;
	vars_unref(server->probed);
	server->probed = (patient || server->touched & SETS) ?
	    vars_none() : NULL;
	server->pins_probed = 0;
	server->touched_since = 0;
	server->patient = patient;
	server_set_unnamed(server, NULL);
	stream_send(&server->s, out->at, out->len);
	return true;
}

/* A RESET in a transaction that is still open: what the startup packet had
 * brought is put back at once, and is undone with the rest if need be. */
static bool
has_reset_within(const struct server *server)
{
	return server->status == 'T' && server->touched & SQL_RESET &&
	    vars_count(server->client->startup_vars) > 0;
}

bool
state_probe(struct server *server)
{
	struct client *client = server->client;

	if (client != NULL && server->hears >= HEARS_WAITS)
		return true;
	if (!state_is_kept(server) ||
	    (server->status != 'I' && !has_reset_within(server)) ||
	    server->owed.count > 0 || server->owed.batch_open ||
	    server->owed.skipping || server->owed.copy_in ||
	    client->relay.left > 0 || server->relay.left > 0)
		return false;
	if (server->touched == 0 && !server->recheck && !server->audited)
		return server->status == 'I' && channels_leave(server);
	/* An audit asks for everything, as if anything had been done. */
	server->auditing = server->audited && server->touched == 0;
	if (server->auditing)
		server->touched = SQL_UNKNOWN;
	if (!probe_send(server, server->retry)) {
		client_end(client, END_NO_MEMORY, NULL);
		return false;
	}
	return true;
}

void
state_ask_params(struct server *server)
{
	server->touched |= SQL_SET;
	state_probe(server);
}

bool
state_must_wait(const struct server *server)
{
	const struct owed *owed = &server->owed;

	return server->touched & (SQL_RESET | SQL_UNKNOWN) &&
	    owed->count > 0 &&
	    vars_count(server->client->startup_vars) > 0 &&
	    owed_at(owed, owed->count - 1)->kind >= OWED_SYNC;
}

bool
state_probe_failed(struct server *server, struct span sqlstate)
{
	if (server->patient || !span_is(sqlstate, "57014") ||
	    server->client == NULL)
		return false;
	server->retry = true;
	return true;
}

static struct span
row_column(struct body *body)
{
	uint32_t len = body_u32(body);

	return len == UINT32_MAX ? SPAN("") : body_bytes(body, len);
}

/* No role is what a session begins with, or what it was told by SET ROLE NONE
 * where its startup packet has one; which of both, no query tells. */
static bool
is_no_role(const struct server *server, struct span name, struct span value)
{
	const struct client *client = server->client;

	return span_is(name, "role") && span_is(value, "none") &&
	    (client == NULL || server->touched & SQL_RESET ||
	    vars_get(client->startup_vars, name).at == NULL);
}

/* What we have told a migrator's server (pass_put_watch), not its client. */
static bool
is_our_watch(const struct server *server, struct span name)
{
	return server->client != NULL && server->client->migrant != NULL &&
	    span_is(name, "client_connection_check_interval");
}

static void
row_parameter(struct server *server, struct span name, struct span value)
{
	struct vars *with;

	if (server->probed == NULL || is_no_role(server, name, value) ||
	    is_our_watch(server, name) ||
	    (server->patient && span_is(name, "statement_timeout") &&
	    vars_get(server->probed, name).at != NULL))
		return;
	with = vars_with(server->probed, name, value);
	if (with == NULL)
		server->tainted = true;
	else
		server->probed = with;
}

static void
row_channel(struct server *server, struct span name)
{
	if (!server->auditing)
		channels_probe_row(server, name);
	else if (server->client == NULL ||
	    !channels_have(server->client, name))
		server->pins_probed |= 1u << PIN_LISTEN;
}

bool
state_row(struct server *server, struct span text)
{
	struct body body = body_of(text);
	unsigned columns = body_u16(&body);
	struct span kind = row_column(&body);
	struct span name = row_column(&body);
	struct span value = row_column(&body);

	if (columns != 3 || !body_is_done(&body))
		return false;
	if (span_is(kind, "v"))
		row_parameter(server, name, value);
	else if (span_is(kind, "l"))
		row_channel(server, name);
	else if (name.len == 1 && name.at[0] >= '0' &&
	    name.at[0] < '0' + STATE_PINS)
		server->pins_probed |= 1u << (name.at[0] - '0');
	return true;
}

/*
 * What it means.
 */

/* Tells the client of a parameter that the server had put back and that is
 * its own choice after all (state_hides). */
static bool
is_told(const struct client *client, struct span name)
{
	return vars_get(client->startup_vars, name).at != NULL;
}

/* A value that a fresh session has is not worth carrying, unless the
 * client's startup packet says otherwise. */
static void
probed_drop_defaults(struct server *server)
{
	struct span name, value;

	for (unsigned i = 0; i < vars_count(server->probed);) {
		vars_at(server->probed, i, &name, &value);
		struct span fresh = vars_get(server->baseline, name);
		if (fresh.at == NULL || !span_eq(fresh, value) ||
		    (server->client != NULL &&
		    is_told(server->client, name))) {
			i++;
			continue;
		}
		struct vars *without = vars_with(server->probed, name,
		    SPAN_NONE);
		if (without == NULL) {
			server->tainted = true;
			return;
		}
		server->probed = without;
	}
}

/* What was reset goes back to what the startup packet had brought. */
static struct vars *
client_vars_of(const struct client *client, struct vars *probed)
{
	struct vars *vars = vars_ref(probed);
	struct span name, value;

	for (unsigned i = 0; i < vars_count(client->startup_vars); i++) {
		vars_at(client->startup_vars, i, &name, &value);
		if (vars_get(probed, name).at != NULL)
			continue;
		struct vars *with = vars_with(vars, name, value);
		if (with == NULL) {
			vars_unref(vars);
			return NULL;
		}
		vars = with;
	}
	return vars;
}

/* ParameterStatus for what it has not been told: its own old default. */
static void
probed_tell(struct client *client, const struct vars *was,
    const struct vars *now, const struct vars *baseline)
{
	struct buf *out = &client->worker->scratch;
	struct span name, value;

	buf_clear(out);
	for (unsigned i = 0; i < vars_count(client->startup_vars); i++) {
		vars_at(client->startup_vars, i, &name, &value);
		struct span before = vars_get(was, name);
		struct span after = vars_get(now, name);
		if (vars_get(baseline, name).at != NULL &&
		    before.at != NULL && after.at != NULL &&
		    !span_eq(before, after))
			msg_parameter(out, name, after);
	}
	if (!out->failed && out->len > 0)
		stream_send(&client->s, out->at, out->len);
}

static void
probed_take_parameters(struct server *server)
{
	struct client *client = server->client;
	struct vars *vars;

	probed_drop_defaults(server);
	vars = client == NULL ? vars_none() :
	    client_vars_of(client, server->probed);
	if (vars == NULL) {
		server->tainted = true;
	} else if (client != NULL) {
		probed_tell(client, client->vars, vars, server->baseline);
		vars_unref(client->vars);
		client->vars = vars;
	}
	vars_unref(server->vars);
	server->vars = server->probed;
	server->probed = NULL;
}

static void
pins_move(struct server *server, uint32_t now)
{
	struct client *client = server->client;
	char prefix[320], text[STATE_PINS_TEXT];

	if (now == server->pins)
		return;
	if (server->pins == 0) {
		atomic_fetch_add(&server->pool->pinned, 1);
		server->pinned_us = clock_wall_us();
	} else if (now == 0) {
		atomic_fetch_sub(&server->pool->pinned, 1);
	}
	server->pins = now;
	if (client != NULL)
		log_line(LOG_LEVEL_DEBUG, client_prefix(client, prefix,
		    sizeof(prefix)), "pinned: %s", now == 0 ? "no longer" :
		    state_pins_text(now, text, sizeof(text)));
}

void
state_pin(struct server *server, enum state_pin pin)
{
	pins_move(server, server->pins | 1u << pin);
}

void
state_unpin(struct server *server, enum state_pin pin)
{
	pins_move(server, server->pins & ~(1u << pin));
}

/* What no text had told is not the client's to keep: the next would not have
 * it either. */
static void
state_audit(struct server *server)
{
	char prefix[320], text[STATE_PINS_TEXT];
	bool parameters;

	probed_drop_defaults(server);
	parameters = server->probed != server->vars;
	server->auditing = false;
	server->touched = server->touched_since;
	if (!parameters && server->pins_probed == server->pins)
		return;
	state_pins_text(server->pins_probed & ~server->pins, text,
	    sizeof(text));
	log_line(LOG_LEVEL_WARNING, server_prefix(server, prefix,
	    sizeof(prefix)), "state audit: session state was left behind "
	    "(%s%s%s); the last statement: %s", parameters ? "parameters" : "",
	    parameters && text[0] != '\0' ? "," : "", text,
	    server->audit_sql != NULL ? server->audit_sql : "");
	stat_add(&server->pool->shard[server->worker->index].stat,
	    STAT_state_leak_count, 1);
	server->tainted = true;
}

void
state_probed(struct server *server)
{
	uint32_t sticky = 0;

	if (server->retry && !server->patient)
		return;			/* it failed; all is as it was */
	server->retry = false;
	server->patient = false;
	server->audited = false;
	if (server->auditing) {
		state_audit(server);
		return;
	}
	for (unsigned i = 0; i < STATE_PINS; i++)
		if (pins[i].where == NULL && (server->touched &
		    pins[i].effects || server->pins & 1u << i))
			sticky |= 1u << i;
	if (server->probed != NULL)
		probed_take_parameters(server);
	if (server->status != 'I') {
		server->touched &= ~(uint32_t)SQL_RESET;
		server->touched |= server->touched_since;
		return;
	}
	server->touched = server->touched_since;
	server->recheck = false;
	/* Until the hub has taken over: channels_left() */
	if (server->channels_asked)
		sticky |= server->pins & 1u << PIN_LISTEN;
	channels_probed(server);
	pins_move(server, server->pins_probed | sticky);
	if (server->client != NULL && server->client->login != NULL)
		client_login_accepted(server->client);
}

bool
state_is_unclean(const struct server *server)
{
	return server->touched != 0 || server->pins != 0 ||
	    server->hears != HEARS_NOTHING;
}

bool
state_is_final(const struct server *server)
{
	for (unsigned i = 0; i < STATE_PINS; i++)
		if (pins[i].final && ((server->touched |
		    server->touched_final) & pins[i].effects ||
		    server->pins & 1u << i))
			return true;
	return false;
}

void
state_clear(struct server *server)
{
	server->touched = 0;
	server->touched_since = 0;
	server->recheck = false;
	server->retry = false;
	server->audited = false;
	server->auditing = false;
	server->hears = HEARS_NOTHING;
	pins_move(server, 0);
	vars_unref(server->probed);
	server->probed = NULL;
}

bool
state_hides(const struct server *server, struct span name, struct span value)
{
	const struct client *client = server->client;

	return client != NULL && server->touched & SQL_RESET &&
	    is_told(client, name) &&
	    span_eq(vars_get(server->baseline, name), value);
}

void
state_put_back(struct server *server, struct span name)
{
	struct client *client = server->client;
	struct buf *out = &client->worker->scratch;
	struct span own = vars_get(client->startup_vars, name);
	struct vars *vars;

	if (span_eq(own, vars_get(client->vars, name)))
		return;
	buf_clear(out);
	msg_parameter(out, name, own);
	stream_send(&client->s, out->at, out->len);
	vars = vars_with(client->vars, name, own);
	if (vars == NULL)
		server->tainted = true;
	else
		client->vars = vars;
}

const char *
state_is_refused(const struct client *client, uint32_t effects)
{
	const struct pool *pool = client->pool;
	int max = client->worker->setup->conf->o.max_pinned;

	if (max == 0 || pool_mode(pool) == POOL_SESSION ||
	    client->migrant != NULL ||
	    (client->server != NULL && client->server->pins != 0) ||
	    atomic_load(&pool->pinned) < (unsigned)max)
		return NULL;
	for (unsigned i = 0; i < STATE_PINS; i++)
		if (effects & pins[i].effects && i != PIN_SEQUENCE &&
		    (i != PIN_LISTEN || !channels_are_carried(client)))
			return pins[i].shown;
	return NULL;
}

bool
state_has_prepared(const struct server *server)
{
	return server != NULL && (server->pins & 1u << PIN_PREPARE ||
	    server->touched & (SQL_PREPARE | SQL_UNKNOWN));
}

uint32_t
state_pins(const struct server *server)
{
	uint32_t set = server->pins;

	for (unsigned i = 0; i < STATE_PINS && server->status == 'I'; i++)
		if (server->touched & pins[i].effects && (i != PIN_LISTEN ||
		    server->client == NULL ||
		    !channels_are_carried(server->client)))
			set |= 1u << i;
	if (server->touched & SQL_UNKNOWN && server->status == 'I')
		set |= PIN_UNKNOWN;
	return set;
}

const char *
state_pins_text(uint32_t set, char *text, size_t size)
{
	size_t len = 0;

	text[0] = '\0';
	if (set & PIN_UNKNOWN)
		len = (size_t)snprintf(text, size, "unknown");
	for (unsigned i = 0; i < STATE_PINS && len < size; i++)
		if (set & 1u << i)
			len += (size_t)snprintf(text + len, size - len,
			    "%s%s", len > 0 ? "," : "", pins[i].shown);
	return text;
}
