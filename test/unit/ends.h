/* One end of a stream, and the bare descriptor at its other end, for tests. */
#ifndef TEST_ENDS_H
#define TEST_ENDS_H

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "net/loop.h"
#include "net/stream.h"

#define HELD_BOUND (16 * 1024)		/* what a paused stream reads on */

/*
 * Our end of a connection. It notes what it is told and stops the loop each
 * time, so that a test can look: run_until(something has happened).
 */
struct end {
	struct stream stream;
	struct loop *loop;
	int far;			/* the other end; -1 = closed */
	struct buf got;			/* consumed */
	size_t offered;			/* length of the last offer */
	size_t eat;			/* consume at most so many an offer */
	unsigned offers, opens, drains, closes;
	enum stream_end why;
	void (*in_data)(struct end *);	/* NULL, or what else to do in it */
	void (*in_other)(struct end *);	/* the same for the other upcalls */
	struct end *peer;		/* for in_data */
	struct loop_mail mail;		/* for a thread at the far end */
};

#define run_until(end, condition) \
	while (!(condition)) \
		loop_run((end)->loop)

static inline size_t
end_on_data(struct stream *s, const char *at, size_t len)
{
	struct end *end = container_of(s, struct end, stream);
	size_t eat = len < end->eat ? len : end->eat;

	loop_stop(end->loop);
	end->offers++;
	end->offered = len;
	buf_add(&end->got, at, eat);
	if (end->in_data != NULL)
		end->in_data(end);
	return eat;
}

static inline void
end_on_open(struct stream *s)
{
	struct end *end = container_of(s, struct end, stream);

	loop_stop(end->loop);
	end->opens++;
	if (end->in_other != NULL)
		end->in_other(end);
}

static inline void
end_on_drain(struct stream *s)
{
	struct end *end = container_of(s, struct end, stream);

	loop_stop(end->loop);
	assert_false(stream_is_blocked(s));
	end->drains++;
	if (end->in_other != NULL)
		end->in_other(end);
}

static inline void
end_on_close(struct stream *s, enum stream_end why)
{
	struct end *end = container_of(s, struct end, stream);

	loop_stop(end->loop);
	assert_int_equal(s->state, STREAM_ENDED);
	end->closes++;
	end->why = why;
	if (end->in_other != NULL)
		end->in_other(end);
}

static const struct stream_ops end_ops = {
	.on_data = end_on_data,
	.on_open = end_on_open,
	.on_drain = end_on_drain,
	.on_close = end_on_close,
};

static inline void
end_init(struct end *end, struct loop *loop)
{
	*end = (struct end){ .loop = loop, .far = -1, .eat = SIZE_MAX };
	stream_init(&end->stream, &end_ops);
}

static inline void
make_pair(int pair[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
	    pair), 0);
}

static inline void
end_open(struct end *end, struct loop *loop)
{
	int pair[2];

	make_pair(pair);
	end_init(end, loop);
	assert_true(stream_adopt(&end->stream, loop, pair[0]));
	end->far = pair[1];
}

static inline int
listen_on_loopback(union stream_address *ret)
{
	socklen_t len = sizeof(ret->v4);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(ret, 0, sizeof(*ret));
	ret->v4.sin_family = AF_INET;
	ret->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, &ret->any, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, &ret->any, &len), 0);
	return fd;
}

/* The same over TCP, where a peer can be reset and not only closed. */
static inline void
end_open_tcp(struct end *end, struct loop *loop)
{
	union stream_address address;
	int listener = listen_on_loopback(&address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, &address.any, sizeof(address.v4)), 0);
	end_init(end, loop);
	end->far = accept(listener, NULL, NULL);
	assert_true(stream_adopt(&end->stream, loop, fd));
	close(listener);
}

static inline void
end_close_far(struct end *end)
{
	if (end->far != -1)
		close(end->far);
	end->far = -1;
}

static inline void
end_reset_far(struct end *end)
{
	static const struct linger none = { 1, 0 };

	setsockopt(end->far, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	end_close_far(end);
}

static inline void
end_finish(struct end *end)
{
	stream_close(&end->stream);
	buf_finish(&end->got);
	end_close_far(end);
}

static inline void
far_write(struct end *end, const void *at, size_t len)
{
	assert_int_equal(write(end->far, at, len), (ssize_t)len);
}

static inline void
far_say(struct end *end, const char *text)
{
	far_write(end, text, strlen(text));
}

static inline void
far_read(struct end *end, void *at, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t got = read(end->far, (char *)at + n, len - n);

		assert_true(got > 0);
		n += (size_t)got;
	}
}

static inline void
assert_got(const struct end *end, const char *text)
{
	assert_int_equal(end->got.len, strlen(text));
	assert_memory_equal(end->got.at, text, strlen(text));
}

/* Lets the loop go round without waiting for anything. */
struct rounds {
	struct loop_task task;
	struct loop *loop;
	unsigned left;
};

static inline void
rounds_run(struct loop_task *task)
{
	struct rounds *rounds = container_of(task, struct rounds, task);

	if (rounds->left-- == 0)
		loop_stop(rounds->loop);
	else
		loop_defer(rounds->loop, task);
}

static inline void
go_round(struct loop *loop)
{
	struct rounds rounds = { .loop = loop, .left = 4 };

	loop_task_init(&rounds.task, rounds_run);
	loop_defer(loop, &rounds.task);
	while (rounds.left != UINT32_MAX)
		loop_run(loop);
}

static inline int
begin(void **state)
{
	*state = loop_create("test");
	return *state == NULL;
}

static inline int
finish(void **state)
{
	loop_destroy(*state);
	return 0;
}

#endif
