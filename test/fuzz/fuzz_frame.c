/*
 * A stream of messages. The same messages come out however the stream is cut
 * into pieces, and a header is BAD early or late but never first OK, then BAD.
 */
#include "fuzz.h"
#include "wire/frame.h"

#define MESSAGE_MAX 1000

/* Every way to cut one header short. */
static void
check_header(struct span in)
{
	enum frame_result result, before = FRAME_MORE;
	struct frame frame, first = { 0 };
	size_t len;

	for (len = 0; len <= in.len && len <= FRAME_HEADER + 2; len++) {
		char *cut = fuzz_copy(in.at, len);

		result = frame_peek(cut, len, &frame);
		free(cut);
		if (before != FRAME_MORE)
			check(result == before);
		if (result == FRAME_OK && before == FRAME_OK)
			check(frame.type == first.type &&
			    frame.body == first.body);
		if (result == FRAME_OK) {
			check(len >= FRAME_HEADER);
			check(frame.body <= INT32_MAX - 4);
			first = frame;
		}
		check(result != FRAME_MORE || len < FRAME_HEADER);
		before = result;
	}
}

/* A sum over the messages that are in the first `len` bytes; *ret_at is where
 * the first one that is bad or not complete begins. */
static uint64_t
sum_messages(const char *at, size_t len, size_t *ret_at,
    enum frame_result *ret_result)
{
	struct frame frame;
	struct span body;
	uint64_t sum = 0;
	size_t done = 0;

	while ((*ret_result = frame_take(at + done, len - done, MESSAGE_MAX,
	    &frame, &body)) == FRAME_OK) {
		check(body.len == frame.body && body.len <= MESSAGE_MAX);
		check(body.at == at + done + FRAME_HEADER);
		check(body.len <= len - done - FRAME_HEADER);
		sum = sum * 31 + frame.type;
		sum = sum * 31 + frame.body;
		done += FRAME_HEADER + body.len;
	}
	*ret_at = done;
	return sum;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	const char *in = (const char *)data;
	enum frame_result whole, part;
	size_t whole_at, part_at, kept, cut;
	uint64_t sum;

	check_header((struct span){ in, len });
	sum = sum_messages(in, len, &whole_at, &whole);
	check(whole_at <= len);
	/* In two pieces, at every place: what the first leaves over is put in
	 * front of the second. */
	for (cut = 0; cut < len && cut < 300; cut++) {
		uint64_t both = sum_messages(in, cut, &part_at, &part);

		check(part_at <= whole_at);
		if (part == FRAME_BAD) {
			check(whole == FRAME_BAD && part_at == whole_at);
			continue;
		}
		kept = part_at;
		while (frame_take(in + kept, len - kept, MESSAGE_MAX,
		    &(struct frame){ 0 }, &(struct span){ 0 }) == FRAME_OK) {
			struct frame frame;

			check(frame_peek(in + kept, len - kept, &frame) ==
			    FRAME_OK);
			both = (both * 31 + frame.type) * 31 + frame.body;
			kept += FRAME_HEADER + frame.body;
		}
		check(kept == whole_at && both == sum);
	}
	fuzz_check_time(began);
	return 0;
}
