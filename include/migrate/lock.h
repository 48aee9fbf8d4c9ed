/* The migration lock: one migrator a database, and the app held for its DDL. */
#ifndef MIGRATE_LOCK_H
#define MIGRATE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "base/span.h"

struct migration;
struct migration_record;
struct target;
struct tool;

enum migration_state {
#define X(name, shown, from) MIGRATION_##name,
#include "migrate/lock_state.def"
#undef X
	MIGRATION_STATES
};

enum migrator_place { MIGRATOR_OUT, MIGRATOR_IN_LINE, MIGRATOR_IN };

/* Who migrates; part of a session. The texts are cut to fit. */
struct migrator {
	struct list node;		/* of those in line, or in */
	enum migrator_place place;
	struct migration *migration;	/* NULL: not yet */
	const struct tool *tool;
	unsigned worker;
	uint64_t client_id;		/* 0: the console's */
	/* Its own thread sets it. */
	_Atomic bool is_firm;		/* it has not only looked */
	bool wants_ddl;			/* a statement waits for the drain */
	bool has_ddl;			/* in the transaction that it is in */
	bool did_ddl;			/* ever */
	_Atomic bool is_aborted;	/* by the console */
	uint64_t since_us;		/* clock_us(), when its place began */
	/* When it went idle; 0: it is at work. Its own thread sets it. */
	_Atomic uint64_t idle_us;
	struct migration_record *record;
	char database[64], user[64], address[64], application[64];
};

/* Times, 0 = without limit where that makes sense; microseconds. */
struct migration_limits {
	uint64_t hold_us;		/* traffic is held no longer */
	uint64_t drain_us;		/* then what on_timeout says */
	enum migration_on_timeout {
		MIGRATION_PROCEED, MIGRATION_ABORT, MIGRATION_CANCEL,
	} on_timeout;
	bool holds;			/* migration_lock = exclusive */
};

/* What the caller is to do when it holds no lock any more. */
#define MIGRATION_WAKES 16
struct migration_news {
	bool released;			/* those who are held go on */
	bool cancels;			/* what still runs is to be cancelled */
	unsigned wake_count;
	struct {
		unsigned worker;
		uint64_t client_id;	/* tries again what it was told to
					 * wait for */
	} wake[MIGRATION_WAKES];
};

enum migration_answer {
	MIGRATION_PASS,			/* go on */
	MIGRATION_PARK,			/* wait in line; you are woken */
	MIGRATION_HOLD,			/* wait until the app has stopped */
	MIGRATION_REFUSE,		/* it cannot be had (on_timeout) */
};

/* The database's; made at its first use. NULL: out of memory. */
struct migration *migration_of(struct target *target);
struct target *migration_target(const struct migration *migration);

/*
 * This client is a migrator, or does what one does. PASS: it is in, alone or
 * as a companion. PARK: it stands in line. Asked again when it is woken, and
 * from time to time (a companion may be let in later). No more than `reserve`
 * are in at a time.
 */
enum migration_answer migration_claim(struct migration *migration,
    struct migrator *who, unsigned reserve);
/* Would that be PASS now, for one who stands in line? */
bool migration_may_enter(const struct migrator *who, unsigned reserve);
/* Does anybody stand in line? */
bool migration_is_awaited(struct migration *migration);
/* When has somebody who is in beside this one, and has not only looked, last
 * been at work? 0: there is nobody. */
uint64_t migration_company_us(const struct migrator *who);
/* Would it be let in as the companion of one who is in? */
bool migration_admits(struct migration *migration,
    const struct migrator *who);
/* It goes, from wherever it stands. Its server must be gone for good before
 * that. The texts (error may be NULL) are for SHOW MIGRATIONS. */
void migration_leave(struct migrator *who, const char *outcome,
    const char *error, struct migration_news *news);

/* A statement that others have to wait for is about to be sent. */
enum migration_answer migration_ddl(struct migrator *who, struct span sql,
    const struct migration_limits *limits, struct migration_news *news);
/* While target->guarded: would this statement wait for the DDL that runs? */
bool migration_guards(struct target *target, struct span sql);
/* One that nobody has to wait for. */
void migration_count_ddl(struct migrator *who);
/* Its transaction is over, for good or not; or it does not want to send what
 * it waited for any more. */
void migration_settle(struct migrator *who, struct migration_news *news);
/* Something has stopped running; while target->draining. */
void migration_look(struct target *target, struct migration_news *news);
/* A client that has a server of its own is held between two transactions. */
void migration_count_held(struct target *target);
/*
 * Time has passed for one who is in. Returns when to call again (clock_us()),
 * 0 = no need. REFUSE in *ret_answer: its statement is not to be sent.
 */
uint64_t migration_tick(struct migrator *who,
    const struct migration_limits *limits, enum migration_answer *ret_answer,
    struct migration_news *news);

/*
 * The operator's command, once for each migration: has it been run, by this
 * one or a companion? RUN: not yet, the caller is to start it now, and to say
 * how it ended: RUN again, if it was stopped.
 */
enum migration_before {
	MIGRATION_BEFORE_RUN, MIGRATION_BEFORE_RUNS, MIGRATION_BEFORE_DONE,
	MIGRATION_BEFORE_FAILED,
};
enum migration_before migration_before(struct migrator *who);
void migration_before_ended(struct migrator *who, enum migration_before how,
    struct migration_news *news);

/* How long it has waited in line, and for whom ("prisma of app@10.0.0.7"). */
uint64_t migration_waited_us(const struct migrator *who);
void migration_whom(struct migration *migration, char *text, size_t size);

/* Console. LOCK: nobody migrates until UNLOCK, or until then (0 = no end).
 * False: somebody is in; who, in `text`. */
bool migration_console_lock(struct migration *migration, struct span database,
    uint64_t until_us, char *text, size_t size);
bool migration_console_unlock(struct migration *migration,
    struct migration_news *news);
/* Ends whoever is in. False: nobody. */
bool migration_console_abort(struct migration *migration,
    struct migration_news *news);

/* For SHOW MIGRATIONS. */
struct migration_row {
	uint64_t id;
	const char *database, *tool, *user, *address, *application, *state;
	const char *outcome, *error;
	uint64_t started_us;		/* wall clock */
	uint64_t waited_us, drained_us, hold_us;
	unsigned held_clients, ddl_statements;
};
/* Those that were, then those that are, the newest last. */
void migrations_each(void (*each)(void *arg, const struct migration_row *row),
    void *arg);

#endif
