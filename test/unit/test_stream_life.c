/*
 * Plain streams: how they begin, end, and move to another thread. The name of
 * a test is the sentence it proves.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ends.h"

/*
 * Closing
 */

static void
close_itself(struct end *end)
{
	stream_close(&end->stream);
	stream_close(&end->stream);
}

static void
a_stream_may_be_closed_inside_its_own_upcalls(void **state)
{
	struct end data, close_, open, drain;
	union stream_address address;
	int listener = listen_on_loopback(&address);
	char byte[256 * 1024];

	end_open(&data, *state);
	data.in_data = close_itself;
	data.eat = 1;			/* the rest must not be kept */
	far_say(&data, "abc");
	run_until(&data, data.offers == 1);

	end_open(&close_, *state);
	close_.in_other = close_itself;
	end_close_far(&close_);
	run_until(&close_, close_.closes == 1);

	end_init(&open, *state);
	open.in_other = close_itself;
	assert_true(stream_connect(&open.stream, *state, &address.any,
	    sizeof(address.v4)));
	run_until(&open, open.opens == 1);

	end_open(&drain, *state);
	drain.in_other = close_itself;
	memset(byte, 'x', sizeof(byte));
	while (stream_send(&drain.stream, byte, sizeof(byte)) == STREAM_SENT)
		;
	fcntl(drain.far, F_SETFL, O_NONBLOCK);
	while (drain.drains == 0) {
		while (read(drain.far, byte, sizeof(byte)) > 0)
			;
		go_round(*state);
	}
	go_round(*state);
	assert_int_equal(data.offers + close_.closes + open.opens +
	    drain.drains, 4);
	assert_int_equal(data.closes + open.closes + drain.closes, 0);
	close(listener);
	end_finish(&data);
	end_finish(&close_);
	end_finish(&open);
	end_finish(&drain);
}

static void
close_peer(struct end *end)
{
	stream_close(&end->peer->stream);
}

static void
a_closed_stream_hears_nothing_of_what_came_with_it(void **state)
{
	struct end a, b;

	end_open(&a, *state);
	end_open(&b, *state);
	a.peer = &b;
	b.peer = &a;
	a.in_data = b.in_data = close_peer;
	far_say(&a, "x");
	far_say(&b, "y");
	run_until(&a, a.offers + b.offers != 0);
	go_round(*state);
	assert_int_equal(a.offers + b.offers, 1);
	end_finish(&a);
	end_finish(&b);
}

static void
reopen_itself(struct end *end)
{
	int pair[2];

	if (end->offers > 1)
		return;
	stream_close(&end->stream);
	end_close_far(end);
	make_pair(pair);
	assert_true(stream_adopt(&end->stream, end->loop, pair[0]));
	end->far = pair[1];
	far_say(end, "new");
}

static void
a_stream_may_be_used_again_inside_its_own_upcall(void **state)
{
	struct end end;

	end_open(&end, *state);
	end.eat = 3;
	end.in_data = reopen_itself;
	far_say(&end, "oldREST");
	run_until(&end, end.offers == 2);
	assert_got(&end, "oldnew");
	assert_int_equal(end.offered, 3);	/* no REST of the old one */
	end_finish(&end);
}

/*
 * Connecting
 */

static void
a_refused_connect_is_told_as_such(void **state)
{
	union stream_address address;
	int listener = listen_on_loopback(&address);
	struct end end;

	close(listener);
	end_init(&end, *state);
	assert_true(stream_connect(&end.stream, *state, &address.any,
	    sizeof(address.v4)));
	assert_int_equal(end.stream.state, STREAM_CONNECTING);
	run_until(&end, end.closes == 1);
	assert_int_equal(end.why, STREAM_REFUSED);
	assert_int_equal(end.stream.error, ECONNREFUSED);
	assert_int_equal(end.opens, 0);
	end_finish(&end);
}

static void
bytes_put_before_the_connection_stands_are_sent_then(void **state)
{
	union stream_address address;
	int listener = listen_on_loopback(&address);
	struct end end;
	char got[5];

	end_init(&end, *state);
	assert_true(stream_connect(&end.stream, *state, &address.any,
	    sizeof(address.v4)));
	assert_int_equal(stream_send(&end.stream, "early", 5), STREAM_QUEUED);
	run_until(&end, end.drains == 1);
	assert_int_equal(end.opens, 1);
	assert_int_equal(end.stream.state, STREAM_OPEN);
	end.far = accept(listener, NULL, NULL);
	far_read(&end, got, 5);
	assert_memory_equal(got, "early", 5);
	close(listener);
	end_finish(&end);
}

static void
a_unix_socket_connects_too_and_says_whose_it_is(void **state)
{
	union stream_address address = { .local.sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct end end;
	uint32_t uid;

	/* A name of the kernel's choice. */
	assert_int_equal(bind(listener, &address.any, len), 0);
	len = sizeof(address);
	assert_int_equal(getsockname(listener, &address.any, &len), 0);
	assert_int_equal(listen(listener, 1), 0);
	end_init(&end, *state);
	assert_true(stream_connect(&end.stream, *state, &address.any, len));
	assert_int_equal(end.opens, 0);		/* not from within */
	run_until(&end, end.opens == 1);
	assert_true(stream_is_unix(&end.stream));
	assert_true(stream_peer_uid(&end.stream, &uid));
	assert_int_equal(uid, geteuid());
	close(listener);
	end_finish(&end);

	address.local.sun_path[1] ^= 1;		/* nobody's */
	assert_false(stream_connect(&end.stream, *state, &address.any, len));
	assert_int_equal(errno, ECONNREFUSED);
	assert_int_equal(end.stream.state, STREAM_CLOSED);
}

static void
addresses_are_known_and_printed(void **state)
{
	union stream_address address;
	char text[64];
	unsigned port;
	uint32_t uid;
	struct end end;

	end_open_tcp(&end, *state);
	stream_local_address(&end.stream, &address);
	address_print(&address, text, sizeof(text), &port);
	assert_string_equal(text, "127.0.0.1");
	assert_int_equal(port, ntohs(address.v4.sin_port));
	stream_peer_address(&end.stream, &address);
	address_print(&address, text, sizeof(text), &port);
	assert_int_not_equal(port, 0);
	assert_false(stream_is_unix(&end.stream));
	assert_false(stream_peer_uid(&end.stream, &uid));
	end_finish(&end);

	address = (union stream_address){ .v6.sin6_family = AF_INET6 };
	address.v6.sin6_addr = in6addr_loopback;
	address.v6.sin6_port = htons(5432);
	address_print(&address, text, sizeof(text), &port);
	assert_string_equal(text, "::1");
	assert_int_equal(port, 5432);
	address = (union stream_address){ .local.sun_family = AF_UNIX };
	address_print(&address, text, sizeof(text), &port);
	assert_string_equal(text, "unix");
	assert_int_equal(port, 0);
}

static void
tuning_reaches_the_socket(void **state)
{
	static const struct stream_tuning tuning = {
		.keepalive = true, .keepidle_s = 77,
		.user_timeout_us = 5000000, .buffer_bytes = 32768,
	};
	struct end tcp, local;
	int value = 0;
	socklen_t len = sizeof(value);

	end_open_tcp(&tcp, *state);
	end_open(&local, *state);
	stream_tune(&tcp.stream, &tuning);
	stream_tune(&local.stream, &tuning);
	getsockopt(tcp.stream.fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len);
	assert_int_equal(value, 1);
	getsockopt(tcp.stream.fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len);
	assert_int_equal(value, 77);
	getsockopt(tcp.stream.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value,
	    &len);
	assert_int_equal(value, 5000);
	getsockopt(local.stream.fd, SOL_SOCKET, SO_SNDBUF, &value, &len);
	assert_int_equal(value, 2 * 32768);	/* the kernel doubles it */
	end_finish(&tcp);
	end_finish(&local);
}

static void
an_idle_stream_with_news_is_stale(void **state)
{
	struct end end;

	end_open(&end, *state);
	assert_false(stream_is_stale(&end.stream));
	far_say(&end, "x");
	assert_true(stream_is_stale(&end.stream));
	run_until(&end, end.offers == 1);
	assert_false(stream_is_stale(&end.stream));
	end_close_far(&end);
	assert_true(stream_is_stale(&end.stream));
	end_finish(&end);
}

/*
 * Moving. An echo that hops to the other of two loops with each message, from
 * within on_data, while the far end already writes the next one.
 */
#define HOPS 3000

struct hopper {
	struct end end;
	struct loop_mail mail;
	struct loop *side[2];
	unsigned hops;
};

static void
hopper_land(struct loop *loop, struct loop_mail *mail)
{
	struct hopper *hopper = container_of(mail, struct hopper, mail);

	assert_true(stream_attach(&hopper->end.stream, loop));
}

static size_t
hopper_on_data(struct stream *s, const char *at, size_t len)
{
	struct hopper *hopper = container_of(s, struct hopper, end.stream);
	struct loop *to = hopper->side[hopper->side[0] == s->loop];

	assert_int_equal(stream_send(s, at, len), STREAM_SENT);
	assert_true(stream_can_move(s));
	hopper->hops++;
	stream_detach(s);
	assert_false(stream_can_move(s));
	hopper->mail.read = hopper_land;
	loop_post(to, &hopper->mail);
	return len;
}

/* Told on whichever side it is; both have to stop. */
static void
stop_by_mail(struct loop *loop, struct loop_mail *mail)
{
	(void)mail;
	loop_stop(loop);
}

static void
hopper_on_close(struct stream *s, enum stream_end why)
{
	static struct loop_mail stop[2];
	struct hopper *hopper = container_of(s, struct hopper, end.stream);

	assert_int_equal(why, STREAM_EOF);
	stream_close(s);
	for (unsigned i = 0; i < 2; i++) {
		stop[i].read = stop_by_mail;
		loop_post(hopper->side[i], &stop[i]);
	}
}

static const struct stream_ops hopper_ops = {
	.on_data = hopper_on_data,
	.on_close = hopper_on_close,
};

static void *
hopper_loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void *
hopper_far_main(void *arg)
{
	struct hopper *hopper = arg;
	uint32_t there, back, wrong = 0;

	for (there = 0; there < HOPS; there++) {
		far_write(&hopper->end, &there, sizeof(there));
		far_read(&hopper->end, &back, sizeof(back));
		wrong += back != there;
	}
	end_close_far(&hopper->end);
	return (void *)(uintptr_t)wrong;
}

static void
a_stream_moves_between_threads_and_loses_nothing(void **state)
{
	struct hopper hopper = { 0 };
	pthread_t side, far;
	void *wrong;

	hopper.side[0] = *state;
	hopper.side[1] = loop_create("side");
	end_open(&hopper.end, *state);
	hopper.end.stream.ops = &hopper_ops;
	pthread_create(&side, NULL, hopper_loop_main, hopper.side[1]);
	pthread_create(&far, NULL, hopper_far_main, &hopper);
	loop_run(*state);
	pthread_join(side, NULL);
	pthread_join(far, &wrong);
	assert_null(wrong);
	assert_int_equal(hopper.hops, HOPS);
	loop_destroy(hopper.side[1]);
}

static void
only_an_idle_stream_can_move(void **state)
{
	static char bytes[1024 * 1024];
	struct end held, blocked, detached;

	end_open(&held, *state);
	held.eat = 1;
	assert_true(stream_can_move(&held.stream));
	far_say(&held, "abc");
	run_until(&held, held.offers == 1);
	assert_false(stream_can_move(&held.stream));

	end_open(&blocked, *state);
	assert_int_equal(stream_send(&blocked.stream, bytes, sizeof(bytes)),
	    STREAM_QUEUED);
	assert_false(stream_can_move(&blocked.stream));

	end_open(&detached, *state);
	stream_detach(&detached.stream);
	far_say(&detached, "while away");
	go_round(*state);
	assert_int_equal(detached.offers, 0);
	assert_true(stream_attach(&detached.stream, *state));
	run_until(&detached, detached.offers == 1);
	stream_detach(&detached.stream);	/* and closed where it is */
	end_finish(&detached);
	end_finish(&held);
	end_finish(&blocked);
}

/*
 * Memory
 */

static void
running_out_of_memory_ends_the_stream_and_not_the_program(void **state)
{
	static char bytes[1024 * 1024];
	struct end keep, queue;

	end_open(&keep, *state);
	keep.eat = 1;
	buf_reserve(&keep.got, 100);
	far_say(&keep, "abc");
	mem_fail_nth(1);
	run_until(&keep, keep.closes == 1);
	assert_int_equal(keep.why, STREAM_NO_MEMORY);

	end_open(&queue, *state);
	mem_fail_nth(1);
	assert_int_equal(stream_send(&queue.stream, bytes, sizeof(bytes)),
	    STREAM_BROKEN);
	run_until(&queue, queue.closes == 1);
	assert_int_equal(queue.why, STREAM_NO_MEMORY);
	mem_fail_nth(0);
	end_finish(&keep);
	end_finish(&queue);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, finish)
		TEST(a_stream_may_be_closed_inside_its_own_upcalls),
		TEST(a_closed_stream_hears_nothing_of_what_came_with_it),
		TEST(a_stream_may_be_used_again_inside_its_own_upcall),
		TEST(a_refused_connect_is_told_as_such),
		TEST(bytes_put_before_the_connection_stands_are_sent_then),
		TEST(a_unix_socket_connects_too_and_says_whose_it_is),
		TEST(addresses_are_known_and_printed),
		TEST(tuning_reaches_the_socket),
		TEST(an_idle_stream_with_news_is_stale),
		TEST(a_stream_moves_between_threads_and_loses_nothing),
		TEST(only_an_idle_stream_can_move),
		TEST(running_out_of_memory_ends_the_stream_and_not_the_program),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
