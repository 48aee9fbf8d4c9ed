/*
 * Notifications on their way to a client.
 *
 * They come from two sides, the client's own server and the hub; channels.c
 * says which of them counts. What a server brings is passed on where it
 * stands; what the hub brings is held until the client is between two
 * transactions and takes its bytes, and told at the end of a turn: many
 * notifications in one write.
 */
#include "session/channels.h"

#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "session/channels_inside.h"
#include "session/client.h"
#include "session/hub.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/frame.h"

/* What may wait for one client; and how much is composed at a time. */
#define HELD_MAX (1u << 20)
#define TELL_MAX (64u << 10)
/* Notifications of the client's own whose copies are still to come. With more
 * of them the hub's copy is the one that is told. */
#define OWN_MAX 4096
/* For how long such a copy is awaited that may have been lost. */
#define OWN_DOUBT_US 1000000
#define MISSED_SQLSTATE "01000"
/* In place of its type, of what is held and not to be told any more. */
#define HELD_FORGOTTEN 'x'

/*
 * Whose copy counts.
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
	    (struct own){ pid, 0, span_hash(name), span_hash(payload) };
	return true;
}

/* The hub's copy of what has been told, one of the first `count`? Then that is
 * settled. Both come in the order of the commits: what was told before it and
 * has not come yet never will. */
static bool
own_take(struct channels *channels, unsigned count, uint32_t pid,
    struct span name, struct span payload)
{
	for (unsigned i = 0; i < count; i++) {
		struct own *own = &channels->own[i];
		if (own->pid != pid || own->channel != span_hash(name) ||
		    own->payload != span_hash(payload) ||
		    (own->until_us != 0 && clock_us() > own->until_us))
			continue;
		channels->own_count -= i + 1;
		memmove(channels->own, own + 1,
		    channels->own_count * sizeof(*own));
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

/* A notification that is held at `at`; false: something else. */
static bool
held_parse(const struct buf *held, size_t at, const struct frame *frame,
    uint32_t *ret_pid, struct span *ret_name, struct span *ret_payload)
{
	if (frame->type != 'A')
		return false;
	check(notification_parse((struct span){ held->at + at + FRAME_HEADER,
	    frame->body }, ret_pid, ret_name, ret_payload));
	return true;
}

/* So many, the oldest, are in doubt. */
static unsigned
own_doubtful(const struct channels *channels)
{
	unsigned count = 0;

	while (count < channels->own_count &&
	    channels->own[count].until_us != 0)
		count++;
	return count;
}

/* Copies may be among what was lost. One that was not comes soon; later, what
 * is equal to it is another client's. Those that have come already may have to
 * wait here for longer than that, and are settled now. */
static void
own_doubt(struct channels *channels)
{
	struct buf *held = &channels->held;
	struct span name, payload;
	struct frame frame;
	uint32_t pid;

	for (size_t at = 0; channels->own_count > 0 && frame_peek(held->at +
	    at, held->len - at, &frame) == FRAME_OK;
	    at += FRAME_HEADER + frame.body)
		if (held_parse(held, at, &frame, &pid, &name, &payload) &&
		    own_take(channels, channels->own_count, pid, name,
		    payload))
			held->at[at] = HELD_FORGOTTEN;
	for (unsigned i = 0; i < channels->own_count; i++)
		if (channels->own[i].until_us == 0)
			channels->own[i].until_us = clock_us() + OWN_DOUBT_US;
}

/* The server's copy of the mark: from here on it is the hub's turn. */
static void
channels_server_marked(struct channels *channels)
{
	struct seat *seat;
	bool lost = false;

	each_seat(seat, channels)
		if (seat->marked) {
			lost = lost || (seat->lost && seat->by_server);
			seat->by_server = false;
		}
	if (lost)
		channels_mark_anew(channels);
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
		if (pid == server->pid)
			channels_server_marked(channels);
		return CHANNELS_DROP;
	}
	seat = channels == NULL ? NULL : seat_find(channels, name);
	if (seat == NULL || seat->by_server)
		return pid == server->pid ? CHANNELS_OWN : CHANNELS_PASS;
	return pid == server->pid && own_note(channels, pid, name,
	    payload) ?
	    CHANNELS_OWN : CHANNELS_DROP;
}

/*
 * Telling.
 */

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

static const char *const missed_texts[] = {
	[MISSED_HUB] = "notifications may have been missed: the connection "
	    "that listens for this client was lost",
	[MISSED_ENCODING] = "notifications have been missed: they are not in "
	    "this client's encoding",
	[MISSED_FULL] = "notifications have been missed: too many were "
	    "waiting to be sent to this client",
};

/* A NOTICE behind what is held, if it does not stand there already. */
static void
held_put_notice(struct buf *held, const char *text)
{
	const struct msg_error notice = {
		.severity = "NOTICE", .sqlstate = MISSED_SQLSTATE,
		.message = text,
	};
	size_t at = held->len;

	msg_notice(held, &notice);
	if (held->failed)
		return;

	size_t len = held->len - at;
	if (at >= len && memcmp(held->at + at - len, held->at + at, len) == 0)
		held->len = at;
}

/* No memory, not even for what is held already. */
static void
held_lose(struct channels *channels)
{
	buf_finish(&channels->held);
	channels->is_full = true;
	own_doubt(channels);
}

void
channels_miss(struct channels *channels, enum missed why)
{
	struct buf *held = &channels->held;

	if (channels->is_full)
		return;
	if (why != MISSED_ENCODING)
		own_doubt(channels);
	if (why == MISSED_FULL || held->len > HELD_MAX) {
		channels->is_full = true;
		return;
	}
	held_put_notice(held, missed_texts[why]);
	if (held->failed)
		held_lose(channels);
}

static bool
channels_have_news(const struct channels *channels)
{
	return channels->held.len > 0 || channels->is_full;
}

void
channels_tell_later(struct client *client)
{
	if (client->channels != NULL && channels_have_news(client->channels))
		loop_defer(client->worker->loop, &client->channels->task);
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

/* Those of a channel that the client has unlistened to are not told, even if
 * it listens again before it could be. */
void
held_forget(struct channels *channels, struct span name)
{
	struct buf *held = &channels->held;
	uint64_t channel = span_hash(name);
	struct span of, payload;
	struct frame frame;
	unsigned kept = 0;
	uint32_t pid;

	for (size_t at = 0; frame_peek(held->at + at, held->len - at,
	    &frame) == FRAME_OK; at += FRAME_HEADER + frame.body) {
		if (held_parse(held, at, &frame, &pid, &of, &payload) &&
		    span_eq(of, name))
			held->at[at] = HELD_FORGOTTEN;
	}
	for (unsigned i = 0; i < channels->own_count; i++)
		if (channels->own[i].channel != channel)
			channels->own[kept++] = channels->own[i];
	channels->own_count = kept;
}

/* Composes what is held, up to a limit; returns how many bytes that took.
 * What the client has had from its server is left out. */
static size_t
channels_compose_held(struct channels *channels, struct buf *out)
{
	const struct buf *held = &channels->held;
	struct span name, payload;
	struct frame frame;
	size_t at = 0;
	uint32_t pid;

	buf_clear(out);
	for (; out->len < TELL_MAX && frame_peek(held->at + at,
	    held->len - at, &frame) == FRAME_OK;
	    at += FRAME_HEADER + frame.body) {
		const struct seat *seat;

		if (frame.type == 'N')
			buf_add(out, held->at + at, FRAME_HEADER + frame.body);
		if (!held_parse(held, at, &frame, &pid, &name, &payload))
			continue;
		seat = seat_find(channels, name);
		if (seat != NULL && seat->by_hub && !own_take(channels,
		    channels->own_count, pid, name, payload))
			buf_add(out, held->at + at, FRAME_HEADER + frame.body);
	}
	return at;
}

static void
channels_tell_some(struct channels *channels)
{
	struct client *client = channels->client;
	struct buf *out = &client->worker->scratch;
	size_t took = channels_compose_held(channels, out);

	if (out->failed)
		channels->is_full = true;
	else if (out->len > 0)
		stream_send(&client->s, out->at, out->len);
	buf_cut(&channels->held, took);
	if (channels->held.len == 0 && channels->is_full) {
		channels->is_full = false;
		own_doubt(channels);
		client_notice(client, MISSED_SQLSTATE,
		    missed_texts[MISSED_FULL]);
	}
}

void
channels_task(struct loop_task *task)
{
	struct channels *channels =
	    container_of(task, struct channels, task);
	struct client *client = channels->client;

	if (!client_may_be_told(client))
		return;
	while (!stream_is_blocked(&client->s) && channels_have_news(channels))
		channels_tell_some(channels);
	if (channels->held.len == 0)
		buf_finish(&channels->held);
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
	if (own_take(channels, own_doubtful(channels), pid, name, payload))
		return;
	if (channels->is_full || channels->held.len + body.len > HELD_MAX) {
		channels_miss(channels, MISSED_FULL);
	} else if (channels->foreign && !is_ascii((struct span){ name.at,
	    body.len - 4 })) {
		if (!own_take(channels, channels->own_count, pid, name,
		    payload))
			channels_miss(channels, MISSED_ENCODING);
	} else {
		put_notification(&channels->held, pid, body);
		if (channels->held.failed)
			held_lose(channels);
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
	bool lost = false;

	if (channels == NULL)
		return;
	each_seat(seat, channels)
		if (seat->marked && seat->serial == serial) {
			lost = lost || seat->lost;
			seat->lost = false;
			seat->by_hub = true;
		}
	if (!lost)
		return;
	channels_miss(channels, MISSED_HUB);
	channels_tell_later(channels->client);
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
			seat->lost = seat->marked && !seat->by_hub;
			channels_miss(channels, MISSED_HUB);
		}
		channels_mark_anew(channels);
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
