/* What channels.c and channels_tell.c share, and nobody else needs. */
#ifndef SESSION_CHANNELS_INSIDE_H
#define SESSION_CHANNELS_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"
#include "net/loop.h"

struct client;
struct hub;
struct hub_branch;

/* Why a client may have missed something. */
enum missed {
	MISSED_HUB,
	MISSED_ENCODING,
	MISSED_FULL,			/* all that comes, until what is held
					 * has been told */
};

/* A channel, and those of this worker's clients that listen to it. */
struct room {
	struct hash_node by_name;
	struct list seats;
	unsigned clients;
	uint32_t len;
	char name[];			/* and a NUL */
};

/* One client in one room. */
struct seat {
	struct hash_node by_name;	/* of its client's */
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
	bool lost;			/* the mark may be; there is to be
					 * another, and a NOTICE with it */
	bool seen;			/* by the probe */
};

struct own {
	uint32_t pid;
	uint64_t until_us;		/* it may never come; 0 = it will */
	uint64_t channel;		/* hashes */
	uint64_t payload;
};

struct channels {
	struct list node;		/* hub_branch.clients */
	struct client *client;
	struct hub *hub;
	struct list seats;
	struct hash by_name;		/* the same */
	struct loop_task task;		/* tells what is held */
	struct buf held;		/* messages; a NOTICE wherever something
					 * is missing among them */
	bool is_full;			/* MISSED_FULL, behind what is held */
	bool foreign;			/* another client_encoding */
	uint64_t serial;		/* of the last question, or mark */
	struct own *own;		/* in the order of the commits */
	unsigned own_count, own_size;
};

/* Walks the seats of one client; the one at hand may be destroyed. */
#define each_seat(seat, channels) \
	for (struct list *seat##_node = list_start(&(channels)->seats), \
	    *seat##_next = seat##_node->next; \
	    seat##_node != &(channels)->seats && \
	    (seat = container_of(seat##_node, struct seat, of_client), true); \
	    seat##_node = seat##_next, seat##_next = seat##_node->next)

static inline struct span
seat_name(const struct seat *seat)
{
	return (struct span){ seat->room->name, seat->room->len };
}

struct room *room_find(const struct hub_branch *branch, struct span name);
struct seat *seat_find(const struct channels *channels, struct span name);
/* Tells what is held, if this is the moment. */
void channels_task(struct loop_task *task);
/* The client's server does not bring anything any more, and perhaps did not
 * to the end: what the hub listens to is the hub's from the next mark on. */
void channels_take_over(struct channels *channels);
/* Has the hub make the mark, for those which are lost and which no server
 * brings. */
void channels_mark_anew(struct channels *channels);
/* From what comes next on, something is missing. */
void channels_miss(struct channels *channels, enum missed why);
/* What is held of this channel is not told any more, and copies of what was
 * told are not looked at. */
void held_forget(struct channels *channels, struct span name);

#endif
