/*
 * Every message that comes in is held against the plan.
 *
 * The plan is a list of wants; a message has to be the next of them in type
 * and content. Only NoticeResponse and ParameterStatus may come in between.
 * What may differ from the plan is what a cancel does:
 *
 *	an ErrorResponse 57014 while a cancel of this client's own is under
 *	way ("struck") takes the place of everything up to the ReadyForQuery
 *	of that batch; what follows in a failed transaction follows from it.
 *
 * The model of the session (settings, transaction, prepared statements)
 * moves only by what the server says here.
 */
#include "checker.h"

#include <stdlib.h>
#include <string.h>

static const char *const setting_names[SETTINGS] = {
	"application_name", "TimeZone", "DateStyle", "search_path"
};

/* Which client is known to be in a transaction on a server process... */
static uint16_t holder[1 << 22];
/* ... and since when. */
static uint64_t held_since_us[1 << 22];
/* Which client was last seen on it. */
static uint16_t last_user[1 << 22];

static const char *
words(const struct client *c, size_t at)
{
	return c->plan.words.at + at;
}

static struct want *
next_want(struct client *c)
{
	return c->want < c->plan.want_count ? &c->plan.wants[c->want] : NULL;
}

/* ---- settings --------------------------------------------------------- */

void
settings_start(struct client *c)
{
	memset(c->local, 0, sizeof(c->local));
	memset(c->told, 0, sizeof(c->told));
	memset(c->startup, 0, sizeof(c->startup));
	snprintf(c->startup[SET_ZONE], NAME_SIZE, "%s", checker.zone);
	snprintf(c->startup[SET_STYLE], NAME_SIZE, "%s", checker.style);
}

static const char *
setting_now(const struct client *c, unsigned i)
{
	return c->local[i][0] != '\0' ? c->local[i] : c->now[i];
}

static void
setting_made(struct client *c, const struct want *w)
{
	const char *value = words(c, w->value);
	unsigned i = (unsigned)w->setting;

	COUNT(setting_changed);
	if (w->local) {
		snprintf(c->local[i], NAME_SIZE, "%s", value);
	} else {
		snprintf(c->now[i], NAME_SIZE, "%s", value);
		c->local[i][0] = '\0';
	}
}

static void
settings_reset(struct client *c)
{
	memcpy(c->now, c->startup, sizeof(c->now));
	memcpy(c->session, c->startup, sizeof(c->session));
	memset(c->local, 0, sizeof(c->local));
}

static void
settings_end_tx(struct client *c, bool undone)
{
	if (undone)
		memcpy(c->now, c->session, sizeof(c->now));
	else
		memcpy(c->session, c->now, sizeof(c->now));
	memset(c->local, 0, sizeof(c->local));
}

/*
 * It may be told at any time: before or after the end that undoes it, and
 * before or after the tag of the DISCARD ALL that resets it.
 */
static bool
setting_may_be(const struct client *c, unsigned i, const char *value)
{
	return strcmp(value, c->now[i]) == 0 ||
	    strcmp(value, c->session[i]) == 0 ||
	    strcmp(value, c->local[i]) == 0 ||
	    (c->plan.op == OP_forget && strcmp(value, c->startup[i]) == 0);
}

static void
match_parameter(struct client *c, const char *body, size_t len)
{
	struct cursor cur = { body, body + len, false };
	const char *name = cursor_text(&cur);
	const char *value = cursor_text(&cur);
	char user[16];
	unsigned i;

	snprintf(user, sizeof(user), "u%u", c->user);
	if (strcmp(name, "session_authorization") == 0 &&
	    strcmp(value, user) != 0)
		violation(c, "session_authorization is %s", value);
	for (i = 0; i < SETTINGS; i++) {
		if (strcmp(name, setting_names[i]) != 0)
			continue;
		if (!setting_may_be(c, i, value))
			violation(c, "told that %s is '%s', but it is '%s'",
			    name, value, setting_now(c, i));
		snprintf(c->told[i], NAME_SIZE, "%s", value);
	}
}

static bool
settings_told(struct client *c)
{
	unsigned i;

	for (i = 0; i < SETTINGS; i++) {
		if (i == SET_PATH && c->told[i][0] == '\0')
			continue;	/* reported from Postgres 18 on */
		if (strcmp(c->told[i], setting_now(c, i)) != 0) {
			violation(c, "%s is '%s', was told '%s'",
			    setting_names[i], setting_now(c, i), c->told[i]);
			return false;
		}
	}
	return true;
}

/* ---- rows ------------------------------------------------------------- */

/* One column as text; NULL and a bad length are both NULL. */
static const char *
column(struct cursor *cur, uint32_t *ret_len)
{
	*ret_len = cursor_u32(cur);
	if (*ret_len == UINT32_MAX)
		return NULL;
	return cursor_bytes(cur, *ret_len);
}

static bool
column_is(struct client *c, struct cursor *cur, const char *what,
    const char *right)
{
	uint32_t len;
	const char *text = column(cur, &len);

	if (text != NULL && len == strlen(right) &&
	    memcmp(text, right, len) == 0)
		return true;
	violation(c, "%s is '%.*s', not '%s'", what,
	    text ? (int)(len < 60 ? len : 60) : 4, text ? text : "NULL",
	    right);
	return false;
}

static bool
payload_is(struct client *c, const struct want *w, const char *at, size_t len)
{
	char piece[32];
	const char *text = words(c, w->words);
	size_t size, i;

	switch (w->payload) {
	case PAYLOAD_WORDS:
		return len == strlen(text) && memcmp(at, text, len) == 0;
	case PAYLOAD_REPEAT:
		size = (size_t)snprintf(piece, sizeof(piece), "%llu.",
		    (unsigned long long)w->nonce);
		if (len != size * w->size)
			return false;
		for (i = 0; i < len; i += size)
			if (memcmp(at + i, piece, size) != 0)
				return false;
		return true;
	case PAYLOAD_PARAM:
		if (len != w->size)
			return false;
		for (i = 0; i < len; i++)
			if (at[i] != payload_byte(w->nonce, i))
				return false;
		return true;
	}
	return false;
}

static void
count_statement(struct client *c, const struct want *w, uint32_t pid)
{
	if (w->unnamed) {
		COUNT(unnamed_over_sync);
		if (c->unnamed_pid != 0 && c->unnamed_pid != pid)
			COUNT(unnamed_elsewhere);
		c->unnamed_pid = pid;
	}
	if (w->statement >= 0) {
		struct statement *s = &c->statements[w->statement];
		unsigned i;

		for (i = 0; i < checker.clients; i++)
			if (i != c->slot &&
			    clients[i].statements[w->statement].prepared) {
				COUNT(name_shared);
				break;
			}
		if (s->pid != 0 && s->pid != pid)
			COUNT(named_elsewhere);
		s->pid = pid;
	}
}

/*
 * A transaction has a server of its own. `held_pid` is set while this client
 * certainly is in one: its server was seen, its COMMIT is not sent yet. A
 * reply that was merely read late proves nothing, so what asked for it must
 * have been sent after the holder was known to have that server.
 */
static bool
server_is_mine(struct client *c, uint32_t pid)
{
	uint32_t i = pid & ((1 << 22) - 1);

	if (holder[i] != 0 && holder[i] != c->slot + 1 && !checker.faults &&
	    c->step_us > held_since_us[i]) {
		violation(c, "server %u is in a transaction of client %u",
		    pid, holder[i] - 1u);
		return false;
	}
	if (c->tx_pid != 0 && c->tx_pid != pid) {
		violation(c, "server changed from %u to %u in a transaction",
		    c->tx_pid, pid);
		return false;
	}
	if (c->tx_pid == 0 && c->last_pid != 0 && c->last_pid != pid)
		COUNT(server_changed);
	if (last_user[i] != 0 && last_user[i] != c->slot + 1)
		COUNT(server_inherited);
	last_user[i] = (uint16_t)(c->slot + 1);
	c->last_pid = pid;
	c->tx_pid = pid;
	if (c->in_block && c->plan.op == OP_tx &&
	    c->step + 1 < c->plan.step_count) {
		c->held_pid = pid;
		holder[i] = (uint16_t)(c->slot + 1);
		held_since_us[i] = checker.now_us;
	}
	return true;
}

void
client_release_server(struct client *c)
{
	uint32_t i = c->held_pid & ((1 << 22) - 1);

	if (c->held_pid != 0 && holder[i] == c->slot + 1)
		holder[i] = 0;
	c->held_pid = 0;
}

static void
match_ident(struct client *c, const struct want *w, struct cursor *cur)
{
	char right[40], number[24];
	const char *text;
	uint32_t len, pid;
	unsigned i;

	snprintf(right, sizeof(right), "%llu", (unsigned long long)w->nonce);
	if (!column_is(c, cur, "nonce", right))
		return;
	snprintf(right, sizeof(right), "u%u", c->user);
	if (!column_is(c, cur, "session_user", right))
		return;
	snprintf(right, sizeof(right), "d%u", c->database);
	if (!column_is(c, cur, "current_database()", right))
		return;
	text = column(cur, &len);
	snprintf(number, sizeof(number), "%.*s", text ? (int)len : 0,
	    text ? text : "");
	pid = (uint32_t)strtoul(number, NULL, 10);
	for (i = 0; i < SETTINGS; i++) {
		const char *value = setting_now(c, i);

		if (i == SET_PATH && !checker.search_path)
			value = "";
		if (!column_is(c, cur, setting_names[i], value))
			return;
	}
	text = column(cur, &len);
	if (text == NULL || !payload_is(c, w, text, len))
		violation(c, "payload of %u bytes is '%.*s'", len,
		    text ? (int)(len < 80 ? len : 80) : 4,
		    text ? text : "NULL");
	else if (server_is_mine(c, pid))
		count_statement(c, w, pid);
}

static void
match_row(struct client *c, const struct want *w, const char *body, size_t len)
{
	struct cursor cur = { body, body + len, false };
	unsigned columns = w->check == CHECK_IDENT ? 9 : 2;
	char right[40];

	if (cursor_u16(&cur) != columns) {
		violation(c, "a row of %u columns", get_u16(body));
		return;
	}
	if (w->check == CHECK_IDENT) {
		match_ident(c, w, &cur);
	} else {
		snprintf(right, sizeof(right), "%llu",
		    (unsigned long long)(w->nonce + w->seen));
		if (!column_is(c, &cur, "nonce", right))
			return;
		snprintf(right, sizeof(right), "u%u", c->user);
		if (!column_is(c, &cur, "session_user", right))
			return;
	}
	if (c->fd >= 0 && (cur.bad || cur.at != cur.end))
		violation(c, "a row's length is wrong");
}

static void
match_line(struct client *c, const struct want *w, const char *body,
    size_t len)
{
	char right[80];

	snprintf(right, sizeof(right), "%llu\tu%u\n",
	    (unsigned long long)(w->nonce + w->seen), c->user);
	if (len != strlen(right) || memcmp(body, right, len) != 0)
		violation(c, "COPY line is '%.*s', not '%s'",
		    (int)(len < 80 ? len : 80), body, right);
}

static void
match_names(struct client *c, const struct want *w, const char *body,
    size_t len)
{
	struct cursor cur = { body, body + len, false };
	uint16_t count = cursor_u16(&cur);
	const char *name = cursor_text(&cur), *right = words(c, w->words);

	if (count == 0 || strcmp(name, right) != 0)
		violation(c, "RowDescription begins with '%s', not '%s'",
		    name, right);
}

static void
match_content(struct client *c, struct want *w, const char *body, size_t len)
{
	struct cursor cur = { body, body + len, false };
	const char *text, *right = words(c, w->words);

	switch (w->check) {
	case CHECK_IDENT:
	case CHECK_SERIES:
		match_row(c, w, body, len);
		break;
	case CHECK_LINE:
		match_line(c, w, body, len);
		break;
	case CHECK_NAMES:
		match_names(c, w, body, len);
		break;
	case CHECK_PARAMS:
		if (cursor_u16(&cur) != 1 || cursor_u32(&cur) != w->size)
			violation(c, "ParameterDescription is not of %zu",
			    w->size);
		break;
	case CHECK_CALL:
		column_is(c, &cur, "result", right);
		break;
	case CHECK_TAG:
		text = cursor_text(&cur);
		if (strcmp(text, right) == 0)
			break;
		if (c->block_failed && strcmp(text, "ROLLBACK") == 0 &&
		    strcmp(right, "COMMIT") == 0) {
			if (w->group >= 0)
				ledger_settle(c, (unsigned)w->group, 'F',
				    "COMMIT of a failed transaction");
			w->group = -1;
			break;
		}
		violation(c, "tag is '%s', not '%s'", text, right);
		break;
	case CHECK_TYPE:
	case CHECK_CODE:
	case CHECK_READY:
		break;
	}
}

/* ---- errors ----------------------------------------------------------- */

static bool
code_in(const char *code, const char *list)
{
	return strlen(code) == 5 && strstr(list, code) != NULL;
}

/* Everything up to the next 'Z' will not come, and what it meant is lost. */
static void
skip_to_ready(struct client *c)
{
	struct plan *p = &c->plan;

	while (c->want < p->want_count) {
		struct want *w = &p->wants[c->want];

		if (w->group >= 0)
			ledger_settle(c, (unsigned)w->group, 'F',
			    "error in its batch");
		if (w->type == 'Z')
			break;
		c->want++;
	}
	c->segment_failed = true;
	c->struck = true;
}

/*
 * A real client that sees the error stops sending data and goes on with the
 * Sync, but what it had sent is on its way already; do either.
 */
static void
stop_sending(struct client *c)
{
	struct plan *p = &c->plan;
	const struct want *w = next_want(c);
	size_t step = c->step;

	if (w == NULL || step >= p->step_count ||
	    c->sent != p->steps[step].out_end || chance(c, 500))
		return;
	while (p->steps[step].want_end <= c->want)
		step++;
	if (step == c->step)
		return;
	c->step = step;
	c->sent = w->resume >= c->sent ? w->resume : p->steps[step].out_end;
}

static void
match_error(struct client *c, const char *body, size_t len)
{
	const char *code = error_field(body, len, 'C');
	const char *text = error_field(body, len, 'M');
	struct want *w = next_want(c);

	if (c->state == CLIENT_LEAVING) {
		c->skip_all = true;
		return;
	}
	if (w != NULL && w->type == 'E' && code_in(code, words(c, w->words))) {
		if (c->in_block)
			COUNT(error_in_tx);
		if (c->copying)
			COUNT(error_in_copy);
		if (c->plan.op == OP_pipeline)
			COUNT(error_in_pipeline);
		c->segment_failed = true;
		c->want++;
		return;
	}
	if (w != NULL && strcmp(code, "57014") == 0 && c->cancel_allowed) {
		COUNT(cancel_struck);
		skip_to_ready(c);
		stop_sending(c);
		return;
	}
	if (w != NULL && c->struck &&
	    code_in(code, "25P02|26000|42P05|42601")) {
		skip_to_ready(c);
		return;
	}
	if (checker.faults && code_in(code, "08006|08007|57P01|57P02|57P03|"
	    "53300|08P01")) {
		client_lost(c);
		return;
	}
	violation(c, "unexpected error %s: %s", code, text);
}

/* ---- the rest --------------------------------------------------------- */

static void
forget_statements(struct client *c)
{
	memset(c->statements, 0, sizeof(c->statements));
}

/* What a reply says about the session. */
static void
apply(struct client *c, const struct want *w)
{
	const char *tag = words(c, w->words);

	if (w->group >= 0)
		ledger_settle(c, (unsigned)w->group, 'K', "told so");
	if (w->setting >= 0)
		setting_made(c, w);
	if (w->type == '1' && w->statement >= 0) {
		c->statements[w->statement].prepared = true;
		c->statements[w->statement].pid = 0;
	}
	if (w->type == '1' && w->statement < 0)
		c->unnamed_pid = 0;
	if (w->type == 'C' && w->statement == -2)
		forget_statements(c);
	if ((w->type == 'C' || w->type == '3') && w->statement >= 0)
		memset(&c->statements[w->statement], 0,
		    sizeof(c->statements[0]));
	if (w->type == 's')
		COUNT(portal_suspended);
	if (w->type == 'G' || w->type == 'H')
		c->copying = true;
	if (w->type != 'C')
		return;
	c->copying = false;
	if (strcmp(tag, "BEGIN") == 0)
		c->in_block = true;
	else if (strcmp(tag, "DISCARD ALL") == 0)
		settings_reset(c);
	else if (strcmp(tag, "SAVEPOINT") == 0)
		c->savepoint = true;
	else if (strcmp(tag, "COMMIT") == 0)
		c->in_block = false;
	else if (strcmp(tag, "ROLLBACK") == 0)
		c->rolled_back = true;
}

static void
match_ready(struct client *c, const struct want *w, const char *body,
    size_t len)
{
	char status = len == 1 ? *body : '?';
	bool right = status == w->status;

	if (c->struck && c->segment_failed)
		right = status == 'I' || (status == 'E' && c->in_block);
	else if (c->block_failed)
		right = right || status == 'E';
	if (!right) {
		violation(c, "transaction status is %c, not %c", status,
		    w->status);
		return;
	}
	if (w->group >= 0 && !c->segment_failed)
		ledger_settle(c, (unsigned)w->group, 'K', "told so");
	/* An error undoes at once what a savepoint does not protect. */
	if (status == 'E' && !c->savepoint)
		settings_end_tx(c, true);
	if (status == 'I') {
		settings_end_tx(c, c->rolled_back || c->segment_failed ||
		    c->block_failed);
		c->savepoint = false;
		c->tx_pid = 0;
		client_release_server(c);
	}
	c->in_block = status != 'I';
	c->block_failed = status == 'E' && c->struck;
	c->rolled_back = false;
	c->segment_failed = false;
	c->copying = false;
	c->ready_seen++;
	settings_told(c);
}

static void
match_login(struct client *c, char type, const char *body, size_t len)
{
	switch (type) {
	case 'R':
		if (len != 4 || get_u32(body) != 0)
			violation(c, "asked to authenticate by method %u",
			    get_u32(body));
		break;
	case 'K':
		c->key_pid = get_u32(body);
		c->key_secret = get_u32(body + 4);
		break;
	case 'Z':
		c->want++;
		settings_told(c);
		COUNT(logins);
		break;
	case 'E':
		if (checker.faults)
			client_lost(c);
		else
			violation(c, "login: %s %s",
			    error_field(body, len, 'C'),
			    error_field(body, len, 'M'));
		break;
	default:
		violation(c, "message '%c' during login", type);
	}
}

void
match_message(struct client *c, char type, const char *body, size_t len)
{
	struct want *w = next_want(c);

	if (c->skip_all || type == 'N')
		return;
	if (type == 'S') {
		match_parameter(c, body, len);
		return;
	}
	if (c->state == CLIENT_LOGIN) {
		match_login(c, type, body, len);
		return;
	}
	if (type == 'E') {
		match_error(c, body, len);
		return;
	}
	if (w == NULL) {
		violation(c, "message '%c' while nothing is awaited", type);
		return;
	}
	if (w->type != type) {
		violation(c, "message '%c' instead of '%c'", type, w->type);
		return;
	}
	if (type == 'Z') {
		match_ready(c, w, body, len);
		c->want++;
		return;
	}
	match_content(c, w, body, len);
	if (c->fd < 0)
		return;
	if (++w->seen < w->repeat)
		return;
	c->want++;
	apply(c, w);
}
