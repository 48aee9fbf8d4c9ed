/*
 * What the two fuzz targets of the relay share: how their input is read, and
 * what has to hold whenever nothing moves.
 *
 * An input is two bytes for the target and then records: a byte, a length in
 * two bytes, a body. The byte is the type of a message, which gets its right
 * length and is sent; but for the first few:
 *
 *   0  the body is sent as it is: lengths that are wrong, halves of messages
 *   1  the other side's turn: what it does is the target's
 *   2  this side hangs up
 *   3  the client does not read any more, or reads again
 *
 * Both far ends see whole messages only, whatever was sent: what a pooler
 * makes of nonsense may be the end of a connection, and nothing else.
 */
#ifndef FUZZ_RELAY_H
#define FUZZ_RELAY_H

#include "../unit/relay_rig.h"
#include "fuzz.h"

enum { RECORD_RAW, RECORD_OTHER, RECORD_HANG_UP, RECORD_DEAF, RECORD_OPS };

struct record {
	uint8_t type;
	struct span body;
};

static inline bool
record_next(struct span *rest, struct record *ret)
{
	size_t len;

	if (rest->len < 3)
		return false;
	len = (size_t)(uint8_t)rest->at[1] << 8 | (uint8_t)rest->at[2];
	ret->type = (uint8_t)rest->at[0];
	*rest = (struct span){ rest->at + 3, rest->len - 3 };
	if (len > rest->len)
		len = rest->len;
	ret->body = (struct span){ rest->at, len };
	*rest = (struct span){ rest->at + len, rest->len - len };
	return true;
}

/* As it goes over the wire. */
static inline void
record_compose(const struct record *record, struct buf *out)
{
	size_t began;

	buf_clear(out);
	if (record->type == RECORD_RAW) {
		buf_add_span(out, record->body);
		return;
	}
	began = msg_begin(out, (char)record->type);
	buf_add_span(out, record->body);
	msg_end(out, began);
}

/*
 * What holds at rest.
 */

static inline void
check_owed(const struct server *server)
{
	const struct owed *owed = &server->owed;
	uint32_t local = 0, syncs = 0;

	/* The last message may owe a few entries at once. */
	check(owed->count <= OWED_MAX + 8);
	for (uint32_t i = 0; i < owed->count; i++) {
		const struct owed_entry *entry = owed_at(owed, i);
		local += entry->action == OWED_LOCAL;
		syncs += entry->kind == OWED_SYNC;
	}
	check(owed->local == local && owed->syncs == syncs);
	/* What is ours to answer has been, when its turn had come and no reply
	 * is half passed on. */
	check(owed->count == 0 || server->relay.left > 0 ||
	    owed_head(owed)->action != OWED_LOCAL);
}

static inline void
check_client(const struct client *client)
{
	check((client->state == CLIENT_ACTIVE) == (client->server != NULL));
	check(client->state != CLIENT_WAITING || client->server == NULL);
	if (client->server == NULL)
		return;
	check(client->server->client == client);
	check(client->server->state == SERVER_ACTIVE);
	check(!link_is_over(client));
}

static inline void
check_server(const struct server *server)
{
	check((server->state == SERVER_ACTIVE) == (server->client != NULL));
	check_owed(server);
	/* A message that nobody asked for may be on its way to nowhere. */
	if (server->state == SERVER_IDLE)
		check(server->owed.count == 0 && server->status == 'I' &&
		    (server->relay.left == 0 || server->relay.drop) &&
		    !server->tainted && !server->owed.skipping &&
		    !server->owed.copy_in);
	if (server->client == NULL)
		return;
	check(server->client->server == server);
	check(server->max_statements == 0 ||
	    stmt_cache_count(&server->statements) <= server->max_statements);
}

static inline void
check_rest(void)
{
	const struct server *server = rig_server();
	unsigned linked = 0;

	for (int state = 0; state < CLIENT_GONE; state++)
		list_each(node, &rig.worker->clients[state]) {
			const struct client *client =
			    container_of(node, struct client, node);
			check(client->state == state);
			check_client(client);
			linked += client->server != NULL;
		}
	if (server == NULL) {
		check(linked == 0);
		return;
	}
	check_server(server);
	check(linked == (server->client != NULL));
	check(server->pool->shard[0].active == linked);
}

/* Cuts whole messages of known types off; half of one is left. A server that
 * is lost may leave half a message with the client, that goes with it. */
static inline void
check_whole(struct far *far, const char *types,
    void (*each)(const struct frame *frame, struct span body))
{
	size_t at = 0;
	struct frame frame;

	if (far->got.len == 0)
		return;
	while (frame_peek(far->got.at + at, far->got.len - at, &frame) ==
	    FRAME_OK && far->got.len - at - FRAME_HEADER >= frame.body) {
		check(frame.type != 0 && strchr(types, frame.type) != NULL);
		if (each != NULL)
			each(&frame, (struct span){ far->got.at + at +
			    FRAME_HEADER, frame.body });
		at += FRAME_HEADER + frame.body;
	}
	check(frame_peek(far->got.at + at, far->got.len - at, &frame) !=
	    FRAME_BAD);
	buf_cut(&far->got, at);
}

#define TYPES_TO_CLIENT "123ACDEGHIKNRSTVZcdnst"
#define TYPES_TO_SERVER "BCDEFHPQSXcdf"

/*
 * Sends in pieces of `size` bytes, and lets the loop go round after each; a
 * long text goes in long pieces after a while. What is not taken, because the
 * pooler has paused, is lost with all that follows: returns false.
 */
static inline bool
send_in_pieces(struct far *far, const struct buf *bytes, size_t size,
    void (*settled)(void))
{
	for (size_t at = 0; at < bytes->len;) {
		size_t n = bytes->len - at;

		if (at < 64 && n > size)
			n = size;
		if (far_write(far, bytes->at + at, n) != n)
			return false;
		at += n;
		rig_settle();
		settled();
	}
	return true;
}

/* The client has gone: what it leaves is nobody's, and clean. */
static inline void
check_end(void)
{
	far_close(&rig.client);
	rig.client.deaf = false;
	rig_settle();
	check_rest();
	check(process.clients == 0);
	for (int state = 0; state < CLIENT_STATES; state++)
		check(list_is_empty(&rig.worker->clients[state]));
	if (rig_server() != NULL)
		check(rig_server()->client == NULL);
}

#endif
