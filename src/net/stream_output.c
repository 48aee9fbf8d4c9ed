/*
 * The output of a stream: bytes go to the kernel at once and in one call, and
 * what it does not take waits in the stream's queue.
 *
 * Whoever relays puts what he forwards piece by piece (the end of this
 * message, a rewritten one, the next forty as they are) and flushes once. The
 * pieces are noted in the loop's gather list, not copied. A second stream
 * that is put to before the first is flushed flushes it; that is right but
 * costs a call, so the habit is one stream at a time.
 *
 * The queue has no bound of its own: bytes that were handed over are never
 * refused. STREAM_QUEUED says that it is time to pause whoever makes them,
 * until on_drain.
 */
#include <errno.h>

#include "base/check.h"
#include "base/mem.h"
#include "net/inside.h"
#include "net/stream.h"

MEM_TYPE(write_event_type, event);

static bool
stream_has_queued(const struct stream *s)
{
	return s->queued.len != s->queued_at;
}

bool
stream_arm_write(struct stream *s)
{
	if (s->write_event != NULL)
		return true;
	s->write_event = mem_new(&write_event_type);
	if (s->write_event == NULL)
		return false;
	if (event_assign(s->write_event, s->loop->base, s->fd,
	    EV_WRITE | EV_PERSIST, stream_writable, s) == 0 &&
	    event_add(s->write_event, NULL) == 0)
		return true;
	mem_delete(&write_event_type, s->write_event);
	s->write_event = NULL;
	return false;
}

void
stream_disarm_write(struct stream *s)
{
	if (s->write_event == NULL)
		return;
	event_del(s->write_event);
	mem_delete(&write_event_type, s->write_event);
	s->write_event = NULL;
}

/* EAGAIN is 0 bytes; -1 is the end. */
static ssize_t
socket_write(int fd, struct iovec *pieces, unsigned count)
{
	struct msghdr msg = { .msg_iov = pieces, .msg_iovlen = count };
	ssize_t n;

	do {
		if (count == 1)
			n = send(fd, pieces->iov_base, pieces->iov_len,
			    MSG_NOSIGNAL | MSG_DONTWAIT);
		else
			n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n == -1 && errno == EINTR);
	if (n == -1 && (errno == EAGAIN || errno == ENOBUFS))
		return 0;
	return n;
}

/* The peer takes no more, but what it said before may tell why. */
static void
stream_end_output(struct stream *s, int error)
{
	stream_end(s, STREAM_RESET, error);
	s->flags |= STREAM_READ_LAST;
}

/* Copies all but the first `skip` bytes to the end of the queue. */
static enum stream_result
stream_queue(struct stream *s, const struct iovec *pieces, unsigned count,
    size_t skip)
{
	if (s->queued_at >= s->queued.len / 2) {
		buf_cut(&s->queued, s->queued_at);
		s->queued_at = 0;
	}
	for (unsigned i = 0; i < count; i++) {
		size_t len = pieces[i].iov_len;

		if (skip < len)
			buf_add(&s->queued, (char *)pieces[i].iov_base + skip,
			    len - skip);
		skip -= skip < len ? skip : len;
	}
	if (s->queued.failed || !stream_arm_write(s)) {
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
		return STREAM_BROKEN;
	}
	return STREAM_QUEUED;
}

enum stream_result
stream_write_raw(struct stream *s, struct iovec *pieces, unsigned count,
    size_t len)
{
	ssize_t n = 0;

	if (!stream_is_live(s))
		return STREAM_BROKEN;
	if (!stream_has_queued(s)) {
		n = socket_write(s->fd, pieces, count);
		if (n == (ssize_t)len)
			return STREAM_SENT;
		if (n == -1) {
			stream_end_output(s, errno);
			return STREAM_BROKEN;
		}
	}
	return stream_queue(s, pieces, count, (size_t)n);
}

/* Nothing was put: how does it stand? */
static enum stream_result
stream_output_state(const struct stream *s)
{
	if (!stream_is_live(s))
		return STREAM_BROKEN;
	return stream_is_blocked(s) ? STREAM_QUEUED : STREAM_SENT;
}

enum stream_result
stream_flush(struct stream *s)
{
	struct gather *gather;

	if (s->loop == NULL || s->loop->gather.owner != s)
		return stream_output_state(s);
	gather = &s->loop->gather;
	gather->owner = NULL;
	switch (s->state) {
	case STREAM_OPEN:
		s->sent += gather->len;
		if (s->tls == NULL)
			return stream_write_raw(s, gather->piece,
			    gather->count, gather->len);
		tls_link_write(s, gather->piece, gather->count);
		return stream_output_state(s);
	case STREAM_CONNECTING:
		s->sent += gather->len;
		return stream_queue(s, gather->piece, gather->count, 0);
	case STREAM_HANDSHAKE:
		s->sent += gather->len;
		tls_link_put_early(s, gather->piece, gather->count);
		return stream_output_state(s);
	case STREAM_CLOSED:
	case STREAM_ENDED:
		break;
	}
	return STREAM_BROKEN;
}

/* False: what another stream's flush or our own brought up, we have ended. */
static bool
gather_begin(struct gather *gather, struct stream *s)
{
	if (gather->owner != NULL)
		stream_flush(gather->owner);
	if (!stream_is_live(s))
		return false;
	gather->owner = s;
	gather->count = 0;
	gather->len = 0;
	return true;
}

void
stream_put(struct stream *s, const void *at, size_t len)
{
	struct gather *gather;
	struct iovec *last;

	if (len == 0 || !stream_is_live(s))
		return;
	check(s->loop != NULL);
	gather = &s->loop->gather;
	if ((gather->owner != s || gather->count == GATHER_PIECES) &&
	    !gather_begin(gather, s))
		return;
	gather->len += len;
	if (gather->count != 0) {
		/* Neighbours in memory are one piece: a row after a row. */
		last = &gather->piece[gather->count - 1];
		if ((const char *)last->iov_base + last->iov_len == at) {
			last->iov_len += len;
			return;
		}
	}
	gather->piece[gather->count++] = (struct iovec){
		.iov_base = (void *)(uintptr_t)at, .iov_len = len };
}

enum stream_result
stream_send(struct stream *s, const void *at, size_t len)
{
	stream_put(s, at, len);
	return stream_flush(s);
}

bool
stream_is_blocked(const struct stream *s)
{
	return stream_has_queued(s) ||
	    (s->tls != NULL && tls_link_has_early(s));
}

bool
stream_send_queued(struct stream *s)
{
	struct iovec piece = {
		.iov_base = s->queued.at + s->queued_at,
		.iov_len = s->queued.len - s->queued_at,
	};
	ssize_t n = socket_write(s->fd, &piece, 1);

	if (n == -1) {
		stream_end_output(s, errno);
		return false;
	}
	s->queued_at += (size_t)n;
	if (!stream_has_queued(s)) {
		buf_finish(&s->queued);
		s->queued_at = 0;
		stream_disarm_write(s);
	} else if (!stream_arm_write(s)) {
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
		return false;
	}
	return true;
}
