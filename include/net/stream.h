/* A non-blocking byte stream: plain or TLS, with pause reasons and drain. */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/span.h"
#include "net/loop.h"

struct stream;
struct tls_ctx;
struct tls_link;
struct event;

/* Why nothing is read at the moment; a set, for each reason ends alone. */
enum stream_pause {
	PAUSE_PEER_FULL = 1 << 0,	/* the other side's output is full */
	PAUSE_NO_SERVER = 1 << 1,	/* waits in a pool's line */
	PAUSE_HELPER    = 1 << 2,	/* a helper thread works for it */
	PAUSE_OWED_FULL = 1 << 3,	/* too many replies owed */
	PAUSE_CLOSING   = 1 << 4,	/* the last bytes go out, then close */
	PAUSE_ANSWER    = 1 << 5,	/* an answer is being put together */
	PAUSE_SUSPENDED = 1 << 6,	/* console: SUSPEND */
	PAUSE_MIGRATION = 1 << 7,	/* a migration is under way */
	PAUSE_AGAIN     = 1 << 8,	/* it will be given back what it said */
	PAUSE_DATABASE  = 1 << 9,	/* idle servers are closed first */
};

/* How a stream ended. */
enum stream_end {
	STREAM_EOF,			/* the peer closed its side */
	STREAM_RESET,			/* ECONNRESET, EPIPE, ETIMEDOUT ... */
	STREAM_REFUSED,			/* connect failed */
	STREAM_TLS_FAILED,		/* handshake, verification, alert */
	STREAM_NO_MEMORY,
};

enum stream_state {
	STREAM_CLOSED,			/* no socket */
	STREAM_CONNECTING,
	STREAM_HANDSHAKE,		/* TLS */
	STREAM_OPEN,
	STREAM_ENDED,			/* on_close is due or was called */
};

/*
 * The only upcalls. All run on the loop's thread, from the loop (never from
 * inside a stream_* call, but for on_data out of stream_pump()).
 *
 * on_data   bytes have arrived: what was left over before and the new ones,
 *           in one piece. Returns how many were consumed; the rest is kept
 *           and offered again, with what follows or by stream_pump(). The
 *           bytes live until the call returns.
 * on_open   connect or TLS handshake done: the stream is STREAM_OPEN.
 * on_drain  output that had been blocked is all handed to the kernel.
 * on_close  the stream ended, once. Bytes that came before the end have been
 *           offered, unless the stream is paused. Call stream_close() then.
 *           (Paused for PAUSE_PEER_FULL alone it is different: the end is
 *           told when the peer has taken what came before it.)
 */
struct stream_ops {
	size_t (*on_data)(struct stream *s, const char *at, size_t len);
	void (*on_open)(struct stream *s);
	void (*on_drain)(struct stream *s);
	void (*on_close)(struct stream *s, enum stream_end why);
};

struct stream {
	uint32_t magic;
	int fd;				/* -1 = none */
	enum stream_state state;
	uint32_t pauses;		/* set of enum stream_pause */
	const struct stream_ops *ops;
	struct loop *loop;
	struct tls_link *tls;		/* NULL = plain */
	struct buf held;		/* received, not consumed */
	struct buf queued;		/* to be sent, the kernel was full */
	size_t queued_at;		/* sent already, of `queued` */
	uint64_t received;		/* bytes, as the session sees them */
	uint64_t sent;
	int error;			/* errno, when ended by one */
	/* private to net/stream.c from here */
	uint8_t armed;
	uint8_t flags;
	uint8_t end;			/* enum stream_end, when ended */
	struct list ready;		/* on the loop's list: data in hand */
	struct event *write_event;	/* only while blocked or connecting */
	_Alignas(8) unsigned char read_event[136];	/* a struct event */
};

enum stream_result {
	STREAM_SENT,			/* the kernel has it all */
	STREAM_QUEUED,			/* the rest waits; on_drain follows */
	STREAM_BROKEN,			/* ended; on_close follows */
};

void stream_init(struct stream *s, const struct stream_ops *ops);
/* Takes over a connected socket; false: out of memory (fd not closed). */
bool stream_adopt(struct stream *s, struct loop *loop, int fd);
/* Its first bytes are there, as the caller knows: reads at the end of this
 * turn, without another look at epoll. */
void stream_read_soon(struct stream *s);
/* Connects; on_open or on_close follows. False: it failed at once (errno). */
bool stream_connect(struct stream *s, struct loop *loop,
    const struct sockaddr *address, socklen_t len);
/* Closes and forgets everything; no upcall. May be called at any time, also
 * inside upcalls of this stream; the object's owner frees it at end of turn.*/
void stream_close(struct stream *s);
/* Says to the peer that nothing more comes; what it still sends is read, to
 * its end. What it has not been sent by now it will not be. */
void stream_half_close(struct stream *s);

/*
 * Output. stream_put() notes bytes that must stay where they are until
 * stream_flush(), which the same upcall must call: everything put leaves in
 * one writev (or few TLS records), and what the kernel does not take is
 * copied to the stream's queue. At most one stream of a loop has bytes put
 * and not flushed; putting to another one flushes the first. In any state
 * but STREAM_OPEN bytes are queued (CONNECTING, HANDSHAKE) or dropped (ENDED).
 */
void stream_put(struct stream *s, const void *at, size_t len);
enum stream_result stream_flush(struct stream *s);
/* put + flush */
enum stream_result stream_send(struct stream *s, const void *at, size_t len);
bool stream_is_blocked(const struct stream *s);	/* output queued? */

/*
 * Reading is paused while any reason stands. Pausing costs no system call: a
 * paused stream that becomes readable reads on into `held`, up to a small
 * bound (so that the end of a waiting client is seen at once), and only then
 * is its event taken off. Resuming offers held bytes again by itself, at the
 * end of this turn; stream_pump() does so at once.
 */
void stream_pause(struct stream *s, enum stream_pause why);
void stream_resume(struct stream *s, enum stream_pause why);
bool stream_is_paused(const struct stream *s);
/* Offers what is held, now, if not paused. Not from inside its own on_data. */
void stream_pump(struct stream *s);
/* Bytes that were consumed come back, in front of what is held. Not from
 * inside its own on_data. */
void stream_unread(struct stream *s, const char *at, size_t len);

/* Moving an idle stream to another loop: detach on the old thread, attach on
 * the new one. Nothing may be held or queued. Inside its own on_data that
 * takes an on_data which goes on to say that it consumed everything. */
bool stream_can_move(const struct stream *s);
void stream_detach(struct stream *s);
bool stream_attach(struct stream *s, struct loop *loop);

/* Has the peer sent bytes or closed, that no event has told of yet? One
 * recv(MSG_PEEK). For a server that has been idle, before its next use. */
bool stream_is_stale(struct stream *s);

/*
 * Socket options and names. Accepted sockets have the options of the listening
 * one already; a number of theirs does not go back to the system's own (0).
 */
struct stream_tuning {
	bool keepalive;
	int keepidle_s, keepintvl_s, keepcnt;	/* 0 = the system's */
	uint64_t user_timeout_us;		/* TCP_USER_TIMEOUT; 0 = none */
	uint64_t buffer_bytes;			/* SO_SNDBUF/RCVBUF; 0 = OS */
};
void stream_tune(struct stream *s, const struct stream_tuning *tuning);
bool stream_tuning_is_same(const struct stream_tuning *a,
    const struct stream_tuning *b);

union stream_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
	struct sockaddr_storage storage;
};
void stream_peer_address(const struct stream *s, union stream_address *ret);
void stream_local_address(const struct stream *s, union stream_address *ret);
bool stream_is_unix(const struct stream *s);
/* uid of the process at the other end of a unix socket; false: unknown */
bool stream_peer_uid(const struct stream *s, uint32_t *ret_uid);
/* ... and its process id; 0: unknown */
uint32_t stream_peer_pid(const struct stream *s);
/* The name that the system has for that uid; false: none that fits. */
bool stream_peer_user(const struct stream *s, char *name, size_t size);
/* "127.0.0.1" / "::1" / "unix", and the port (0 for unix). */
void address_print(const union stream_address *address, char *text,
    size_t size, unsigned *ret_port);

#endif
