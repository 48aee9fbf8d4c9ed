/*
 * Plain streams: bytes in, bytes out, pauses. The far end is a bare descriptor,
 * so that a test can do what no polite peer would. The name of a test is the
 * sentence it proves; a test that waits for what does not come is ended by
 * alarm().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ends.h"

/*
 * Input
 */

static void
what_is_left_is_offered_again_with_what_follows(void **state)
{
	struct end end;

	end_open(&end, *state);
	end.eat = 0;
	far_say(&end, "abc");
	run_until(&end, end.offers == 1);
	go_round(*state);
	assert_int_equal(end.offers, 1);	/* nothing new, no offer */
	end.eat = 4;
	far_say(&end, "def");
	run_until(&end, end.offers == 2);
	assert_int_equal(end.offered, 6);
	assert_got(&end, "abcd");
	end.eat = SIZE_MAX;
	far_say(&end, "g");
	run_until(&end, end.offers == 3);
	assert_got(&end, "abcdefg");
	assert_int_equal(end.stream.held.cap, 0);	/* an idle stream */
	assert_int_equal(end.stream.received, 7);
	end_finish(&end);
}

static void
a_message_longer_than_the_block_comes_in_one_piece(void **state)
{
	enum { LEN = 5 * LOOP_BLOCK + 17, PIECE = 10000 };
	char *message = mem_alloc(LEN);
	struct end end;

	for (size_t i = 0; i < LEN; i++)
		message[i] = (char)(i * 31 >> 3);
	end_open(&end, *state);
	end.eat = 0;
	for (size_t at = 0; at < LEN; at += PIECE) {
		size_t n = LEN - at < PIECE ? LEN - at : PIECE;

		if (at + n == LEN)
			end.eat = SIZE_MAX;
		far_write(&end, message + at, n);
		run_until(&end, end.offered == at + n);
	}
	assert_int_equal(end.got.len, LEN);
	assert_memory_equal(end.got.at, message, LEN);
	mem_free(message);
	end_finish(&end);
}

static void
a_full_block_gives_the_others_their_turn(void **state)
{
	static char many[2 * LOOP_BLOCK];
	struct end busy, other;
	int size = 4 * LOOP_BLOCK;

	end_open(&busy, *state);
	end_open(&other, *state);
	setsockopt(busy.far, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	far_write(&busy, many, sizeof(many));
	far_say(&other, "me too");
	run_until(&busy, other.offers == 1);
	assert_int_equal(busy.offers, 1);
	assert_in_range(busy.got.len, 1, LOOP_BLOCK);
	run_until(&busy, busy.got.len == sizeof(many));
	end_finish(&busy);
	end_finish(&other);
}

static void
bytes_before_the_end_are_offered_and_the_end_is_told_once(void **state)
{
	struct end end;

	end_open(&end, *state);
	far_say(&end, "last words");
	end_close_far(&end);
	run_until(&end, end.closes == 1);
	assert_got(&end, "last words");
	assert_int_equal(end.why, STREAM_EOF);
	go_round(*state);
	assert_int_equal(end.closes, 1);
	assert_int_equal(stream_send(&end.stream, "x", 1), STREAM_BROKEN);
	end_finish(&end);
	assert_int_equal(end.stream.state, STREAM_CLOSED);
}

static void
a_reset_is_told_as_such(void **state)
{
	struct end end;

	end_open_tcp(&end, *state);
	end_reset_far(&end);
	run_until(&end, end.closes == 1);
	assert_int_equal(end.why, STREAM_RESET);
	assert_int_equal(end.stream.error, ECONNRESET);
	end_finish(&end);
}

/*
 * Output
 */

static void
pieces_leave_together_and_in_order(void **state)
{
	char sent[400], got[sizeof(sent)];
	struct end end;

	end_open(&end, *state);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 7);
	/* Odd before even within each four: no two of them are neighbours. */
	for (size_t i = 0; i < sizeof(sent); i += 4) {
		stream_put(&end.stream, sent + i + 1, 1);
		stream_put(&end.stream, sent + i, 1);
		stream_put(&end.stream, sent + i + 2, 2);
		stream_put(&end.stream, NULL, 0);
	}
	assert_int_equal(stream_flush(&end.stream), STREAM_SENT);
	far_read(&end, got, sizeof(got));
	for (size_t i = 0; i < sizeof(sent); i += 4) {
		assert_int_equal(got[i], sent[i + 1]);
		assert_int_equal(got[i + 1], sent[i]);
		assert_memory_equal(got + i + 2, sent + i + 2, 2);
	}
	assert_int_equal(end.stream.sent, sizeof(sent));
	end_finish(&end);
}

static void
putting_to_another_stream_flushes_the_first(void **state)
{
	struct end a, *b = mem_alloc(sizeof(*b));
	char got[3];

	end_open(&a, *state);
	end_open(b, *state);
	stream_put(&a.stream, "abc", 3);
	stream_put(&b->stream, "xyz", 3);
	far_read(&a, got, 3);
	assert_memory_equal(got, "abc", 3);
	/* With a stream what was put to it is forgotten. */
	end_finish(b);
	mem_free(b);
	assert_int_equal(stream_send(&a.stream, "def", 3), STREAM_SENT);
	far_read(&a, got, 3);
	assert_memory_equal(got, "def", 3);
	end_finish(&a);
}

static void
a_full_kernel_queues_and_then_drains(void **state)
{
	static char bytes[1024 * 1024], got[sizeof(bytes)], head[1000];
	struct end end;
	size_t n = 50000;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 13 >> 5);
	end_open(&end, *state);
	fcntl(end.far, F_SETFL, O_NONBLOCK);
	memcpy(head, bytes, sizeof(head));
	stream_put(&end.stream, head, sizeof(head));
	stream_put(&end.stream, bytes + sizeof(head),
	    sizeof(bytes) / 2 - sizeof(head));
	assert_int_equal(stream_flush(&end.stream), STREAM_QUEUED);
	assert_true(stream_is_blocked(&end.stream));
	/* The kernel has room again, but what is queued goes first. */
	far_read(&end, got, n);
	assert_int_equal(stream_send(&end.stream, bytes + sizeof(bytes) / 2,
	    sizeof(bytes) / 2), STREAM_QUEUED);
	while (n < sizeof(bytes)) {
		size_t room = sizeof(bytes) - n;
		ssize_t some = read(end.far, got + n,
		    room < 50000 ? room : 50000);

		if (some > 0)
			n += (size_t)some;
		else
			go_round(*state);
	}
	run_until(&end, end.drains == 1);
	assert_memory_equal(got, bytes, sizeof(bytes));
	assert_null(end.stream.write_event);
	assert_int_equal(end.stream.queued.cap, 0);
	assert_int_equal(end.stream.sent, sizeof(bytes));
	assert_int_equal(stream_send(&end.stream, "x", 1), STREAM_SENT);
	go_round(*state);
	assert_int_equal(end.drains, 1);
	end_finish(&end);
}

static void
what_a_peer_said_is_heard_although_writing_to_it_fails(void **state)
{
	struct end end;

	end_open(&end, *state);
	far_say(&end, "terminating connection");
	end_close_far(&end);
	assert_int_equal(stream_send(&end.stream, "x", 1), STREAM_BROKEN);
	assert_int_equal(end.closes, 0);	/* not from within our call */
	run_until(&end, end.closes == 1);
	assert_int_equal(end.why, STREAM_RESET);
	assert_int_equal(end.stream.error, EPIPE);
	assert_got(&end, "terminating connection");
	end_finish(&end);
}

/*
 * Pauses
 */

static void
a_paused_stream_reads_on_to_a_bound_and_offers_nothing(void **state)
{
	static char bytes[3 * HELD_BOUND];
	struct end end;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 11 >> 2);
	end_open(&end, *state);
	stream_pause(&end.stream, PAUSE_NO_SERVER);
	stream_pause(&end.stream, PAUSE_ANSWER);
	far_write(&end, bytes, sizeof(bytes));
	go_round(*state);
	assert_int_equal(end.offers, 0);
	assert_int_equal(end.stream.held.len, HELD_BOUND);
	stream_resume(&end.stream, PAUSE_ANSWER);
	stream_resume(&end.stream, PAUSE_ANSWER);
	go_round(*state);
	assert_int_equal(end.offers, 0);	/* one reason still stands */
	assert_true(stream_is_paused(&end.stream));
	stream_resume(&end.stream, PAUSE_NO_SERVER);
	run_until(&end, end.got.len == sizeof(bytes));
	assert_memory_equal(end.got.at, bytes, sizeof(bytes));
	end_finish(&end);
}

static void
held_bytes_are_offered_once_at_the_end_of_the_turn(void **state)
{
	struct end end;

	end_open(&end, *state);
	end.eat = 2;
	stream_pause(&end.stream, PAUSE_NO_SERVER);
	far_say(&end, "abcd");
	go_round(*state);
	stream_resume(&end.stream, PAUSE_NO_SERVER);
	assert_int_equal(end.offers, 0);
	go_round(*state);
	assert_int_equal(end.offers, 1);
	assert_got(&end, "ab");
	end_finish(&end);
}

static void
a_pump_offers_at_once_and_instead(void **state)
{
	struct end end;

	end_open(&end, *state);
	end.eat = 2;
	stream_pause(&end.stream, PAUSE_NO_SERVER);
	far_say(&end, "abcd");
	go_round(*state);
	stream_pump(&end.stream);
	assert_int_equal(end.offers, 0);
	stream_resume(&end.stream, PAUSE_NO_SERVER);
	stream_pump(&end.stream);
	assert_int_equal(end.offers, 1);
	go_round(*state);
	assert_int_equal(end.offers, 1);
	stream_pump(&end.stream);
	assert_int_equal(end.offers, 2);
	assert_got(&end, "abcd");
	stream_pump(&end.stream);
	assert_int_equal(end.offers, 2);
	end_finish(&end);
}

static void
resume_in_data(struct end *end)
{
	if (end->offers > 1)
		return;
	stream_pause(&end->stream, PAUSE_HELPER);
	stream_resume(&end->stream, PAUSE_HELPER);
}

static void
a_pause_that_ends_within_on_data_offers_the_rest_again(void **state)
{
	struct end end;

	end_open(&end, *state);
	end.eat = 3;
	end.in_data = resume_in_data;
	far_say(&end, "abcdef");
	run_until(&end, end.offers == 2);
	assert_got(&end, "abcdef");
	end_finish(&end);
}

static void
a_waiting_client_that_leaves_is_noticed_at_once(void **state)
{
	struct end end;

	end_open(&end, *state);
	stream_pause(&end.stream, PAUSE_NO_SERVER);
	far_say(&end, "query");
	end_close_far(&end);
	run_until(&end, end.closes == 1);
	assert_int_equal(end.why, STREAM_EOF);
	assert_int_equal(end.offers, 0);
	end_finish(&end);
}

static void
leaving_is_noticed_even_when_nothing_more_is_read(void **state)
{
	static char bytes[2 * HELD_BOUND], many[LOOP_BLOCK + 1000];
	struct end ends[3];
	int size = 4 * LOOP_BLOCK;

	/* The end by itself, a reset, and one that is read after all. */
	for (unsigned i = 0; i < 3; i++) {
		end_open_tcp(&ends[i], *state);
		stream_pause(&ends[i].stream, PAUSE_NO_SERVER);
		far_write(&ends[i], bytes, sizeof(bytes));
		while (ends[i].stream.held.len < HELD_BOUND)
			go_round(*state);
	}
	go_round(*state);
	end_close_far(&ends[0]);
	end_reset_far(&ends[1]);
	run_until(&ends[0], ends[0].closes + ends[1].closes == 2);
	assert_int_equal(ends[0].why, STREAM_EOF);
	assert_int_equal(ends[1].why, STREAM_RESET);
	stream_resume(&ends[2].stream, PAUSE_NO_SERVER);
	run_until(&ends[2], ends[2].got.len == sizeof(bytes));
	/* More than one read brings, and all of it before the end. */
	setsockopt(ends[2].far, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	far_write(&ends[2], many, sizeof(many));
	end_close_far(&ends[2]);
	run_until(&ends[2], ends[2].closes == 1);
	assert_int_equal(ends[2].got.len, sizeof(bytes) + sizeof(many));
	for (unsigned i = 0; i < 3; i++)
		end_finish(&ends[i]);
}

static void
bytes_that_wait_for_the_peer_come_before_the_end(void **state)
{
	static char bytes[3 * HELD_BOUND];
	struct end little, lot;

	end_open(&little, *state);
	end_open(&lot, *state);
	stream_pause(&little.stream, PAUSE_PEER_FULL);
	stream_pause(&lot.stream, PAUSE_PEER_FULL);
	far_say(&little, "row");
	far_write(&lot, bytes, sizeof(bytes));
	go_round(*state);
	end_close_far(&little);
	end_close_far(&lot);
	go_round(*state);
	assert_int_equal(little.closes + lot.closes, 0);
	stream_resume(&little.stream, PAUSE_PEER_FULL);
	stream_resume(&lot.stream, PAUSE_PEER_FULL);
	run_until(&lot, little.closes + lot.closes == 2);
	assert_got(&little, "row");
	assert_int_equal(lot.got.len, sizeof(bytes));
	end_finish(&little);
	end_finish(&lot);
}

static void
resume_peer(struct end *end)
{
	stream_resume(&end->peer->stream, PAUSE_NO_SERVER);
}

static void
bytes_due_for_an_offer_come_before_an_end_of_the_same_turn(void **state)
{
	struct end waker, end;

	end_open(&waker, *state);
	end_open(&end, *state);
	stream_pause(&end.stream, PAUSE_NO_SERVER);
	far_say(&end, "query");
	go_round(*state);
	assert_int_equal(end.stream.held.len, 5);
	waker.peer = &end;
	waker.in_data = resume_peer;
	far_say(&waker, "go");
	end_close_far(&end);
	run_until(&end, end.closes == 1);
	assert_int_equal(waker.offers, 1);
	assert_got(&end, "query");
	end_finish(&waker);
	end_finish(&end);
}

/*
 * A relay, as the session layer builds it: what one stream offers goes to the
 * other, and a full kernel pauses the reader.
 */
#define RELAY_BYTES (50 * 1000 * 1000)

static size_t
relay_on_data(struct stream *s, const char *at, size_t len)
{
	struct end *end = container_of(s, struct end, stream);
	struct stream *to = &end->peer->stream;

	if (stream_send(to, at, len) == STREAM_QUEUED)
		stream_pause(s, PAUSE_PEER_FULL);
	/* A block, and what was held meanwhile. */
	assert_true(to->queued.len <= LOOP_BLOCK + HELD_BOUND);
	return len;
}

static void
relay_on_drain(struct stream *s)
{
	struct end *end = container_of(s, struct end, stream);

	end->drains++;
	stream_resume(&end->peer->stream, PAUSE_PEER_FULL);
}

static const struct stream_ops relay_ops = {
	.on_data = relay_on_data,
	.on_open = end_on_open,
	.on_drain = relay_on_drain,
	.on_close = end_on_close,
};

static uint32_t
relay_word(uint32_t i)
{
	return i * 2654435761u;
}

static void *
relay_write(void *arg)
{
	static _Thread_local uint32_t words[5000];
	struct end *end = arg;
	uint32_t at = 0;

	while (at < RELAY_BYTES / sizeof(*words)) {
		for (uint32_t i = 0; i < 5000; i++)
			words[i] = relay_word(at++);
		far_write(end, words, sizeof(words));
	}
	return NULL;
}

/* A far end that has read everything says so by mail. */
static unsigned relay_checks;

static void
relay_count_check(struct loop *loop, struct loop_mail *mail)
{
	(void)mail;
	relay_checks++;
	loop_stop(loop);
}

static void *
relay_check(void *arg)
{
	static _Thread_local uint32_t words[1250];
	struct end *end = arg;
	uint32_t at = 0, wrong = 0;

	while (at < RELAY_BYTES / sizeof(*words)) {
		far_read(end, words, sizeof(words));
		for (uint32_t i = 0; i < 1250; i++)
			wrong += words[i] != relay_word(at++);
	}
	loop_post(end->loop, &end->mail);
	return (void *)(uintptr_t)wrong;
}

static void
fifty_megabytes_go_both_ways_through_small_buffers(void **state)
{
	struct end ends[2];
	pthread_t writers[2], readers[2];
	void *wrong;
	int size = 4096;

	for (unsigned i = 0; i < 2; i++) {
		end_open(&ends[i], *state);
		ends[i].stream.ops = &relay_ops;
		ends[i].peer = &ends[!i];
		setsockopt(ends[i].stream.fd, SOL_SOCKET, SO_SNDBUF, &size,
		    sizeof(size));
		ends[i].mail.read = relay_count_check;
	}
	relay_checks = 0;
	for (unsigned i = 0; i < 2; i++) {
		pthread_create(&writers[i], NULL, relay_write, &ends[i]);
		pthread_create(&readers[i], NULL, relay_check, &ends[i]);
	}
	run_until(&ends[0], relay_checks == 2);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(writers[i], NULL);
		pthread_join(readers[i], &wrong);
		assert_null(wrong);
		assert_true(ends[i].drains > 100);
		end_finish(&ends[i]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, finish)
		TEST(what_is_left_is_offered_again_with_what_follows),
		TEST(a_message_longer_than_the_block_comes_in_one_piece),
		TEST(a_full_block_gives_the_others_their_turn),
		TEST(bytes_before_the_end_are_offered_and_the_end_is_told_once),
		TEST(a_reset_is_told_as_such),
		TEST(pieces_leave_together_and_in_order),
		TEST(putting_to_another_stream_flushes_the_first),
		TEST(a_full_kernel_queues_and_then_drains),
		TEST(what_a_peer_said_is_heard_although_writing_to_it_fails),
		TEST(a_paused_stream_reads_on_to_a_bound_and_offers_nothing),
		TEST(held_bytes_are_offered_once_at_the_end_of_the_turn),
		TEST(a_pump_offers_at_once_and_instead),
		TEST(a_pause_that_ends_within_on_data_offers_the_rest_again),
		TEST(a_waiting_client_that_leaves_is_noticed_at_once),
		TEST(leaving_is_noticed_even_when_nothing_more_is_read),
		TEST(bytes_that_wait_for_the_peer_come_before_the_end),
		TEST(
		    bytes_due_for_an_offer_come_before_an_end_of_the_same_turn),
		TEST(fifty_megabytes_go_both_ways_through_small_buffers),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
