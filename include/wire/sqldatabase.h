/* CREATE, DROP and ALTER DATABASE: what they do to which database. */
#ifndef WIRE_SQLDATABASE_H
#define WIRE_SQLDATABASE_H

#include <stdbool.h>

#include "base/span.h"

/* Postgres keeps so much of a name, and a NUL. */
#define SQLDATABASE_NAME 64

enum sqldatabase_verb {
	DATABASE_CREATE,		/* `other` is its template */
	DATABASE_DROP,
	DATABASE_RENAME,		/* to `other` */
	DATABASE_MOVE,			/* to another tablespace */
};

/* Names as Postgres has them: without quotes, folded. */
struct sqldatabase {
	enum sqldatabase_verb verb;
	char name[SQLDATABASE_NAME];
	char other[SQLDATABASE_NAME];
};

/*
 * Reads a text with SQL_DATABASE that is one statement. False: it is something
 * else (ALTER DATABASE ... SET), or not to be understood.
 */
bool sqldatabase_read(struct span sql, struct sqldatabase *ret);

#endif
