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

/* The hub's copy of what has been told? Then that is settled. Both come in
 * the order of the commits: what was told before it and has not come yet never
 * will. */
static bool
own_take(struct channels *channels, uint32_t pid, struct span name,
    struct span payload)
{
	for (unsigned i = 0; i < channels->own_count; i++) {
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

/* Copies may be among what was lost. One that was not comes soon; later, what
 * is equal to it is another client's. */
static void
own_doubt(struct channels *channels)
{
	for (unsigned i = 0; i < channels->own_count; i++)
		if (channels->own[i].until_us == 0)
			channels->own[i].until_us = clock_us() + OWN_DOUBT_US;
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

/* Where in `held` the next NOTICE has its place; MISSED_NOTHING. */
static size_t
first_missed(const struct channels *channels)
{
	size_t first = MISSED_NOTHING;

	for (int i = 0; i < MISSED_REASONS; i++)
		if (channels->missed_at[i] < first)
			first = channels->missed_at[i];
	return first;
}

void
channels_miss(struct channels *channels, enum missed why)
{
	if (channels->missed_at[why] == MISSED_NOTHING)
		channels->missed_at[why] = channels->held.len;
	own_doubt(channels);
}

void
channels_tell_later(struct client *client)
{
	struct channels *channels = client->channels;

	if (channels != NULL && (channels->held.len > 0 ||
	    first_missed(channels) != MISSED_NOTHING))
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

/* The NOTICEs whose turn it is. */
static void
channels_tell_missed(struct channels *channels)
{
	static const char *const texts[MISSED_REASONS] = {
		[MISSED_HUB] = "notifications may have been missed: the "
		    "connection that listens for this client was lost",
		[MISSED_FULL] = "notifications have been missed: too many "
		    "were waiting to be sent to this client",
		[MISSED_ENCODING] = "notifications have been missed: they are "
		    "not in this client's encoding",
	};

	for (int i = 0; i < MISSED_REASONS; i++) {
		if (channels->missed_at[i] != 0)
			continue;
		channels->missed_at[i] = MISSED_NOTHING;
		client_notice(channels->client, "01000", texts[i]);
	}
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
		check(notification_parse((struct span){ held->at + at +
		    FRAME_HEADER, frame.body }, &pid, &of, &payload));
		if (span_eq(of, name))
			held->at[at] = HELD_FORGOTTEN;
	}
	for (unsigned i = 0; i < channels->own_count; i++)
		if (channels->own[i].channel != channel)
			channels->own[kept++] = channels->own[i];
	channels->own_count = kept;
}

/* Composes what is held, up to a limit and to the next NOTICE; returns how
 * many bytes that took. What the client has had from its server is left out.*/
static size_t
channels_compose_held(struct channels *channels, struct buf *out)
{
	const struct buf *held = &channels->held;
	size_t end = first_missed(channels);
	struct span name, payload;
	struct frame frame;
	size_t at = 0;
	uint32_t pid;

	buf_clear(out);
	while (at < end && out->len < TELL_MAX && frame_peek(
	    held->at + at, held->len - at, &frame) == FRAME_OK) {
		struct span body = { held->at + at + FRAME_HEADER,
		    frame.body };
		const struct seat *seat;

		at += FRAME_HEADER + frame.body;
		if (frame.type == HELD_FORGOTTEN)
			continue;
		check(notification_parse(body, &pid, &name, &payload));
		seat = seat_find(channels, name);
		if (seat != NULL && seat->by_hub &&
		    !own_take(channels, pid, name, payload))
			put_notification(out, pid, body);
	}
	return at;
}

static void
channels_tell_some(struct channels *channels)
{
	struct client *client = channels->client;
	struct buf *out = &client->worker->scratch;
	size_t took = channels_compose_held(channels, out);

	if (out->len > 0 && !out->failed)
		stream_send(&client->s, out->at, out->len);
	buf_cut(&channels->held, took);
	for (int i = 0; i < MISSED_REASONS; i++)
		if (channels->missed_at[i] != MISSED_NOTHING)
			channels->missed_at[i] -= took;
	channels_tell_missed(channels);
}

void
channels_task(struct loop_task *task)
{
	struct channels *channels =
	    container_of(task, struct channels, task);
	struct client *client = channels->client;

	if (!client_may_be_told(client))
		return;
	while (!stream_is_blocked(&client->s) && (channels->held.len > 0 ||
	    first_missed(channels) != MISSED_NOTHING))
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

/* No memory: not even for what is held already. */
static void
held_lose(struct channels *channels)
{
	buf_finish(&channels->held);
	for (int i = 0; i < MISSED_REASONS; i++)
		if (channels->missed_at[i] != MISSED_NOTHING)
			channels->missed_at[i] = 0;
	channels_miss(channels, MISSED_FULL);
}

static void
channels_hold(struct channels *channels, struct span body)
{
	uint32_t pid;
	struct span name, payload;

	check(notification_parse(body, &pid, &name, &payload));
	if (channels->missed_at[MISSED_FULL] != MISSED_NOTHING ||
	    channels->held.len + body.len > HELD_MAX) {
		channels_miss(channels, MISSED_FULL);
	} else if (channels->foreign && !is_ascii((struct span){ name.at,
	    body.len - 4 })) {
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
			channels_miss(channels, MISSED_HUB);
		}
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
