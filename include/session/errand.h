/* The operator's commands around a migration: migration_before and _after. */
#ifndef SESSION_ERRAND_H
#define SESSION_ERRAND_H

#include <stdbool.h>

struct client;
struct errand;
struct worker;

/* What is told to the command. */
struct errand_about {
	const char *database, *user, *tool;
	const char *host;
	unsigned port;
	const char *outcome;		/* NULL = none: it is yet to begin */
};

/*
 * Starts it on this worker's loop. `ended` (may be NULL) is called once, later,
 * unless errand_forget() was. How it went is logged here. NULL: out of memory,
 * or the line has no words.
 */
struct errand *errand_start(struct worker *worker, const char *line,
    const struct errand_about *about, void (*ended)(void *arg, bool good),
    void *arg);
/* Who has started it has gone; it is stopped. Takes NULL. */
void errand_forget(struct errand *errand);
/* At the worker's end. */
void errands_drop(struct worker *worker);

#endif
