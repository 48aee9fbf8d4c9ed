/* What stands in a command to the console: text to verb and arguments. */
#ifndef ADMIN_COMMAND_H
#define ADMIN_COMMAND_H

#include "base/span.h"

enum command_verb {
#define X(name, role, shape, handler, usage) COMMAND_##name,
#include "admin/commands.def"
#undef X
	COMMAND_COUNT
};

struct command {
	enum command_verb verb;
	struct span arg;		/* at NULL = none was given */
	struct span value;		/* of SET and MIGRATION */
	struct span action;		/* of MIGRATION */
};

enum command_result {
	COMMAND_OK,
	COMMAND_EMPTY,			/* nothing but blanks, comments, ";" */
	COMMAND_UNKNOWN,		/* no such command */
	COMMAND_BAD,			/* not its shape; *ret_why says why */
};

/*
 * Parses one command. Commands are in any case; names are words, or quoted
 * "like this" or 'like this', where a doubled quote stands for one; a `;` may
 * follow; comments are skipped. What was quoted is put into `room`, which must
 * have text.len bytes and live as long as *ret, whose spans point into it or
 * into the text. No I/O, no allocation.
 */
enum command_result command_parse(struct span text, char *room,
    struct command *ret, const char **ret_why);
const char *command_name(enum command_verb verb);

#endif
