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
 * One exception: a notification that this client has sent. The server brings
 * it before the ReadyForQuery, as on a direct connection, and knows that it is
 * the client's own (the pid is the server's). It is told at once with the pid
 * that the client has from its login; the hub's copy, which is equal in pid,
 * channel and payload, is dropped when it comes (channels->own).
 *
 * When a client is told. Postgres does so between transactions only. What
 * comes in the middle of one waits in channels->held; so does what a client is
 * too slow to take. When that gets too long it is dropped, and the client is
 * told by a NOTICE that it has missed something, as it is when the hub was
 * lost.
 *
 * If the hub cannot be had, the client is pinned to its server, which goes on
 * to listen for it; the hub is asked again after each of its transactions. So
 * it is with a client whose client_encoding is not the hub's: names and
 * payloads would arrive in the wrong one.
 */
#include "session/channels.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"
#include "pool/pool.h"
#include "pool/vars.h"
#include "session/client.h"
#include "session/hub.h"
#include "session/link.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/state.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"
#include "wire/sqlscan.h"

/* What may wait for one client; and how much is composed at a time. */
#define HELD_MAX (1u << 20)
#define TELL_MAX (64u << 10)
/* Notifications of the client's own whose copies are still to come. With more
 * of them the hub's copy is the one that is told. */
#define OWN_MAX 4096

/* Why a client may have missed something. */
enum missed {
	MISSED_HUB = 1 << 0,
	MISSED_FULL = 1 << 1,
	MISSED_ENCODING = 1 << 2,
};

/* A channel, and those of this worker's clients that listen to it. */
struct room {
	struct hash_node by_name;
	struct list seats;
	unsigned clients;
	uint32_t len;
	char name[];
};

/* One client in one room. */
struct seat {
	struct list in_room;
	struct list of_client;
	struct room *room;
	struct channels *channels;
	uint64_t serial;		/* of the question to the hub */
	bool asked;			/* the hub has been asked for it */
	bool ready;			/* ... and listens */
	bool marked;			/* the mark is on its way */
	bool by_server;			/* what the server brings counts */
	bool by_hub;			/* what the hub brings counts */
	bool seen;			/* by the probe */
};

struct own {
	uint32_t pid;
	uint64_t channel;		/* hashes */
	uint64_t payload;
};

struct channels {
	struct list node;		/* hub_branch.clients */
	struct client *client;
	struct hub *hub;
	struct list seats;
	struct loop_task task;		/* tells what is held */
	struct buf held;		/* messages */
	unsigned missed;		/* set of enum missed */
	bool foreign;			/* another client_encoding */
	uint64_t serial;		/* of the last question, or mark */
	struct own *own;
	unsigned own_count, own_size;
};

MEM_TYPE(channels_type, channels);
MEM_TYPE(seat_type, seat);

/*
 * Rooms and seats.
 */

static struct room *
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
	room = mem_zalloc(sizeof(*room) + name.len);
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

static struct span
seat_name(const struct seat *seat)
{
	return (struct span){ seat->room->name, seat->room->len };
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

	if (seat == NULL) {
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

/* Copies of what was told on this channel will not be looked at any more. */
static void
own_forget(struct channels *channels, struct span name)
{
	uint64_t channel = span_hash(name);
	unsigned kept = 0;

	for (unsigned i = 0; i < channels->own_count; i++)
		if (channels->own[i].channel != channel)
			channels->own[kept++] = channels->own[i];
	channels->own_count = kept;
}

/* The name goes to `leave`, if the hub is to be told. */
static void
seat_destroy(struct seat *seat, struct buf *leave)
{
	struct room *room = seat->room;

	own_forget(seat->channels, seat_name(seat));

	if (seat->asked)
		buf_add(leave, room->name, room->len + 1);
	list_remove(&seat->in_room);
	list_remove(&seat->of_client);
	room->clients--;
	room_close_if_empty(branch_of(seat->channels), room);
	mem_delete(&seat_type, seat);
}

#define each_seat(seat, channels) \
	for (struct list *seat##_node = list_start(&(channels)->seats), \
	    *seat##_next = seat##_node->next; \
	    seat##_node != &(channels)->seats && \
	    (seat = container_of(seat##_node, struct seat, of_client), true); \
	    seat##_node = seat##_next, seat##_next = seat##_node->next)

static struct seat *
seat_find(const struct channels *channels, struct span name)
{
	struct channels *of = (struct channels *)channels;
	struct seat *seat;

	each_seat(seat, of)
		if (span_eq(seat_name(seat), name))
			return seat;
	return NULL;
}

bool
channels_have(const struct client *client, struct span name)
{
	return client->channels != NULL &&
	    seat_find(client->channels, name) != NULL;
}

static void channels_task(struct loop_task *task);

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
	mem_free(channels->own);
	channels->client->channels = NULL;
	mem_delete(&channels_type, channels);
}

void
channels_forget(struct client *client)
{
	if (client->channels == NULL)
		return;
	channels_drop(client->channels, true);
	channels_destroy(client->channels);
}

/*
 * With a server.
 */

bool
channels_are_carried(const struct client *client)
{
	return client->pool != NULL &&
	    pool_mode(client->pool) == POOL_TRANSACTION &&
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
	hub_put_name(out, "NOTIFY", hub_mark_channel());
	out->len--;			/* its semicolon */
	buf_printf(out, ",'%llx %llx'", (unsigned long long)client->id,
	    (unsigned long long)channels->serial);
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
		return leave_not(server);
	each_seat(seat, channels)
		if (!seat->asked) {
			seat->asked = true;
			seat->serial = channels->serial;
		}
	server->hears = HEARS_WAITS;
	stream_pause(&client->s, PAUSE_ANSWER);
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
	if (fresh > 0)
		return leave_ask(server, channels);
	if (asked > 0) {
		server->hears = HEARS_WAITS;
		stream_pause(&server->client->s, PAUSE_ANSWER);
		return true;
	}
	if (ready == 0 && server->pins & ~(1u << PIN_LISTEN)) {
		state_unpin(server, PIN_LISTEN);
		return false;
	}
	leave_send_stop(server, ready > 0);
	return server->client != NULL;
}

/* The server does not bring it any more, and perhaps did not to the end. */
static void
channels_take_over(struct channels *channels)
{
	struct seat *seat;

	each_seat(seat, channels) {
		if (!seat->by_server)
			continue;
		channels->missed |= MISSED_HUB;
		if (!seat->ready)
			continue;	/* the next server has it again */
		seat->marked = true;
		seat->by_server = false;
		seat->by_hub = true;
	}
	channels_tell_later(channels->client);
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

/*
 * Telling.
 */

/* Notes that the hub will bring it as well. False: no room. */
static bool
own_note(struct channels *channels, uint32_t pid, struct span name,
    struct span payload)
{
	if (channels->own_count == channels->own_size) {
		unsigned size = channels->own_size == 0 ? 8 :
		    channels->own_size * 2;
		struct own *own = size > OWN_MAX ? NULL :
		    mem_realloc(channels->own, size * sizeof(*own));
		if (own == NULL)
			return false;
		channels->own = own;
		channels->own_size = size;
	}
	channels->own[channels->own_count++] =
	    (struct own){ pid, span_hash(name), span_hash(payload) };
	return true;
}

/* The hub's copy of what has been told? Then that is settled. */
static bool
own_take(struct channels *channels, uint32_t pid, struct span name,
    struct span payload)
{
	for (unsigned i = 0; i < channels->own_count; i++) {
		if (channels->own[i].pid != pid ||
		    channels->own[i].channel != span_hash(name) ||
		    channels->own[i].payload != span_hash(payload))
			continue;
		channels->own[i] = channels->own[--channels->own_count];
		return true;
	}
	return false;
}

static bool
notification_parse(struct span bytes, uint32_t *ret_pid,
    struct span *ret_name, struct span *ret_payload)
{
	struct body body = body_of(bytes);

	*ret_pid = body_u32(&body);
	*ret_name = body_text(&body);
	*ret_payload = body_text(&body);
	return body_is_done(&body);
}

enum channels_verdict
channels_judge(struct server *server, struct span body)
{
	struct channels *channels;
	struct span name, payload;
	struct seat *seat;
	uint32_t pid;

	if (!notification_parse(body, &pid, &name, &payload))
		return CHANNELS_BAD;
	if (server->client == NULL)
		return CHANNELS_DROP;
	channels = server->client->channels;
	if (channels != NULL && span_eq(name, hub_mark_channel())) {
		each_seat(seat, channels)
			if (seat->marked && pid == server->pid)
				seat->by_server = false;
		return CHANNELS_DROP;
	}
	seat = channels == NULL ? NULL : seat_find(channels, name);
	if (seat == NULL || seat->by_server)
		return pid == server->pid ? CHANNELS_OWN : CHANNELS_PASS;
	return pid == server->pid && own_note(channels, pid, name,
	    payload) ?
	    CHANNELS_OWN : CHANNELS_DROP;
}

static void
put_notification(struct buf *out, uint32_t pid, struct span body)
{
	size_t began = msg_begin(out, 'A');

	msg_u32(out, pid);
	buf_add(out, body.at + 4, body.len - 4);
	msg_end(out, began);
}

void
channels_tell_own(struct client *client, struct span body)
{
	struct buf *out = &client->worker->scratch;

	buf_clear(out);
	put_notification(out, client_cancel_pid(client), body);
	if (!out->failed)
		stream_send(&client->s, out->at, out->len);
}

void
channels_tell_later(struct client *client)
{
	struct channels *channels = client->channels;

	if (channels != NULL &&
	    (channels->held.len > 0 || channels->missed != 0))
		loop_defer(client->worker->loop, &channels->task);
}

/* As a direct connection: between two transactions, and nothing under way. */
static bool
client_may_be_told(const struct client *client)
{
	const struct server *server = client->server;

	if (client->s.state != STREAM_OPEN || stream_is_blocked(&client->s))
		return false;
	if (server == NULL)
		return client->state == CLIENT_IDLE && client->begin == NULL;
	return client->state == CLIENT_ACTIVE && server->status == 'I' &&
	    server->owed.count == 0 && !server->owed.batch_open &&
	    server->relay.left == 0;
}

static void
channels_tell_missed(struct channels *channels)
{
	static const struct {
		unsigned why;
		const char *text;
	} texts[] = {
		{ MISSED_HUB, "notifications may have been missed: the "
		    "connection that listens for this client was lost" },
		{ MISSED_FULL, "notifications have been missed: too many "
		    "were waiting to be sent to this client" },
		{ MISSED_ENCODING, "notifications have been missed: they are "
		    "not in this client's encoding" },
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (channels->missed & texts[i].why)
			client_notice(channels->client, "01000",
			    texts[i].text);
	channels->missed = 0;
	/* Copies of its own may be among them. */
	channels->own_count = 0;
}

/* Composes what is held, up to a limit; returns how many bytes that took.
 * What the client has unlistened to meanwhile, and what it has had from its
 * server, is left out. */
static size_t
channels_compose_held(struct channels *channels, struct buf *out)
{
	const struct buf *held = &channels->held;
	struct span name, payload;
	struct frame frame;
	size_t at = 0;
	uint32_t pid;

	buf_clear(out);
	while (at < held->len && out->len < TELL_MAX && frame_peek(
	    held->at + at, held->len - at, &frame) == FRAME_OK) {
		struct span body = { held->at + at + FRAME_HEADER,
		    frame.body };
		const struct seat *seat;

		at += FRAME_HEADER + frame.body;
		check(notification_parse(body, &pid, &name, &payload));
		seat = seat_find(channels, name);
		if (seat != NULL && seat->by_hub &&
		    !own_take(channels, pid, name, payload))
			put_notification(out, pid, body);
	}
	return at;
}

static void
channels_task(struct loop_task *task)
{
	struct channels *channels =
	    container_of(task, struct channels, task);
	struct client *client = channels->client;
	struct buf *out = &client->worker->scratch;

	if (!client_may_be_told(client))
		return;
	while (channels->held.len > 0 && !stream_is_blocked(&client->s)) {
		size_t took = channels_compose_held(channels, out);
		if (out->len > 0 && !out->failed)
			stream_send(&client->s, out->at, out->len);
		buf_cut(&channels->held, took);
	}
	if (channels->held.len > 0)
		return;
	buf_finish(&channels->held);
	if (channels->missed != 0)
		channels_tell_missed(channels);
	client_count_bytes(client, 0);
}

/*
 * From the hub.
 */

static bool
is_ascii(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.at[i] >= 0x80)
			return false;
	return true;
}

static void
channels_hold(struct channels *channels, struct span body)
{
	uint32_t pid;
	struct span name, payload;

	check(notification_parse(body, &pid, &name, &payload));
	if (channels->held.len + body.len > HELD_MAX) {
		channels->missed |= MISSED_FULL;
	} else if (channels->foreign && !is_ascii((struct span){ name.at,
	    body.len - 4 })) {
		channels->missed |= MISSED_ENCODING;
	} else {
		put_notification(&channels->held, pid, body);
		if (channels->held.failed) {
			buf_finish(&channels->held);
			channels->missed |= MISSED_FULL;
		}
	}
	channels_tell_later(channels->client);
}

void
channels_notified(struct worker *worker, struct hub *hub, struct span bytes)
{
	uint32_t pid;
	struct span name, payload;
	struct room *room;

	if (!notification_parse(bytes, &pid, &name, &payload))
		return;
	room = room_find(hub_branch(hub, worker), name);
	if (room == NULL)
		return;
	list_each(node, &room->seats) {
		struct seat *seat = container_of(node, struct seat, in_room);
		if (seat->by_hub)
			channels_hold(seat->channels, bytes);
	}
}

/* The server that has waited for the hub. */
static void
channels_go_on(struct server *server)
{
	struct client *client = server->client;

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

static struct channels *
channels_by_id(struct worker *worker, uint64_t client_id)
{
	struct client *client = worker_find_client(worker, client_id);

	return client == NULL ? NULL : client->channels;
}

void
channels_marked(struct worker *worker, uint64_t client_id, uint64_t serial)
{
	struct channels *channels = channels_by_id(worker, client_id);
	struct seat *seat;

	if (channels == NULL)
		return;
	each_seat(seat, channels)
		if (seat->marked && seat->serial == serial)
			seat->by_hub = true;
}

void
channels_answer(struct worker *worker, struct hub *hub, uint64_t client_id,
    uint64_t serial, bool good)
{
	struct channels *channels = channels_by_id(worker, client_id);
	struct buf leave = { 0 };
	struct server *server;
	struct seat *seat;

	if (channels == NULL || channels->hub != hub)
		return;
	each_seat(seat, channels) {
		if (!seat->asked || seat->ready || seat->serial != serial)
			continue;
		seat->ready = good;
		seat->asked = good;
		if (!good)
			buf_add(&leave, seat->room->name, seat->room->len + 1);
	}
	if (!leave.failed)
		hub_unsubscribe(hub, worker, &leave);
	buf_finish(&leave);
	server = channels->client->server;
	if (server == NULL) {
		channels_take_over(channels);
	} else if (server->hears == HEARS_WAITS) {
		server->hub_refused = !good;
		channels_go_on(server);
	}
}

void
channels_resumed(struct worker *worker, struct hub *hub)
{
	struct hub_branch *branch = hub_branch(hub, worker);

	list_each(node, &branch->clients) {
		struct channels *channels =
		    container_of(node, struct channels, node);
		struct seat *seat;
		each_seat(seat, channels) {
			if (!seat->ready)
				continue;
			/* Its mark may be among what was lost. */
			seat->by_hub = seat->by_hub || seat->marked;
			channels->missed |= MISSED_HUB;
		}
		channels->own_count = 0;
		channels_tell_later(channels->client);
	}
}

void
channels_each(struct worker *worker, struct hub *hub,
    void (*each)(void *arg, struct span name, unsigned clients), void *arg)
{
	struct hub_branch *branch = hub_branch(hub, worker);
	struct hash_node *node = NULL;

	while ((node = hash_walk(&branch->rooms, node)) != NULL) {
		const struct room *room =
		    container_of(node, struct room, by_name);
		each(arg, (struct span){ room->name, room->len },
		    room->clients);
	}
}
