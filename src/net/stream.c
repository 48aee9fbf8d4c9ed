/*
 * A stream is one socket of one loop. This file is the hot path: of what a
 * relayed query costs, all that is not the kernel's is here and in
 * session/relay.
 *
 *      socket --recv--> loop's block --on_data--> consumed by the session
 *                            |
 *                            +--- not consumed ---> held (the stream's own)
 *
 *      put, put --> gather (the loop's) --flush--> sendmsg --> socket
 *                                                     |
 *                            queued (the stream's) <--+ what it did not take
 *
 * One read event is one recv into a block that all streams of the loop share:
 * an idle stream owns no buffer. recv is not called again to hear EAGAIN, and
 * not after a full block either; epoll is level-triggered and comes back, and
 * in between it is the others' turn. What the session leaves over (the head
 * of a message as a rule) is kept in `held` and offered again with the bytes
 * that complete it.
 *
 * Events and pauses. The read event stays registered for as long as the
 * stream lives, so that the steady state needs no epoll_ctl. A pause is only
 * a bit. If the stream becomes readable nevertheless, it reads on into
 * `held`, up to HELD_MAX, for a peer that waits in silence shall be seen
 * leaving; only when that is full its event is taken off, and hangup.c stands
 * guard. The write event exists only while the kernel is full.
 *
 * Upcalls come from the loop alone. Whatever a session's own call brings up
 * (a failed send, bytes to offer once a pause ends) is noted in `flags`, the
 * stream is put on loop->ready, and stream_run_ready() makes the upcall at the
 * end of the turn. Inside an upcall everything may happen to its stream, up to
 * being closed and freed or mailed to another thread; what calls on_data
 * therefore keeps a struct offer on its stack and looks at nothing else
 * afterwards. All other upcalls are the last thing a function does.
 *
 * Output is in stream_output.c, who is at the other end in stream_address.c.
 * TLS is a translation between the socket and these functions (see tls.c). It
 * does no I/O of its own, so that queueing, pausing and ending are the same
 * for both.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "net/inside.h"
#include "net/stream.h"

/* How much a paused stream reads on. */
#define HELD_MAX (16 * 1024)
/* What is held is moved in front of new bytes up to this length; beyond it
 * new bytes are read behind what is held. */
#define HELD_COPY 4096
/* Blocks that are read of a stream whose output has failed. */
#define LAST_BLOCKS 16

_Static_assert(sizeof(struct event) <=
    sizeof(((struct stream *)NULL)->read_event), "a struct event fits");

static void stream_readable(evutil_socket_t fd, short what, void *arg);

static struct event *
stream_read_event(struct stream *s)
{
	return (struct event *)(void *)s->read_event;
}

/* Events */

static bool
stream_arm_read(struct stream *s)
{
	if ((s->armed & STREAM_ARMED_READ) != 0)
		return true;
	if (event_add(stream_read_event(s), NULL) == -1)
		return false;
	s->armed |= STREAM_ARMED_READ;
	return true;
}

static void
stream_disarm_read(struct stream *s)
{
	if ((s->armed & STREAM_ARMED_READ) != 0)
		event_del(stream_read_event(s));
	if ((s->armed & STREAM_ARMED_HANGUP) != 0)
		hangup_forget(s);
	s->armed &= (uint8_t)~(STREAM_ARMED_READ | STREAM_ARMED_HANGUP);
}

/* On its loop, for the first time or after a move. */
static bool
stream_start_reading(struct stream *s)
{
	return event_assign(stream_read_event(s), s->loop->base, s->fd,
	    EV_READ | EV_PERSIST, stream_readable, s) == 0 &&
	    stream_arm_read(s);
}

void
stream_make_ready(struct stream *s, unsigned due)
{
	s->flags |= (uint8_t)due;
	if (!list_is_on(&s->ready))
		list_append(&s->loop->ready, &s->ready);
}

void
stream_end(struct stream *s, enum stream_end why, int error)
{
	if (!stream_is_live(s))
		return;
	s->state = STREAM_ENDED;
	s->end = (uint8_t)why;
	s->error = error;
	stream_disarm_read(s);
	stream_disarm_write(s);
	buf_finish(&s->queued);
	s->queued_at = 0;
	if ((s->flags & STREAM_DUE_OFFER) != 0)
		s->flags |= STREAM_READ_LAST;
	s->flags &= (uint8_t)~STREAM_DUE;
	stream_make_ready(s, STREAM_DUE_CLOSE);
}

/* Input */

bool
stream_is_offering(const struct stream *s)
{
	for (struct offer *offer = s->loop->offer; offer != NULL;
	    offer = offer->outer)
		if (offer->stream == s)
			return true;
	return false;
}

static void
stream_tell_offers(struct stream *s, bool moved)
{
	for (struct offer *offer = s->loop->offer; offer != NULL;
	    offer = offer->outer)
		if (offer->stream == s) {
			offer->stream = NULL;
			offer->gone = true;
			offer->moved = moved;
		}
}

/* What on_data left over stays with the stream. `at` is in the loop's block,
 * or else in `own`, which then is the stream's again. */
static void
stream_keep_rest(struct stream *s, struct buf *own, const char *at,
    size_t len)
{
	if (s->state == STREAM_HANDSHAKE) {
		if (!tls_link_take_rest(s, at, len))
			stream_end(s, STREAM_TLS_FAILED, 0);
		buf_finish(own);
		return;
	}
	if (own->at != NULL && len != 0) {
		buf_cut(own, own->len - len);
		s->held = *own;
		return;
	}
	buf_finish(own);
	check(s->held.len == 0);
	buf_add(&s->held, at, len);
	if (s->held.failed)
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
}

/*
 * The upcall on_data. The bytes are in the loop's block (own is empty) or in
 * `own`, which is freed. False: the stream is no longer here.
 */
static bool
stream_offer(struct stream *s, struct buf *own, const char *at, size_t len)
{
	struct loop *loop = s->loop;
	struct offer offer = { .stream = s, .outer = loop->offer };
	size_t used;

	loop->offer = &offer;
	used = s->ops->on_data(s, at, len);
	loop->offer = offer.outer;
	check(used <= len);
	if (offer.gone) {
		/* Bytes that stayed behind would be lost. */
		check(!offer.moved || used == len);
		buf_finish(own);
		return false;
	}
	if (used == len && s->state != STREAM_HANDSHAKE)
		buf_finish(own);
	else
		stream_keep_rest(s, own, at + used, len - used);
	return true;
}

static struct buf
stream_take_held(struct stream *s)
{
	struct buf held = s->held;

	s->held = (struct buf){ 0 };
	s->flags &= (uint8_t)~STREAM_DUE_OFFER;
	return held;
}

static void
stream_offer_held(struct stream *s)
{
	struct buf held = stream_take_held(s);

	if (held.len != 0 && !stream_offer(s, &held, held.at, held.len))
		return;
	if ((s->flags & STREAM_SAW_EOF) != 0 &&
	    (s->pauses == 0 || s->held.len == 0))
		stream_end(s, STREAM_EOF, 0);
}

/* recv, or what TLS makes of it. */
static ssize_t
stream_receive(struct stream *s, char *at, size_t room, size_t want)
{
	ssize_t n;

	if (s->tls != NULL) {
		n = tls_link_read(s, at, room, want);
	} else {
		do {
			n = recv(s->fd, at, want, MSG_DONTWAIT);
		} while (n == -1 && errno == EINTR);
	}
	if (n > 0)
		s->received += (uint64_t)n;
	return n;
}

static void
stream_no_bytes(struct stream *s, ssize_t n, int error)
{
	if (n == -1 && error == EAGAIN)
		return;
	if (n == -1) {
		stream_end(s, STREAM_RESET, error);
		return;
	}
	if (s->pauses == PAUSE_PEER_FULL && s->held.len != 0) {
		stream_disarm_read(s);
		s->flags |= STREAM_SAW_EOF;
		return;
	}
	stream_end(s, STREAM_EOF, 0);
}

/* Long messages that the session wants in one piece: read behind the part
 * that is there. */
static void
stream_read_behind(struct stream *s)
{
	struct buf held;
	ssize_t n;

	if (!buf_reserve(&s->held, LOOP_BLOCK)) {
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
		return;
	}
	n = stream_receive(s, s->held.at + s->held.len, LOOP_BLOCK,
	    LOOP_BLOCK);
	if (n <= 0) {
		stream_no_bytes(s, n, errno);
		return;
	}
	s->held.len += (size_t)n;
	held = stream_take_held(s);
	stream_offer(s, &held, held.at, held.len);
}

/* One recv and one upcall. False: nothing came, or the stream is gone. */
static bool
stream_read(struct stream *s)
{
	char *block = s->loop->block;
	struct buf none = { 0 };
	struct buf held;
	size_t before = s->held.len;
	ssize_t n;

	if (before > HELD_COPY) {
		stream_read_behind(s);
		return false;
	}
	n = stream_receive(s, block + before, LOOP_BLOCK - before,
	    LOOP_BLOCK - before);
	if (n <= 0) {
		stream_no_bytes(s, n, errno);
		return false;
	}
	if (before != 0) {
		held = stream_take_held(s);
		memcpy(block, held.at, before);
		buf_finish(&held);
	}
	return stream_offer(s, &none, block, before + (size_t)n);
}

/* `held` is full: no more is read until the pause ends. */
static void
stream_stop_reading(struct stream *s)
{
	stream_disarm_read(s);
	if ((s->pauses & ~(uint32_t)PAUSE_PEER_FULL) != 0 && hangup_watch(s))
		s->armed |= STREAM_ARMED_HANGUP;
}

static void
stream_read_paused(struct stream *s)
{
	char *block = s->loop->block;
	ssize_t n;

	if (s->held.len >= HELD_MAX) {
		stream_stop_reading(s);
		return;
	}
	n = stream_receive(s, block, LOOP_BLOCK, HELD_MAX - s->held.len);
	if (n <= 0) {
		stream_no_bytes(s, n, errno);
		return;
	}
	buf_add(&s->held, block, (size_t)n);
	if (s->held.failed)
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
}

/* Opening */

/* Connected, and TLS, if there is to be any, is agreed on. */
static void
stream_become_open(struct stream *s)
{
	bool blocked = stream_is_blocked(s);
	ssize_t n;

	s->state = STREAM_OPEN;
	if (s->tls != NULL)
		tls_link_send_early(s);
	else if (blocked && !stream_send_queued(s))
		return;
	/* What came behind the handshake waits in a block that is not ours
	 * for longer than this. */
	if (s->tls != NULL && s->state == STREAM_OPEN &&
	    tls_link_has_input(s)) {
		n = stream_receive(s, s->loop->block, LOOP_BLOCK, 0);
		if (n > 0) {
			buf_add(&s->held, s->loop->block, (size_t)n);
			stream_make_ready(s, STREAM_DUE_OFFER);
		}
	}
	if (s->held.failed)
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
	if (s->state != STREAM_OPEN)
		return;
	if (blocked && !stream_is_blocked(s))
		stream_make_ready(s, STREAM_DUE_DRAIN);
	s->ops->on_open(s);
}

static void
stream_connected(struct stream *s)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
		error = errno;
	if (error != 0) {
		stream_end(s, STREAM_REFUSED, error);
		return;
	}
	stream_disarm_write(s);
	if (!stream_start_reading(s)) {
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
		return;
	}
	stream_become_open(s);
}

/* One step; the caller has asked loop_may_start(). */
static void
stream_handshake(struct stream *s)
{
	switch (tls_link_handshake(s)) {
	case TLS_STEP_MORE:
		break;
	case TLS_STEP_DONE:
		stream_become_open(s);
		break;
	case TLS_STEP_FAILED:
		stream_end(s, STREAM_TLS_FAILED, 0);
		break;
	}
}

/* What the loop calls */

static void
stream_readable(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;

	(void)fd;
	(void)what;
	check_magic(s, STREAM_MAGIC);
	loop_awake(s->loop);
	if (s->state == STREAM_HANDSHAKE) {
		if (loop_may_start(s->loop))
			stream_handshake(s);
		return;
	}
	if (s->pauses != 0)
		stream_read_paused(s);
	else
		stream_read(s);
}

void
stream_writable(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;

	(void)fd;
	(void)what;
	check_magic(s, STREAM_MAGIC);
	loop_awake(s->loop);
	if (s->state == STREAM_CONNECTING) {
		stream_connected(s);
		return;
	}
	if (stream_send_queued(s) && !stream_is_blocked(s))
		s->ops->on_drain(s);
}

/* Bytes from before the end, such as a server's reason for hanging up. False:
 * the stream is gone. */
static bool
stream_read_last(struct stream *s)
{
	struct offer guard = { .stream = s, .outer = s->loop->offer };
	struct loop *loop = s->loop;

	s->flags &= (uint8_t)~STREAM_READ_LAST;
	loop->offer = &guard;
	if (s->pauses == 0)
		stream_offer_held(s);
	for (unsigned i = 0; i < LAST_BLOCKS && !guard.gone; i++)
		if (s->pauses != 0 || !stream_read(s))
			break;
	loop->offer = guard.outer;
	return !guard.gone;
}

static void
stream_do_due(struct stream *s)
{
	unsigned due = s->flags & STREAM_DUE;
	unsigned first = due & (0u - due);

	/* One upcall, which may be the stream's last; others come after. */
	s->flags &= (uint8_t)~first;
	if (due != first)
		stream_make_ready(s, 0);
	switch (first) {
	case STREAM_DUE_CLOSE:
		if ((s->flags & STREAM_READ_LAST) == 0 || stream_read_last(s))
			s->ops->on_close(s, (enum stream_end)s->end);
		break;
	case STREAM_DUE_OPEN:
		if (s->state == STREAM_CONNECTING)
			stream_connected(s);
		break;
	case STREAM_DUE_HANDSHAKE:
		if (loop_may_start(s->loop))
			stream_handshake(s);
		else
			stream_make_ready(s, STREAM_DUE_HANDSHAKE);
		break;
	case STREAM_DUE_DRAIN:
		if (!stream_is_blocked(s))
			s->ops->on_drain(s);
		break;
	case STREAM_DUE_READ:
		if (s->state == STREAM_OPEN)
			stream_readable(s->fd, EV_READ, s);
		break;
	case STREAM_DUE_OFFER:
		if (s->pauses == 0)
			stream_offer_held(s);
		else if ((s->flags & STREAM_SAW_EOF) != 0)
			stream_no_bytes(s, 0, 0);
		break;
	}
}

void
stream_run_ready(struct loop *loop)
{
	struct list now = { 0 };
	struct list *node;

	/* Only those that are there by now: others wait for their turn. */
	while ((node = list_pop(&loop->ready)) != NULL)
		list_append(&now, node);
	while ((node = list_pop(&now)) != NULL)
		stream_do_due(container_of(node, struct stream, ready));
}

/* Life */

void
stream_init(struct stream *s, const struct stream_ops *ops)
{
	*s = (struct stream){ .magic = STREAM_MAGIC, .fd = -1, .ops = ops };
	list_init(&s->ready);
}

/* A new connection in a stream that is closed. */
static void
stream_begin(struct stream *s, struct loop *loop, int fd)
{
	check_magic(s, STREAM_MAGIC);
	check(s->state == STREAM_CLOSED);
	s->loop = loop;
	s->fd = fd;
	s->received = s->sent = 0;
	s->error = 0;
}

bool
stream_adopt(struct stream *s, struct loop *loop, int fd)
{
	stream_begin(s, loop, fd);
	if (!stream_start_reading(s)) {
		s->loop = NULL;
		s->fd = -1;
		return false;
	}
	s->state = STREAM_OPEN;
	return true;
}

void
stream_read_soon(struct stream *s)
{
	check(s->state == STREAM_OPEN);
	stream_make_ready(s, STREAM_DUE_READ);
}

bool
stream_connect(struct stream *s, struct loop *loop,
    const struct sockaddr *address, socklen_t len)
{
	static const int yes = 1;
	int fd = socket(address->sa_family,
	    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = 0;

	if (fd == -1)
		return false;
	stream_begin(s, loop, fd);
	/* A message is sent when it is complete; waiting for more of it is
	 * waiting for nothing. A unix socket refuses, and needs it not. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	s->state = STREAM_CONNECTING;
	if (connect(fd, address, len) == 0) {
		stream_make_ready(s, STREAM_DUE_OPEN);
		return true;
	}
	if (errno != EINPROGRESS && errno != EINTR)
		error = errno;
	else if (!stream_arm_write(s))
		error = ENOMEM;
	if (error == 0)
		return true;
	stream_close(s);
	errno = error;
	return false;
}

void
stream_half_close(struct stream *s)
{
	check_magic(s, STREAM_MAGIC);
	if (s->state != STREAM_OPEN)
		return;
	stream_disarm_write(s);
	buf_finish(&s->queued);
	s->queued_at = 0;
	/* Over TLS without a close_notify: an end is an end. */
	shutdown(s->fd, SHUT_WR);
}

void
stream_close(struct stream *s)
{
	check_magic(s, STREAM_MAGIC);
	if (s->state == STREAM_CLOSED)
		return;
	if (s->tls != NULL)
		tls_link_close(s);
	stream_disarm_read(s);
	stream_disarm_write(s);
	list_remove(&s->ready);
	if (s->loop != NULL) {
		stream_tell_offers(s, false);
		if (s->loop->gather.owner == s)
			s->loop->gather.owner = NULL;
	}
	close(s->fd);
	buf_finish(&s->held);
	buf_finish(&s->queued);
	s->queued_at = 0;
	s->fd = -1;
	s->loop = NULL;
	s->pauses = 0;
	s->flags = 0;
	s->state = STREAM_CLOSED;
}

/* Pauses */

void
stream_pause(struct stream *s, enum stream_pause why)
{
	s->pauses |= why;
}

bool
stream_is_paused(const struct stream *s)
{
	return s->pauses != 0;
}

void
stream_resume(struct stream *s, enum stream_pause why)
{
	if ((s->pauses & why) == 0)
		return;
	s->pauses &= ~(uint32_t)why;
	if (s->pauses != 0 || s->state != STREAM_OPEN || s->loop == NULL)
		return;
	if ((s->armed & STREAM_ARMED_HANGUP) != 0)
		stream_disarm_read(s);
	if ((s->flags & STREAM_SAW_EOF) == 0 && !stream_arm_read(s)) {
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
		return;
	}
	/* Inside on_data it is not known yet what will be held. */
	if (s->held.len != 0 || (s->flags & STREAM_SAW_EOF) != 0 ||
	    stream_is_offering(s))
		stream_make_ready(s, STREAM_DUE_OFFER);
}

void
stream_pump(struct stream *s)
{
	check_magic(s, STREAM_MAGIC);
	if (s->loop == NULL || s->pauses != 0 || s->held.len == 0 ||
	    s->state == STREAM_HANDSHAKE)
		return;
	check(!stream_is_offering(s));
	stream_offer_held(s);
}

void
stream_unread(struct stream *s, const char *at, size_t len)
{
	struct buf held = { 0 };

	check_magic(s, STREAM_MAGIC);
	check(!stream_is_offering(s));
	buf_add(&held, at, len);
	buf_add(&held, s->held.at, s->held.len);
	buf_finish(&s->held);
	s->held = held;
	if (s->held.failed)
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
}

/* Moving */

bool
stream_can_move(const struct stream *s)
{
	return s->loop != NULL && s->state == STREAM_OPEN &&
	    s->held.len == 0 && !stream_is_blocked(s) && s->flags == 0 &&
	    s->armed == STREAM_ARMED_READ && s->loop->gather.owner != s &&
	    (s->tls == NULL || !tls_link_has_input(s));
}

void
stream_detach(struct stream *s)
{
	check(stream_can_move(s));
	/* Also takes back what epoll has reported in this very turn. */
	stream_disarm_read(s);
	stream_tell_offers(s, true);
	s->loop = NULL;
}

bool
stream_attach(struct stream *s, struct loop *loop)
{
	check_magic(s, STREAM_MAGIC);
	check(s->loop == NULL && s->state == STREAM_OPEN);
	s->loop = loop;
	if ((s->tls == NULL || tls_link_attach(s)) && stream_start_reading(s))
		return true;
	s->loop = NULL;
	return false;
}

bool
stream_is_stale(struct stream *s)
{
	char byte;
	ssize_t n;

	if (s->state != STREAM_OPEN || s->held.len != 0 || s->flags != 0)
		return true;
	do {
		n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	} while (n == -1 && errno == EINTR);
	return n != -1 || errno != EAGAIN;
}
