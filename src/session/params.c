/*
 * The parameters of a client's startup packet.
 *
 * Postgres takes them before it reads anything else, and a connection begins
 * with them or not at all. A client of ours has no server yet:
 *
 *   packet ---> client->vars, as they came
 *                  |  what the pool's servers have anyway is left out
 *                  v
 *   known already (pool/proof.h)? ---------------> as Postgres writes them
 *                  |                                         |
 *                  no: the first server that is free         |
 *                  is given them and asked (state.c)         |
 *                  |            |                            |
 *               refused       accepted, remembered ----------+
 *               its words,                                   v
 *               FATAL                      client->vars, client->startup_vars
 *
 * An application_name needs no judge: Postgres takes any, and makes it ASCII.
 * Many have a process's number in them, and each would be a set of its own; so
 * it is kept aside (name_aside).
 */
#include "session/params.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "migrate/detect.h"
#include "pool/pool.h"
#include "pool/proof.h"
#include "pool/vars.h"
#include "session/client.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/startup.h"

#define APPLICATION_NAME SPAN("application_name")
/* What is longer Postgres cuts off. */
#define APPLICATION_NAME_MAX 63

/*
 * Taking them.
 */

/* An application_name as Postgres makes it: ASCII, and not too long. */
static struct span
clean_name(struct span name, char clean[APPLICATION_NAME_MAX])
{
	size_t len = name.len < APPLICATION_NAME_MAX ? name.len :
	    APPLICATION_NAME_MAX;

	for (size_t i = 0; i < len; i++)
		clean[i] = name.at[i] >= ' ' && name.at[i] <= '~' ?
		    name.at[i] : '?';
	return (struct span){ clean, len };
}

/* `-c pgsluice.migrate=on`, or =command for `pgsluice migrate`: never a
 * server's to see. */
static const struct tool *
tool_by_word(struct span value)
{
	bool on;

	if (span_is_case(value, "command"))
		return tool_of(TOOL_COMMAND);
	return span_parse_bool(value, &on) && on ? tool_of(TOOL_DECLARED) :
	    NULL;
}

bool
params_take(struct client *client, const struct conf_options *o,
    struct span name, struct span value)
{
	char clean[APPLICATION_NAME_MAX];
	struct vars *vars;

	/* Who the session is for is not to be chosen here: Postgres takes it
	 * back after the login. */
	if (conf_list_has(o->ignore_startup_parameters, name) ||
	    span_is_case(name, "session_authorization"))
		return true;
	if (span_is_case(name, "pgsluice.migrate")) {
		client->migrates = tool_by_word(value);
		return true;
	}
	if (span_is_case(name, "application_name"))
		value = clean_name(value, clean);
	vars = vars_with(client->vars, name, value);
	if (vars == NULL)
		return false;
	client->vars = vars;
	return true;
}

/* As Postgres puts it; a setting without a value needs no hint. */
static void
options_refused(struct client *client, struct span why)
{
	char message[256];

	snprintf(message, sizeof(message), "%.*s", SPAN_ARG(why));
	client_end_with(client, END_BAD_PARAMETER, &(struct msg_error){
	    .sqlstate = "42601", .message = message,
	    .hint = span_starts_case(why, "invalid") ?
	    "Try \"postgres --help\" for more information." : NULL });
}

bool
params_take_options(struct client *client, const struct conf_options *o,
    struct span packet)
{
	struct buf room = { 0 };
	struct span options = SPAN_NONE;
	struct span name, value;
	enum frame_result result;

	while (startup_next_param(&packet, &name, &value))
		if (span_is(name, "options"))
			options = value;
	if (conf_list_has(o->ignore_startup_parameters, SPAN("options")))
		return true;

	while ((result = startup_next_option(&options, &room, &name,
	    &value)) == FRAME_OK && params_take(client, o, name, value))
		continue;
	if (result == FRAME_OK || room.failed)
		client_end(client, END_NO_MEMORY, NULL);
	else if (result == FRAME_BAD)
		options_refused(client, value);
	buf_finish(&room);
	return result == FRAME_MORE;
}

/* "shop" becomes "shop - 10.0.0.7:4711". */
bool
params_add_host(struct client *client, const struct conf_options *o)
{
	struct span name = vars_get(client->vars, APPLICATION_NAME);
	union stream_address peer;
	char address[128], text[256];
	unsigned port;

	if (name.len == 0)
		name = SPAN("app");
	stream_peer_address(&client->s, &peer);
	address_print(&peer, address, sizeof(address), &port);
	snprintf(text, sizeof(text), "%.*s - %s:%u",
	    name.len < 64 ? (int)name.len : 64, name.at, address, port);
	return params_take(client, o, APPLICATION_NAME, span_of(text));
}

bool
params_settle(struct client *client, const struct pool_welcome *welcome)
{
	struct span name, value;
	unsigned i = 0;

	while (i < vars_count(client->vars)) {
		vars_at(client->vars, i, &name, &value);
		struct span has = vars_get(welcome->baseline, name);
		bool same = has.at != NULL && (span_eq(has, value) ||
		    (span_is_case(name, "client_encoding") &&
		    span_eq_case(has, value)));
		if (!same) {
			i++;
			continue;
		}
		struct vars *vars = vars_with(client->vars, name, SPAN_NONE);
		if (vars == NULL)
			return false;
		client->vars = vars;
	}
	return true;
}

/*
 * Knowing them.
 */

/* The set without its application_name, which goes to *ret_name (SPAN_NONE if
 * there is none). A new reference; NULL: out of memory. */
static struct vars *
name_aside(struct vars *vars, struct span *ret_name)
{
	struct span name = vars_get(vars, APPLICATION_NAME);
	struct vars *own = vars_ref(vars), *rest;

	*ret_name = SPAN_NONE;
	if (name.at == NULL)
		return own;
	*ret_name = name;
	rest = vars_with(own, APPLICATION_NAME, SPAN_NONE);
	if (rest == NULL)
		vars_unref(own);
	return rest;
}

static void
params_begin_with(struct client *client, struct vars *vars)
{
	vars_unref(client->vars);
	vars_unref(client->startup_vars);
	client->vars = vars;
	client->startup_vars = vars_ref(vars);
}

bool
params_are_known(struct client *client)
{
	struct span name;
	struct vars *brought = name_aside(client->vars, &name);
	struct vars *known, *all;

	if (brought == NULL)
		return false;
	known = vars_count(brought) == 0 ? vars_ref(brought) :
	    proof_find(client->pool, brought);
	vars_unref(brought);
	if (known == NULL)
		return false;
	all = name.at == NULL ? known :
	    vars_with(known, APPLICATION_NAME, name);
	if (all == NULL) {
		vars_unref(known);
		return false;
	}
	params_begin_with(client, all);
	return true;
}

bool
params_are_accepted(struct client *client, struct vars *brought)
{
	struct span name;
	struct vars *key = name_aside(brought, &name);
	struct vars *accepted = name_aside(client->vars, &name);
	bool known = key != NULL && accepted != NULL;

	if (known)
		proof_add(client->pool, key, accepted);
	params_begin_with(client, vars_ref(client->vars));
	vars_unref(key);
	vars_unref(accepted);
	return known;
}

/*
 * Telling them.
 */

void
params_put(const struct client *client, const struct pool_welcome *welcome,
    struct buf *out)
{
	const char *at = welcome->messages.at;
	const char *end = at + welcome->messages.len;
	struct frame frame;

	if (vars_count(client->vars) == 0) {
		buf_add(out, at, welcome->messages.len);
		return;
	}
	while (frame_peek(at, (size_t)(end - at), &frame) == FRAME_OK) {
		struct body body = body_of((struct span){ at + FRAME_HEADER,
		    frame.body });
		struct span name = body_text(&body);
		struct span own = vars_get(client->vars, name);

		if (own.at != NULL)
			msg_parameter(out, name, own);
		else
			buf_add(out, at, FRAME_HEADER + frame.body);
		at += FRAME_HEADER + frame.body;
	}
}
