/* What a statement does to the session. */
#ifndef WIRE_SQLSCAN_H
#define WIRE_SQLSCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/*
 * A set of effects; 0 = leaves no trace in the session, as far as the text
 * tells: a function that is called may do anything.
 */
enum sql_effect {
	SQL_DEALLOCATE     = 1 << 0,	/* DEALLOCATE x; name in ret_name */
	SQL_DEALLOCATE_ALL = 1 << 1,
	SQL_DISCARD_ALL    = 1 << 2,
	SQL_DISCARD_OTHER  = 1 << 3,	/* DISCARD PLANS/SEQUENCES/TEMP */
	SQL_SET            = 1 << 4,	/* SET, RESET, set_config(): not
					 * what ends with the transaction */
	SQL_LISTEN         = 1 << 5,
	SQL_UNLISTEN       = 1 << 6,
	SQL_PREPARE        = 1 << 7,
	SQL_TEMP           = 1 << 8,
	SQL_CURSOR_HOLD    = 1 << 9,
	SQL_ADVISORY       = 1 << 10,	/* a session-level advisory lock */
	SQL_LOAD           = 1 << 11,
	SQL_DDL            = 1 << 12,	/* and TRUNCATE, REINDEX, GRANT...:
					 * sqlwords.def; not CREATE TEMP */
	SQL_BEGIN          = 1 << 13,	/* BEGIN, START TRANSACTION */
	SQL_END            = 1 << 14,	/* COMMIT, END, ROLLBACK, ABORT,
					 * PREPARE TRANSACTION; with AND CHAIN
					 * also SQL_BEGIN */
	SQL_UNKNOWN        = 1 << 15,	/* may do anything */
	SQL_SEVERAL        = 1 << 16,	/* more than one statement */
	SQL_ROLLBACK_TO    = 1 << 17,	/* a savepoint: undoes SETs since */
	SQL_SEED           = 1 << 18,	/* setseed() */
	SQL_RESET          = 1 << 19,	/* RESET, SET ... TO DEFAULT; SQL_SET
					 * is set as well */
	SQL_BARE           = 1 << 20,	/* with SQL_BEGIN or SQL_END: nothing
					 * in it that could be refused */
	SQL_SEQUENCE       = 1 << 21,	/* may move a sequence on: nextval(),
					 * and what inserts */
	SQL_LASTVAL        = 1 << 22,	/* lastval(), currval() */
	SQL_BLOCKS         = 1 << 23,	/* with SQL_DDL: may take locks that
					 * others' statements wait for */
	SQL_MIGRATION      = 1 << 24,	/* a migration tool may have sent it:
					 * migrate/detect looks closer */
	SQL_DATABASE       = 1 << 25,	/* CREATE, DROP, ALTER DATABASE:
					 * wire/sqldatabase reads it */
	SQL_COPY_IN        = 1 << 26,	/* COPY FROM STDIN */
};

/*
 * The effects of the statements in `sql`, by a scan for the words that
 * matter: no allocation, one pass, comments and quotes understood.
 * ret_name (may be NULL) receives the name behind a DEALLOCATE, still quoted,
 * or the first word where SQL_BARE is set; the last one's, if there are
 * several; SPAN_NONE if there is none.
 */
uint32_t sqlscan(struct span sql, struct span *ret_name);

/* Cuts the next statement off *rest, without its semicolon; false when none
 * is left. For a text with SQL_SEVERAL: look at each by itself. */
bool sqlscan_next(struct span *rest, struct span *ret_statement);

#endif
