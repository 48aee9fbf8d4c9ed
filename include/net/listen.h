/* Listening sockets. */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "net/loop.h"
#include "net/stream.h"

struct listener;

struct listen_settings {
	const char *addresses;		/* comma list; "*" = all; "" = none */
	unsigned port;
	int backlog;
	bool reuse_port;
	bool defer_accept;
	struct stream_tuning tuning;	/* of TCP sockets, for their children*/
	const char *unix_dir;		/* "" = none; "@x" = abstract */
	unsigned unix_mode;		/* 0777 */
	const char *unix_group;		/* "" = as it is */
};

/*
 * Gets each new non-blocking, close-on-exec socket (is_unix: from the unix
 * socket) and owns it. On `loop`, and says which loop is to accept what comes
 * after this turn: mostly the same. NULL: this one, in 5 ms or when it is told
 * to go on.
 */
typedef struct loop *listener_accepted(void *arg, struct loop *loop, int fd,
    bool is_unix);

/*
 * Opens all sockets and accepts on `loop` at first. At most 4 accepts a turn
 * of it. With no descriptors left it pauses for a moment and logs,
 * rate-limited. NULL: a text in why; nothing stays open.
 */
struct listener *listener_create(struct loop *loop,
    const struct listen_settings *settings, listener_accepted *accepted,
    void *arg, char *why, size_t why_size);
/* On its loop's thread: stop accepting, and go on. */
void listener_pause(struct listener *listener);
void listener_resume(struct listener *listener);
/* On its loop's thread: there is room again. */
void listener_go_on(struct listener *listener);
/* From any thread, once: its loop closes the sockets and removes the unix
 * socket's file. */
void listener_close(struct listener *listener);
/* On its loop's thread, or when no loop runs and all mail has been read.
 * Closes first, if need be. Takes NULL. */
void listener_destroy(struct listener *listener);
/* "127.0.0.1:6432", one a line, for the log. */
void listener_print(const struct listener *listener, char *text, size_t size);

#endif
