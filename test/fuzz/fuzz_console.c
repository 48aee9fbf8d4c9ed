/*
 * Commands to the console. Whatever the text is: arguments lie within the text
 * or the room for what was quoted, nothing else is written to, and what has
 * been taken apart and put together again, all quoted, is the same command.
 */
#include "admin/command.h"
#include "base/buf.h"
#include "fuzz.h"

static void
add_quoted(struct buf *out, struct span text, char quote)
{
	buf_add(out, &quote, 1);
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] == quote)
			buf_add(out, &quote, 1);
		buf_add(out, text.at + i, 1);
	}
	buf_add(out, &quote, 1);
}

/* NAME "arg", or SET arg = 'value' */
static void
check_again(const struct command *command)
{
	struct buf text = { 0 };
	struct command again;
	const char *why;
	char *room;

	buf_add_text(&text, command_name(command->verb));
	buf_add_text(&text, " ");
	if (command->value.at != NULL) {
		buf_add_span(&text, command->arg);
		buf_add_text(&text, " = ");
		add_quoted(&text, command->value, '\'');
	} else if (command->arg.at != NULL) {
		add_quoted(&text, command->arg, '"');
	}
	room = fuzz_copy(text.at, text.len);
	check(command_parse(buf_span(&text), room, &again, &why) ==
	    COMMAND_OK);
	check(again.verb == command->verb);
	check((again.arg.at != NULL) == (command->arg.at != NULL));
	check(span_eq(again.arg, command->arg));
	check(span_eq(again.value, command->value));
	free(room);
	buf_finish(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	struct span text = { (const char *)data, len };
	char *room = fuzz_copy((const char *)data, len);
	struct span inside = { room, len };
	struct command command;
	const char *why = NULL;

	switch (command_parse(text, room, &command, &why)) {
	case COMMAND_OK:
		check(fuzz_is_within(command.arg, text) ||
		    fuzz_is_within(command.arg, inside));
		check(fuzz_is_within(command.value, text) ||
		    fuzz_is_within(command.value, inside));
		check_again(&command);
		break;
	case COMMAND_BAD:
		check(why != NULL);
		break;
	default:
		check(why == NULL);
	}
	free(room);
	fuzz_check_time(began);
	return 0;
}
