/* What a client sends before it has logged in. */
#ifndef WIRE_STARTUP_H
#define WIRE_STARTUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "wire/frame.h"

#define STARTUP_MAX 10000		/* bytes; as Postgres */
#define STARTUP_KEY_MAX 256		/* cancel key of protocol 3.2 */

enum startup_kind {
	STARTUP_SSL,			/* SSLRequest */
	STARTUP_GSS,			/* GSSENCRequest */
	STARTUP_CANCEL,
	STARTUP_LOGIN,
	STARTUP_DIRECT_TLS,		/* first byte 0x16: a TLS ClientHello */
	STARTUP_TERMINATE,		/* gone before it came, as node-postgres
					 * when it is told to end at once */
};

struct startup {
	enum startup_kind kind;
	uint16_t major, minor;		/* STARTUP_LOGIN */
	uint32_t pid;			/* STARTUP_CANCEL */
	struct span key;		/* STARTUP_CANCEL: 4..256 bytes */
	struct span params;		/* STARTUP_LOGIN; startup_next_param */
};

/*
 * One packet at `at`. FRAME_OK: *ret is filled, *ret_size is the packet's
 * size in bytes (0 for STARTUP_DIRECT_TLS: nothing is to be consumed).
 * FRAME_BAD: *ret_why is a text for the log and the client.
 * The params of a STARTUP_LOGIN have been checked to be well formed: pairs of
 * NUL-ended texts and a final NUL with nothing behind it.
 */
enum frame_result startup_peek(const char *at, size_t len,
    struct startup *ret, size_t *ret_size, const char **ret_why);

/* Cuts the next name and value off *params; false at the end. */
bool startup_next_param(struct span *params, struct span *ret_name,
    struct span *ret_value);

/*
 * The startup parameter `options`: the next "-c name=value", "-cname=value"
 * or "--name=value" of it (backslash escapes blanks, as Postgres's
 * pg_split_opts; dashes in the name come out as underscores). The texts are
 * written to `scratch`, which lives until the next call. FRAME_OK: one was
 * found; FRAME_MORE: none is left; FRAME_BAD: something that is no setting, and
 * *ret_value is what Postgres says of it (or no memory: scratch->failed).
 */
enum frame_result startup_next_option(struct span *options,
    struct buf *scratch, struct span *ret_name, struct span *ret_value);

/* Packets that we send to servers. As with messages, what cannot be said (a
 * key of no possible length, an empty name, over STARTUP_MAX) sets failed. */
void startup_ssl_request(struct buf *out);
void startup_cancel(struct buf *out, uint32_t pid, struct span key);
/* StartupMessage: begin, any number of parameters, end. */
size_t startup_begin(struct buf *out, uint16_t major, uint16_t minor);
void startup_param(struct buf *out, struct span name, struct span value);
void startup_end(struct buf *out, size_t began);

#endif
