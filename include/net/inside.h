/* What loop, stream and tls share and nobody else looks at. */
#ifndef NET_INSIDE_H
#define NET_INSIDE_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "net/loop.h"
#include "net/stream.h"
#include "net/wheel.h"

#define LOOP_MAGIC 0x6c6f6f70u
#define STREAM_MAGIC 0x7374726du

/* Pieces one writev takes; a relay hands over one or two as a rule. */
#define GATHER_PIECES 64

/* Bytes put and not flushed yet: they stay where their owner has them. */
struct gather {
	struct stream *owner;		/* NULL = nothing gathered */
	size_t len;
	unsigned count;
	struct iovec piece[GATHER_PIECES];
};

/*
 * An on_data upcall that is under way, on the stack of who makes it. The
 * stream may be closed, freed or on another thread when the upcall returns;
 * whatever takes it away says so here, and only this is looked at then.
 */
struct offer {
	struct stream *stream;
	struct offer *outer;
	bool gone;
	bool moved;			/* gone, but alive elsewhere */
};

struct loop {
	uint32_t magic;
	bool stopped;
	bool asleep;			/* the mailbox says so */
	unsigned starts_left;		/* dear work left in this turn */
	uint64_t turn;
	struct event_base *base;
	char *block;			/* LOOP_BLOCK bytes */
	struct gather gather;
	struct offer *offer;		/* innermost upcall under way */
	struct list ready;		/* streams with something due */
	struct list tasks;		/* for the end of this turn */
	struct list later;		/* ... of the next one */
	struct list commands;		/* that run */
	struct tls_room *tls_room;	/* NULL until TLS is first used */
	int hangup_fd;			/* -1 until a stream is fully paused */
	struct event hangup_event;
	struct event timer_event;	/* wakes for the wheel */
	uint64_t timer_us;		/* when; UINT64_MAX = not armed */
	struct wheel wheel;
	int mail_fd;			/* eventfd */
	struct event mail_event;
	char name[16];
	/* Written by every thread, hence on a line of its own. */
	_Alignas(64) _Atomic(struct loop_mail *) mail;
};

/* From socket events: whoever posts mail need not wake us any more. */
void loop_tell_awake(struct loop *loop);

static inline void
loop_awake(struct loop *loop)
{
	if (loop->asleep)
		loop_tell_awake(loop);
}

/* stream_address.c, for listen.c too: what a listening socket has been told,
 * those that it accepts have from it. */
void socket_tune(int fd, const struct stream_tuning *tuning);

/* stream.c, for loop.c: does what is due for the streams on loop->ready. */
void stream_run_ready(struct loop *loop);

/* hangup.c: tells of the end of streams whose read event is off. */
bool hangup_watch(struct stream *s);	/* false: no memory, no fds */
void hangup_forget(struct stream *s);
void hangup_finish(struct loop *loop);

/* command.c, for loop.c: none of the loop's runs any more. */
void command_finish(struct loop *loop);

/*
 * stream.c, for tls.c. stream_write_raw() hands bytes to the kernel or to the
 * queue, past any encryption. stream_end() is for an end that was not asked
 * for: on_close follows at the end of the turn. stream_make_ready() lists the
 * stream for the end of the turn with a STREAM_DUE_* reason.
 */
enum stream_result stream_write_raw(struct stream *s, struct iovec *pieces,
    unsigned count, size_t len);
void stream_end(struct stream *s, enum stream_end why, int error);
void stream_make_ready(struct stream *s, unsigned due);
/* Is the call to on_data for this stream under way? */
bool stream_is_offering(const struct stream *s);

static inline bool
stream_is_live(const struct stream *s)
{
	return s->state != STREAM_CLOSED && s->state != STREAM_ENDED;
}

/* stream_output.c, for stream.c. The write event exists while it is armed. */
bool stream_arm_write(struct stream *s);
void stream_disarm_write(struct stream *s);
void stream_writable(evutil_socket_t fd, short what, void *arg);
/* What is queued, as far as it goes. False: the stream has ended. */
bool stream_send_queued(struct stream *s);

/* What is due at the end of the turn (stream.flags), first things lowest. */
#define STREAM_DUE_CLOSE	0x01u	/* on_close */
#define STREAM_DUE_OPEN		0x02u	/* on_open: connect was instant */
#define STREAM_DUE_HANDSHAKE	0x04u	/* a step without waiting for bytes */
#define STREAM_DUE_DRAIN	0x08u	/* on_drain */
#define STREAM_DUE_OFFER	0x10u	/* held bytes */
#define STREAM_DUE_READ		0x80u	/* bytes that no event told of yet */
#define STREAM_DUE		0x9fu
/* The peer has closed its side, which is told once the held bytes are. */
#define STREAM_SAW_EOF		0x20u
/* Output failed; what the peer sent before that is still worth reading. */
#define STREAM_READ_LAST	0x40u

/* What is registered for input (stream.armed). */
#define STREAM_ARMED_READ	0x01u
#define STREAM_ARMED_HANGUP	0x02u

/*
 * tls.c, for stream.c. All I/O on the socket is the stream's; a tls_link
 * turns bytes into other bytes. tls_link_read() is recv()'s likeness.
 */
enum tls_step {
	TLS_STEP_MORE,			/* waits for the peer */
	TLS_STEP_DONE,
	TLS_STEP_FAILED,		/* stream_tls_error() knows why */
};

/* `want`: at most so many bytes from the socket, fewer if `room` is too small
 * for what they could become; 0: only what is in hand. */
ssize_t tls_link_read(struct stream *s, char *at, size_t room, size_t want);
void tls_link_write(struct stream *s, const struct iovec *pieces,
    unsigned count);
enum tls_step tls_link_handshake(struct stream *s);
/* Bytes put before the handshake was over. */
void tls_link_put_early(struct stream *s, const struct iovec *pieces,
    unsigned count);
bool tls_link_has_early(const struct stream *s);
void tls_link_send_early(struct stream *s);
/* Received, and not yet told to the stream? */
bool tls_link_has_input(const struct stream *s);
/* on_data, which started TLS, left bytes; false: it must not have. */
bool tls_link_take_rest(struct stream *s, const char *at, size_t len);
/* Attached to another loop: may be needed there. */
bool tls_link_attach(struct stream *s);
void tls_link_close(struct stream *s);
void tls_room_destroy(struct tls_room *room);

#endif
