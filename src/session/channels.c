/*
 * LISTEN in transaction mode.
 *
 * A client that listens needs no server for it: the pool has one connection
 * that listens for all of them (the hub, hub.c). What a client listens to is
 * Postgres's to say, after all rules of its own (rollbacks, savepoints, names,
 * DO). So while such a client has a server, that one listens as well:
 *
 *   link       LISTEN to all the client's channels, in front of its request
 *     |
 *   requests   LISTEN, UNLISTEN, NOTIFY, pg_listening_channels() mean what
 *     |        they do on a connection of its own
 *   probe      if there was a LISTEN or UNLISTEN: pg_listening_channels() is
 *     |        the client's set from now on
 *   ask        those that are new: the hub is asked to listen to them, too
 *     |
 *   mark       the server is handed over: see below
 *     |
 *   part       UNLISTEN *; the server is anybody's
 *
 * Who brings what. A notification comes to the hub and perhaps to the client's
 * server, and must be told once. For a channel that the hub has taken over, it
 * is the hub's that counts, and the server's is dropped; before that it is the
 * other way round. The moment between the two must be the same point in the
 * order of all notifications, which both see alike. So there we put a
 * notification of our own, the mark: the server does `LISTEN mark; NOTIFY
 * mark`, and gets everything up to its own mark before the ReadyForQuery; the
 * hub, which listens to the channel since before it answered, gets the same
 * mark at the same place among its own.
 *
 *   server   a  b  MARK  c (dropped)
 *   hub         (b)  (c: not for this client yet)
 *               b dropped  MARK  c
 *
 * Where the mark may have been lost with the hub, or the server before it was
 * sent, the hub notifies itself of another, once the server brings nothing any
 * more. In between something is missing, so a NOTICE comes with it.
 *
 * One exception: a notification that this client has sent. The server brings
 * it before the ReadyForQuery, as on a direct connection, and knows that it is
 * the client's own (the pid is the server's). It is told at once with the pid
 * that the client has from its login; the hub's copy, which is equal in pid,
 * channel and payload, is dropped when it comes (channels_tell.c). After a
 * loss of the hub nobody knows whether it will come; it is awaited for a
 * moment.
 *
 * When a client is told. Postgres does so between transactions only. What
 * comes in the middle of one waits in channels->held; so does what a client is
 * too slow to take. When that gets too long it is dropped, and the client is
 * told by a NOTICE that it has missed something, as it is when the hub was
 * lost; the NOTICE stands among the notifications where the gap is.
 *
 * If the hub cannot be had, the client is pinned to its server, which goes on
 * to listen for it; the hub is asked again after each of its transactions. So
 * it is with a client whose client_encoding is not the hub's: names and
 * payloads would arrive in the wrong one.
 */
#include "session/channels.h"

#include <string.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/mem.h"
#include "conf/conf_database.h"
#include "pool/pool.h"
#include "pool/vars.h"
#include "session/cancel.h"
#include "session/channels_inside.h"
#include "session/client.h"
#include "session/hub.h"
#include "session/link.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/sqlscan.h"

MEM_TYPE(channels_type, channels);
MEM_TYPE(seat_type, seat);

/*
 * Rooms and seats.
 */

struct room *
room_find(const struct hub_branch *branch, struct span name)
{
	struct hash_node *node = hash_find(&branch->rooms, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct room *room = container_of(node, struct room, by_name);
		if (span_eq(name, (struct span){ room->name, room->len }))
			return room;
	}
	return NULL;
}

static struct room *
room_get(struct hub_branch *branch, struct span name)
{
	struct room *room = room_find(branch, name);

	if (room != NULL)
		return room;
	room = mem_zalloc(sizeof(*room) + name.len + 1);
	if (room == NULL)
		return NULL;
	room->len = (uint32_t)name.len;
	memcpy(room->name, name.at, name.len);
	if (!hash_add(&branch->rooms, &room->by_name, span_hash(name))) {
		mem_free(room);
		return NULL;
	}
	return room;
}

static struct hub_branch *
branch_of(const struct channels *channels)
{
	return hub_branch(channels->hub, channels->client->worker);
}

static void
room_close_if_empty(struct hub_branch *branch, struct room *room)
{
	if (room->clients > 0)
		return;
	hash_remove(&branch->rooms, &room->by_name);
	if (branch->rooms.count == 0)
		hash_finish(&branch->rooms);
	mem_free(room);
}

static struct seat *
seat_create(struct channels *channels, struct span name)
{
	struct hub_branch *branch = branch_of(channels);
	struct room *room = room_get(branch, name);
	struct seat *seat = room == NULL ? NULL : mem_new(&seat_type);

	if (seat == NULL || !hash_add(&channels->by_name, &seat->by_name,
	    span_hash(name))) {
		mem_delete(&seat_type, seat);
		if (room != NULL)
			room_close_if_empty(branch, room);
		return NULL;
	}
	seat->room = room;
	seat->channels = channels;
	seat->by_server = true;
	room->clients++;
	list_append(&room->seats, &seat->in_room);
	list_append(&channels->seats, &seat->of_client);
	return seat;
}

/* The name goes to `leave`, if the hub is to be told. */
static void
seat_destroy(struct seat *seat, struct buf *leave)
{
	struct room *room = seat->room;

	held_forget(seat->channels, seat_name(seat));
	if (seat->asked)
		buf_add(leave, room->name, room->len + 1);
	hash_remove(&seat->channels->by_name, &seat->by_name);
	list_remove(&seat->in_room);
	list_remove(&seat->of_client);
	room->clients--;
	room_close_if_empty(branch_of(seat->channels), room);
	mem_delete(&seat_type, seat);
}

struct seat *
seat_find(const struct channels *channels, struct span name)
{
	struct hash_node *node =
	    hash_find(&channels->by_name, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct seat *seat = container_of(node, struct seat, by_name);
		if (span_eq(seat_name(seat), name))
			return seat;
	}
	return NULL;
}

bool
channels_have(const struct client *client, struct span name)
{
	return client->channels != NULL &&
	    seat_find(client->channels, name) != NULL;
}

static struct channels *
channels_get(struct client *client)
{
	struct channels *channels = client->channels;
	struct hub *hub;

	if (channels != NULL)
		return channels;
	hub = hub_of(client->pool);
	channels = hub == NULL ? NULL : mem_new(&channels_type);
	if (channels == NULL)
		return NULL;
	channels->client = client;
	channels->hub = hub;
	loop_task_init(&channels->task, channels_task);
	list_append(&hub_branch(hub, client->worker)->clients,
	    &channels->node);
	client->channels = channels;
	return channels;
}

static void
channels_drop(struct channels *channels, bool all)
{
	struct client *client = channels->client;
	struct buf leave = { 0 };
	struct seat *seat;

	each_seat(seat, channels)
		if (all || !seat->seen)
			seat_destroy(seat, &leave);
	if (!leave.failed)
		hub_unsubscribe(channels->hub, client->worker, &leave);
	buf_finish(&leave);
}

static void
channels_destroy(struct channels *channels)
{
	loop_task_cancel(&channels->task);
	list_remove(&channels->node);
	buf_finish(&channels->held);
	hash_finish(&channels->by_name);
	mem_free(channels->own);
	channels->client->channels = NULL;
	mem_delete(&channels_type, channels);
}

void
channels_forget(struct client *client)
{
	if (client->channels == NULL)
		return;
	buf_finish(&client->channels->held);
	channels_drop(client->channels, true);
	channels_destroy(client->channels);
}

/*
 * With a server.
 */

/* Servers of several hosts at a time may be of several clusters, and would
 * not see the same notifications. */
static bool
is_one_cluster(const struct pool *pool)
{
	const struct conf_database *db = pool->db;

	return db->host_count < 2 || !db->load_balance_hosts;
}

bool
channels_are_carried(const struct client *client)
{
	return client->pool != NULL &&
	    pool_mode(client->pool) == POOL_TRANSACTION &&
	    is_one_cluster(client->pool) &&
	    (client->worker->setup->conf->o.listen_fanout ||
	    client->channels != NULL);
}

uint32_t
channels_note(const struct server *server, uint32_t effects)
{
	/* The answer of a probe may still be on its way. */
	if (effects & (SQL_UNLISTEN | SQL_DISCARD_ALL) &&
	    (server->hears != HEARS_NOTHING ||
	    server->touched & (SQL_LISTEN | SQL_UNKNOWN)))
		effects |= SQL_LISTEN;
	return effects;
}

bool
channels_compose(struct server *server, struct client *client)
{
	struct channels *channels = client->channels;
	struct buf *out = &client->worker->scratch;
	struct seat *seat;
	size_t began;

	if (channels == NULL)
		return false;
	buf_clear(out);
	began = msg_begin(out, 'Q');
	each_seat(seat, channels)
		hub_put_name(out, "LISTEN", seat_name(seat));
	buf_add(out, "", 1);
	msg_end(out, began);
	server->hears = HEARS_CLIENT;
	return true;
}

void
channels_probe_begin(struct server *server)
{
	struct channels *channels = server->client->channels;
	struct seat *seat;

	server->channels_asked = true;
	if (channels == NULL)
		return;
	each_seat(seat, channels)
		seat->seen = false;
}

void
channels_probe_row(struct server *server, struct span name)
{
	struct channels *channels;
	struct seat *seat = NULL;

	if (server->client == NULL || span_eq(name, hub_mark_channel()))
		return;
	channels = channels_get(server->client);
	if (channels != NULL)
		seat = seat_find(channels, name);
	if (channels != NULL && seat == NULL)
		seat = seat_create(channels, name);
	if (seat == NULL)
		server->tainted = true;
	else
		seat->seen = true;
}

void
channels_probed(struct server *server)
{
	struct channels *channels;

	if (!server->channels_asked)
		return;
	server->channels_asked = false;
	server->hub_refused = false;
	if (server->client == NULL || server->client->channels == NULL)
		return;
	channels = server->client->channels;
	channels_drop(channels, false);
	if (list_is_empty(&channels->seats))
		channels_destroy(channels);
	else
		server->hears = HEARS_CLIENT;
}

/* Would the hub's bytes mean the same to this client? */
static bool
is_foreign(const struct server *server)
{
	static const struct span encoding = { "client_encoding", 15 };
	struct span own = vars_get(server->client->vars, encoding);
	struct span hub = vars_get(server->baseline, encoding);

	return own.at != NULL && !span_eq_case(own, hub);
}

/* A query of ours, begun in `scratch`, at the end of a link. */
static bool
leave_send(struct server *server, struct buf *out, size_t began)
{
	struct owed_entry *entry;

	buf_add(out, "", 1);
	msg_end(out, began);
	entry = out->failed ? NULL :
	    owed_push(&server->owed, OWED_QUERY, OWED_SWALLOW);
	if (entry == NULL) {
		client_end(server->client, END_NO_MEMORY, NULL);
		return false;
	}
	entry->leaves = true;
	server_set_unnamed(server, NULL);
	server_set_local_portal(server, NULL);
	stream_send(&server->s, out->at, out->len);
	return true;
}

static bool
leave_send_mark(struct server *server, struct channels *channels)
{
	struct client *client = server->client;
	struct buf *out = &server->worker->scratch;
	struct seat *seat;
	size_t began;

	channels->serial++;
	each_seat(seat, channels)
		if (seat->ready && !seat->marked) {
			seat->marked = true;
			seat->serial = channels->serial;
		}
	buf_clear(out);
	began = msg_begin(out, 'Q');
	hub_put_name(out, "LISTEN", hub_mark_channel());
	hub_put_mark(out, client->id, channels->serial);
	return leave_send(server, out, began);
}

/* Has the server stop; a client that is pinned for another reason keeps it,
 * and it goes on to listen. */
static void
leave_send_stop(struct server *server, bool marked)
{
	struct buf *out = &server->worker->scratch;
	size_t began;

	server->hears = HEARS_LEAVING;
	stream_pause(&server->client->s, PAUSE_ANSWER);
	if (marked && !leave_send_mark(server, server->client->channels))
		return;
	buf_clear(out);
	began = msg_begin(out, 'Q');
	if (server->pins & ~(1u << PIN_LISTEN))
		hub_put_name(out, "UNLISTEN", hub_mark_channel());
	else
		buf_add_text(out, "UNLISTEN *");
	leave_send(server, out, began);
}

/* The client stays with its server. */
static bool
leave_not(struct server *server)
{
	server->hears = HEARS_CLIENT;
	state_pin(server, PIN_LISTEN);
	return false;
}

static bool
leave_ask(struct server *server, struct channels *channels)
{
	struct client *client = server->client;
	struct buf names = { 0 };
	struct seat *seat;
	bool asked;

	channels->serial++;
	each_seat(seat, channels)
		if (!seat->asked)
			buf_add(&names, seat->room->name, seat->room->len + 1);
	asked = hub_subscribe(channels->hub, client->worker, client->id,
	    channels->serial, &names);
	buf_finish(&names);
	if (!asked)
		return false;
	each_seat(seat, channels)
		if (!seat->asked) {
			seat->asked = true;
			seat->serial = channels->serial;
		}
	return true;
}

/* What is to be done for those that the hub has not taken over? */
static void
leave_look(struct channels *channels, unsigned *ret_new, unsigned *ret_asked,
    unsigned *ret_ready)
{
	struct seat *seat;

	*ret_new = *ret_asked = *ret_ready = 0;
	each_seat(seat, channels) {
		*ret_new += !seat->asked;
		*ret_asked += seat->asked && !seat->ready;
		*ret_ready += seat->ready && !seat->marked;
	}
}

/* Holds the client back until channels_go_on(). */
static bool
leave_wait(struct server *server)
{
	server->hears = HEARS_WAITS;
	stream_pause(&server->client->s, PAUSE_ANSWER);
	return true;
}

bool
channels_leave(struct server *server)
{
	struct channels *channels;
	unsigned fresh = 0, asked = 0, ready = 0;

	if (server->hears == HEARS_NOTHING || server->client == NULL)
		return false;
	if (server->hears != HEARS_CLIENT)
		return true;
	channels = server->client->channels;
	if (channels != NULL) {
		channels->foreign = is_foreign(server);
		leave_look(channels, &fresh, &asked, &ready);
	}
	if (fresh > 0 && (server->hub_refused || channels->foreign))
		return leave_not(server);
	if (fresh > 0 && !leave_ask(server, channels))
		return leave_not(server);
	if (fresh > 0 || asked > 0)
		return leave_wait(server);
	if (ready == 0 && server->pins & ~(1u << PIN_LISTEN)) {
		state_unpin(server, PIN_LISTEN);
		return false;
	}
	/* A cancel that comes late must not hit what we send now. */
	if (server->cancels > 0)
		return leave_wait(server);
	leave_send_stop(server, ready > 0);
	return server->client != NULL;
}

void
channels_go_on(struct server *server)
{
	struct client *client = server->client;

	if (client == NULL || server->hears != HEARS_WAITS)
		return;
	server->hears = HEARS_CLIENT;
	if (state_probe(server) || server->client != client)
		return;
	stream_resume(&client->s, PAUSE_ANSWER);
	if (!link_is_over(client))
		return;
	link_part(client);
	if (server->state == SERVER_FREE)
		server_free_up_later(server);
}

/* The server does not bring it any more, and perhaps did not to the end. */
void
channels_take_over(struct channels *channels)
{
	struct seat *seat;

	each_seat(seat, channels) {
		if (!seat->by_server)
			continue;
		channels_miss(channels, MISSED_HUB);
		if (!seat->ready)
			continue;	/* the next server has it again */
		seat->marked = true;
		seat->by_server = false;
		seat->lost = true;
	}
	channels_mark_anew(channels);
	channels_tell_later(channels->client);
}

void
channels_mark_anew(struct channels *channels)
{
	uint64_t serial = ++channels->serial;
	bool any = false, asked;
	struct seat *seat;

	each_seat(seat, channels)
		if (seat->lost && !seat->by_server) {
			seat->serial = serial;
			any = true;
		}
	asked = any && hub_mark(channels->hub, channels->client->id, serial);
	/* Rather twice than never. */
	each_seat(seat, channels)
		if (any && !asked && seat->serial == serial)
			seat->by_hub = true;
}

void
channels_leave_failed(struct server *server)
{
	server->tainted = true;
}

void
channels_left(struct server *server)
{
	struct client *client = server->client;

	/* It came too late for what it was meant for. */
	cancel_put_off_ended(server, false);
	if (server->owed.count > 0 || server->hears != HEARS_LEAVING)
		return;
	state_unpin(server, PIN_LISTEN);
	server->hears = server->pins != 0 ? HEARS_CLIENT : HEARS_NOTHING;
	if (client == NULL)
		return;
	/* Without its mark, because of an error. */
	if (client->channels != NULL && server->tainted)
		channels_take_over(client->channels);
	stream_resume(&client->s, PAUSE_ANSWER);
}

void
channels_unlinked(struct server *server, struct client *client)
{
	server->hub_refused = false;
	if (server->hears != HEARS_NOTHING && client->channels != NULL)
		channels_take_over(client->channels);
}
