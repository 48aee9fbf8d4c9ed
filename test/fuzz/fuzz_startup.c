/*
 * The first packet of a stranger, and the `options` in it. Cut anywhere it
 * parses the same; what was understood can be composed again and is
 * understood as the same.
 */
#include "base/buf.h"
#include "fuzz.h"
#include "wire/startup.h"

static enum frame_result
peek_exact(const char *at, size_t len, struct startup *ret, size_t *ret_size)
{
	char *copy = fuzz_copy(at, len);
	const char *why = NULL;
	enum frame_result result;

	result = startup_peek(copy, len, ret, ret_size, &why);
	check((result == FRAME_BAD) == (why != NULL));
	free(copy);
	return result;
}

static void
check_cuts(const char *at, size_t len)
{
	enum frame_result result, before = FRAME_MORE;
	struct startup startup;
	size_t cut, size, first = 0;

	for (cut = 0; cut <= len; cut++) {
		/* all of the beginning, then a sample */
		if (cut > 64 && cut < len && cut % 97 != 0)
			continue;
		result = peek_exact(at, cut, &startup, &size);
		if (before != FRAME_MORE)
			check(result == before);
		if (result == FRAME_OK) {
			check(size <= cut && size <= STARTUP_MAX);
			check(before != FRAME_OK || size == first);
			first = size;
		}
		before = result;
	}
}

/* Quotes a text for a command line. */
static void
add_escaped(struct buf *out, struct span text)
{
	size_t i;

	for (i = 0; i < text.len; i++) {
		buf_add(out, "\\", 1);
		buf_add(out, text.at + i, 1);
	}
}

static void
check_options(struct span options)
{
	struct buf scratch = { 0 }, again = { 0 }, second = { 0 };
	struct span rest = options, name, value, name2, value2, line;

	while (startup_next_option(&rest, &scratch, &name, &value) ==
	    FRAME_OK) {
		check(rest.len < options.len);
		check(fuzz_is_within(rest, options));
		check(fuzz_is_within(name, buf_span(&scratch)));
		check(fuzz_is_within(value, buf_span(&scratch)));
		check(name.len == 0 ||
		    memchr(name.at, '=', name.len) == NULL);
		check(name.len == 0 ||
		    memchr(name.at, '-', name.len) == NULL);
		options = rest;
		buf_clear(&again);
		buf_add_text(&again, "  --");
		add_escaped(&again, name);
		buf_add_text(&again, "=");
		add_escaped(&again, value);
		line = buf_span(&again);
		check(startup_next_option(&line, &second, &name2, &value2) ==
		    FRAME_OK);
		check(span_eq(name, name2) && span_eq(value, value2));
		check(startup_next_option(&line, &second, &name2, &value2) ==
		    FRAME_MORE);
	}
	buf_finish(&scratch);
	buf_finish(&again);
	buf_finish(&second);
}

static void
check_login(const struct startup *startup)
{
	struct span rest = startup->params, name, value;
	struct buf again = { 0 };
	struct startup second;
	size_t began, size;

	check(startup->major == 3);
	began = startup_begin(&again, startup->major, startup->minor);
	while (startup_next_param(&rest, &name, &value)) {
		check(fuzz_is_within(name, startup->params));
		check(fuzz_is_within(value, startup->params));
		startup_param(&again, name, value);
		if (span_is(name, "options"))
			check_options(value);
	}
	check(rest.len == 1 && rest.at[0] == '\0');
	startup_end(&again, began);
	check(!again.failed);
	check(peek_exact(again.at, again.len, &second, &size) == FRAME_OK);
	check(second.minor == startup->minor);
	check(span_eq((struct span){ again.at + 8, again.len - 8 },
	    startup->params));
	buf_finish(&again);
}

static void
check_packet(const char *at, size_t len)
{
	struct span all = { at, len };
	struct startup startup;
	struct buf again = { 0 };
	const char *why;
	size_t size;

	if (startup_peek(at, len, &startup, &size, &why) != FRAME_OK)
		return;
	switch (startup.kind) {
	case STARTUP_LOGIN:
		check(fuzz_is_within(startup.params, all));
		check_login(&startup);
		break;
	case STARTUP_CANCEL:
		check(fuzz_is_within(startup.key, all));
		startup_cancel(&again, startup.pid, startup.key);
		check(span_eq(buf_span(&again), (struct span){ at, size }));
		break;
	case STARTUP_SSL:
		startup_ssl_request(&again);
		check(span_eq(buf_span(&again), (struct span){ at, size }));
		break;
	case STARTUP_GSS:
		check(size == 8);
		break;
	case STARTUP_DIRECT_TLS:
		check(size == 0);
		break;
	case STARTUP_TERMINATE:
		check(size == 5 && at[0] == 'X');
		break;
	}
	buf_finish(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();

	check_cuts((const char *)data, len);
	check_packet((const char *)data, len);
	check_options((struct span){ (const char *)data, len });
	fuzz_check_time(began);
	return 0;
}
