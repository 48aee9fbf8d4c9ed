/* The extended protocol on the console: Parse, Bind, Describe, Execute. */
#ifndef ADMIN_EXTENDED_H
#define ADMIN_EXTENDED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"

struct client;

#define EXTENDED_COLUMNS 64		/* the most that a table has */

/* A client's, part of its struct console. All zeroes is a new one. */
struct extended {
	struct list statements;		/* what was parsed, by name */
	unsigned count;
	bool has_portal;		/* the unnamed one; there is no other */
	struct buf portal;		/* its command */
	uint16_t format_count;		/* as in Bind: 0 = all as text, ... */
	bool binary[EXTENDED_COLUMNS];	/* ... 1 = all as the first */
	bool running;			/* a message of its is answered */
	bool skipping;			/* after an error, up to Sync */
};

void extended_finish(struct extended *extended);
/* One of P B D E C; whether it was understood: false is a violation of the
 * protocol. */
bool extended_message(struct client *client, uint8_t type,
    struct span bytes);
/* What a simple query would be answered with, as the answer to the message
 * at hand. */
void extended_answer(struct extended *extended, struct span answer,
    struct buf *out);

#endif
