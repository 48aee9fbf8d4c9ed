/*
 * The end of a stream nobody reads from.
 *
 * A stream that is paused and holds all it may hold has its read event taken
 * off. Should its peer go away in that time, nothing would tell, and a dead
 * client would keep its place in a pool's line. The kernel can report the
 * end alone (EPOLLRDHUP, EPOLLHUP, EPOLLERR), but not through libevent: an
 * EV_CLOSED event by itself is not woken by a reset, of which epoll then goes
 * on reporting, turn after turn. So these few streams are watched by an epoll
 * of their own, whose descriptor is one more event of the loop; one-shot,
 * for one word about the end is enough.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/check.h"
#include "net/inside.h"

#define HANGUPS_A_TURN 32

static void
hangup_tell(struct stream *s, uint32_t what)
{
	int error = 0;
	socklen_t len = sizeof(error);

	check_magic(s, STREAM_MAGIC);
	/* What the kernel still has is only waiting for the peer by now, and
	 * goes there before the end is told. */
	if (s->pauses == PAUSE_PEER_FULL && (what & EPOLLERR) == 0)
		return;
	if ((what & EPOLLERR) != 0)
		(void)getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	stream_end(s, error != 0 ? STREAM_RESET : STREAM_EOF, error);
}

/* stream_end() calls nobody, so none of those found can vanish meanwhile. */
static void
hangup_seen(evutil_socket_t fd, short what, void *arg)
{
	struct epoll_event seen[HANGUPS_A_TURN];
	int count;

	(void)what;
	(void)arg;
	count = epoll_wait(fd, seen, HANGUPS_A_TURN, 0);
	for (int i = 0; i < count; i++)
		hangup_tell(seen[i].data.ptr, seen[i].events);
}

static bool
hangup_open(struct loop *loop)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd == -1)
		return false;
	if (event_assign(&loop->hangup_event, loop->base, fd,
	    EV_READ | EV_PERSIST, hangup_seen, loop) == -1 ||
	    event_add(&loop->hangup_event, NULL) == -1) {
		close(fd);
		return false;
	}
	loop->hangup_fd = fd;
	return true;
}

bool
hangup_watch(struct stream *s)
{
	struct epoll_event want = {
		.events = EPOLLRDHUP | EPOLLONESHOT,
		.data.ptr = s,
	};

	if (s->loop->hangup_fd == -1 && !hangup_open(s->loop))
		return false;
	return epoll_ctl(s->loop->hangup_fd, EPOLL_CTL_ADD, s->fd,
	    &want) == 0;
}

void
hangup_forget(struct stream *s)
{
	check(epoll_ctl(s->loop->hangup_fd, EPOLL_CTL_DEL, s->fd, NULL) == 0);
}

void
hangup_finish(struct loop *loop)
{
	if (loop->hangup_fd == -1)
		return;
	event_del(&loop->hangup_event);
	close(loop->hangup_fd);
}
