/* Listening sockets. */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "net/loop.h"

struct listener;

struct listen_settings {
	const char *addresses;		/* comma list; "*" = all; "" = none */
	unsigned port;
	int backlog;
	bool reuse_port;
	bool defer_accept;
	const char *unix_dir;		/* "" = none; "@x" = abstract */
	unsigned unix_mode;		/* 0777 */
	const char *unix_group;		/* "" = as it is */
};

/*
 * Opens all sockets and accepts on `loop`; `accepted` gets each new
 * non-blocking, close-on-exec socket (is_unix: from the unix socket) and owns
 * it. At most `per_turn` accepts a loop turn. With no descriptors left it
 * pauses for a moment and logs, rate-limited. NULL: a text in why; nothing
 * stays open.
 */
struct listener *listener_create(struct loop *loop,
    const struct listen_settings *settings,
    void (*accepted)(void *arg, int fd, bool is_unix), void *arg,
    char *why, size_t why_size);
void listener_pause(struct listener *listener);		/* stop accepting */
void listener_resume(struct listener *listener);
/* Closes; removes the unix socket's file. Takes NULL. */
void listener_destroy(struct listener *listener);
/* "127.0.0.1:6432", one a line, for the log. */
void listener_print(const struct listener *listener, char *text, size_t size);

#endif
