/* A command of the operator's, run beside the loop and waited for. */
#ifndef NET_COMMAND_H
#define NET_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "net/loop.h"

/* As much of its output is kept, of the end. */
#define COMMAND_OUTPUT 4096

struct command;

struct command_settings {
	char *const *argv;		/* of words_split(); NULL at its end */
	/* "NAME=value" ..., NULL at its end: beside our own environment and
	 * in the place of what is of the same name there. NULL = nothing. */
	const char *const *environment;
	uint64_t timeout_us;		/* 0 = no end */
};

enum command_end {
	COMMAND_EXITED,			/* number: its status */
	COMMAND_SIGNALED,		/* the signal */
	COMMAND_TIMED_OUT,		/* was killed for it */
	COMMAND_NOT_STARTED,		/* the errno */
};

/* Lives until the command is destroyed, or until `ended` returns. */
struct command_result {
	enum command_end end;
	int number;
	struct span output;		/* its last lines, as they came */
	bool output_is_cut;		/* there was more before it */
	uint64_t took_us;
};

/*
 * Starts it: a process group of its own, nothing to read (/dev/null), what it
 * writes to standard output and error kept, and no file of ours open in it.
 * `ended` runs once, on the loop's thread, and not before this returns. NULL:
 * out of memory.
 */
struct command *command_start(struct loop *loop,
    const struct command_settings *settings,
    void (*ended)(void *arg, const struct command_result *result), void *arg);
/*
 * Before `ended`, which then does not come: stops the command (SIGTERM, and
 * SIGKILL some seconds later). May be called from `ended`, and must be called
 * some time. Takes NULL.
 */
void command_destroy(struct command *command);

/* It exited with status 0. */
bool command_succeeded(const struct command_result *result);
/* "exited with status 3", "could not be started: No such file or directory" */
void command_describe(const struct command_result *result, struct buf *out);

#endif
