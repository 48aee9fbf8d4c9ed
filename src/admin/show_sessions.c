/*
 * SHOW CLIENTS, PINS, SERVERS, SOCKETS: one row a session, by its own worker;
 * LISTENERS: one row for each channel.
 *
 * A session's `ptr` is the name that its lines in the log begin with; `link`
 * is that of the other side while the two are linked.
 */
#include "admin/show.h"

#include "base/clock.h"
#include "conf/conf.h"
#include "net/tls.h"
#include "pool/vars.h"
#include "session/channels.h"
#include "session/hub.h"
#include "session/link.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/state.h"
#include "session/worker.h"

/* What a row of either kind consists of. */
struct session_row {
	char type;			/* C or S */
	const char *user, *database, *state;
	const struct stream *s;
	const union stream_address *peer;
	unsigned unix_port;		/* shown in place of none */
	uint64_t connected_us;		/* wall clock */
	uint64_t request_us;		/* clock_us(); 0 = none yet */
	uint64_t wait_us;
	bool close_needed;
	uint64_t id;
	char other;			/* type of the linked session, or 0 */
	uint64_t other_id;
	uint32_t pid;
	const struct vars *vars;
	unsigned statements;
};

static void
put_address(struct rows *rows, const union stream_address *address,
    unsigned unix_port)
{
	char text[128];
	unsigned port;

	address_print(address, text, sizeof(text), &port);
	row_text(rows, text);
	row_int(rows, address->any.sa_family == AF_UNIX ? unix_port : port);
}

/* Sessions note the time by the clock that never jumps. */
static uint64_t
wall_of(uint64_t us)
{
	return us == 0 ? 0 : clock_wall_us() - (clock_us() - us);
}

static void
put_session(struct rows *rows, const struct session_row *row)
{
	char tls[128] = "";

	row_printf(rows, "%c", row->type);
	row_text(rows, row->user);
	row_text(rows, row->database);
	row_text(rows, "none");			/* replication */
	row_text(rows, row->state);
	put_address(rows, row->peer, row->unix_port);
	if (row->s->fd >= 0) {
		union stream_address local;
		stream_local_address(row->s, &local);
		put_address(rows, &local, row->unix_port);
		stream_tls_version(row->s, tls, sizeof(tls));
	} else {
		row_null(rows);
		row_null(rows);
	}
	row_time(rows, row->connected_us);
	row_time(rows, wall_of(row->request_us));
	row_int(rows, row->wait_us / 1000000);
	row_int(rows, row->wait_us % 1000000);
	row_int(rows, row->close_needed);
	row_printf(rows, "%c-0x%llx", row->type, (unsigned long long)row->id);
	if (row->other != 0)
		row_printf(rows, "%c-0x%llx", row->other,
		    (unsigned long long)row->other_id);
	else
		row_text(rows, "");
	row_int(rows, row->pid);
	row_text(rows, tls);

	struct span name = vars_get(row->vars, SPAN("application_name"));
	row_span(rows, name.at != NULL ? name : SPAN(""));
	row_int(rows, row->statements);
	row_int(rows, row->id);
}

static void
put_socket(struct rows *rows, const struct stream *s, const struct relay *relay)
{
	uint64_t to_send = s->queued.len - s->queued_at;

	row_int(rows, 0);			/* recv_pos */
	row_int(rows, 0);			/* pkt_pos */
	row_int(rows, relay->left);		/* pkt_remain */
	row_int(rows, s->queued_at);		/* send_pos */
	row_int(rows, to_send);			/* send_remain */
	row_int(rows, s->held.len);		/* pkt_avail */
	row_int(rows, to_send);			/* send_avail */
}

enum which { PLAIN, WITH_SOCKET, ONLY_ACTIVE };

static bool
is_active(const struct stream *s, bool is_linked)
{
	return is_linked || s->held.len > 0 || s->queued.len > 0;
}

/* Reason and age in seconds. */
static void
put_pin(struct rows *rows, const struct server *server)
{
	char text[STATE_PINS_TEXT];

	if (server == NULL || state_pins(server) == 0) {
		row_text(rows, "");
		row_null(rows);
		return;
	}
	row_text(rows, state_pins_text(state_pins(server), text,
	    sizeof(text)));
	row_int(rows, server->pinned_us == 0 ? 0 :
	    (clock_wall_us() - server->pinned_us) / 1000000);
}

static void
put_client(struct worker *worker, struct rows *rows, struct client *client,
    enum which which)
{
	const struct server *server = client->server;
	bool waits = client->state == CLIENT_WAITING ||
	    client->state == CLIENT_WELCOME;
	union stream_address peer = { .any.sa_family = AF_UNIX };
	struct session_row row = {
		.type = 'C',
		.user = client_user(client),
		.database = client_database(client),
		.state = client_state_shown(client),
		.s = &client->s,
		.peer = &peer,
		.connected_us = client->connected_us,
		.unix_port =
		    (unsigned)worker->setup->conf->o.listen_port,
		.request_us = client->request_us,
		.wait_us = waits ? clock_us() - client->state_us : 0,
		.id = client->id,
		.other = server != NULL ? 'S' : 0,
		.other_id = server != NULL ? server->id : 0,
		.pid = stream_peer_pid(&client->s),
		.vars = client->vars,
		.statements = stmt_names_count(&client->names),
	};

	if (which == ONLY_ACTIVE && !is_active(&client->s, server != NULL))
		return;
	if (client->s.fd >= 0)
		stream_peer_address(&client->s, &peer);
	row_begin(rows);
	put_session(rows, &row);
	if (which != PLAIN)
		put_socket(rows, &client->s, &client->relay);
	row_int(rows, worker->index);
	if (which == PLAIN)
		put_pin(rows, server);
	row_end(rows);
}

/* What ties this client to its server, if anything does. */
static void
put_pinned(struct worker *worker, struct rows *rows, struct client *client)
{
	const struct server *server = client->server;
	union stream_address peer = { .any.sa_family = AF_UNIX };

	if (server == NULL || state_pins(server) == 0)
		return;
	if (client->s.fd >= 0)
		stream_peer_address(&client->s, &peer);
	row_begin(rows);
	row_text(rows, client_database(client));
	row_text(rows, client_user(client));
	put_address(rows, &peer,
	    (unsigned)worker->setup->conf->o.listen_port);
	put_pin(rows, server);
	row_printf(rows, "C-0x%llx", (unsigned long long)client->id);
	row_printf(rows, "S-0x%llx", (unsigned long long)server->id);
	row_int(rows, server->pid);
	row_int(rows, worker->index);
	row_end(rows);
}

void
collect_pins(struct worker *worker, struct rows *rows)
{
	for (int state = 0; state < CLIENT_GONE; state++)
		list_each(node, &worker->clients[state])
			put_pinned(worker, rows,
			    container_of(node, struct client, node));
}

struct listeners {
	struct worker *worker;
	struct rows *rows;
	const struct pool *pool;
};

static void
put_listeners(void *arg, struct span name, unsigned clients)
{
	const struct listeners *listeners = arg;
	struct rows *rows = listeners->rows;

	row_begin(rows);
	row_text(rows, listeners->pool->database);
	row_text(rows, listeners->pool->user);
	row_span(rows, name);
	row_int(rows, clients);
	row_int(rows, listeners->worker->index);
	row_end(rows);
}

void
collect_listeners(struct worker *worker, struct rows *rows)
{
	struct listeners listeners = { .worker = worker, .rows = rows };
	struct pool *pool = NULL;

	while ((pool = pool_next(pool)) != NULL) {
		struct hub *hub = hub_find(pool);
		listeners.pool = pool;
		if (hub != NULL)
			channels_each(worker, hub, put_listeners, &listeners);
	}
}

bool
server_is_used(const struct server *server)
{
	return server->state == SERVER_IDLE && link_needs_check(server);
}

static void
put_server(struct worker *worker, struct rows *rows, struct server *server,
    enum which which)
{
	const struct client *client = server->client;
	struct session_row row = {
		.type = 'S',
		.user = server->pool->user,
		.database = server->pool->database,
		.state = server_is_used(server) ? "used" :
		    server_state_shown(server),
		.s = &server->s,
		.peer = &server->address,
		.connected_us = server->connected_us,
		.unix_port = server->pool->db->port,
		.request_us = client != NULL ? client->request_us :
		    server->request_us,
		.close_needed = gate_is_outdated(server),
		.id = server->id,
		.other = client != NULL ? 'C' : 0,
		.other_id = client != NULL ? client->id : 0,
		.pid = server->pid,
		.vars = server->vars,
		.statements = stmt_cache_count(&server->statements),
	};

	if (which == ONLY_ACTIVE && !is_active(&server->s, client != NULL))
		return;
	row_begin(rows);
	put_session(rows, &row);
	if (which != PLAIN)
		put_socket(rows, &server->s, &server->relay);
	row_int(rows, worker->index);
	row_end(rows);
}

static void
each_client(struct worker *worker, struct rows *rows, enum which which)
{
	for (int state = 0; state < CLIENT_GONE; state++)
		list_each(node, &worker->clients[state])
			put_client(worker, rows,
			    container_of(node, struct client, node), which);
}

static void
each_server(struct worker *worker, struct rows *rows, enum which which)
{
	for (int state = 0; state < SERVER_GONE; state++)
		list_each(node, &worker->servers[state])
			put_server(worker, rows,
			    container_of(node, struct server, node), which);
}

void
collect_clients(struct worker *worker, struct rows *rows)
{
	each_client(worker, rows, PLAIN);
}

void
collect_servers(struct worker *worker, struct rows *rows)
{
	each_server(worker, rows, PLAIN);
}

void
collect_sockets(struct worker *worker, struct rows *rows)
{
	each_client(worker, rows, WITH_SOCKET);
	each_server(worker, rows, WITH_SOCKET);
}

void
collect_active_sockets(struct worker *worker, struct rows *rows)
{
	each_client(worker, rows, ONLY_ACTIVE);
	each_server(worker, rows, ONLY_ACTIVE);
}
