/* A command in the foreground: a process group, the terminal, its status. */
#ifndef MAIN_CHILD_H
#define MAIN_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

/* All zeroes: not started. */
struct child {
	pid_t pid;
	int terminal;			/* lent to it; -1 = none */
	bool has_ended;
	int status;			/* then: as a shell has it */
};

/*
 * Runs argv[0], looked for in PATH, with our standard files and `mask` for
 * its blocked signals. 0, or the errno of why it does not run. SIGCHLD and
 * SIGTTOU must be blocked here; child_reap() is for when SIGCHLD has come.
 */
int child_start(struct child *child, char *const *argv,
    const sigset_t *mask);
/* To all its group; not when it has ended. */
void child_signal(const struct child *child, int number);
/* Looks whether it has ended, or was stopped: then so are we. */
void child_reap(struct child *child);

#endif
