/* Is this a migration tool? */
#ifndef MIGRATE_DETECT_H
#define MIGRATE_DETECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum tool_id {
#define X(id, name, companions, keys, books, statement, application) TOOL_##id,
#include "migrate/tools.def"
#undef X
	TOOLS
};

/* See tools.def. */
enum tool_companions {
	COMPANIONS_NEVER, COMPANIONS_IDLE, COMPANIONS_ALWAYS,
	COMPANIONS_KIN, COMPANIONS_HELPERS, COMPANIONS_ANYBODY,
};

struct tool_key {
	uint64_t from, to;		/* both 0: see the others */
	uint64_t factor;		/* times the CRC of the database; 0 */
	bool is_go;			/* as golang-migrate computes it */
};

struct tool {
	const char *name;
	enum tool_companions companions;
	struct tool_key keys[2];
	const char *books;		/* words, perhaps with a * behind */
	const char *statement;		/* NULL = none */
	const char *application;	/* NULL = none */
};

const struct tool *tool_of(enum tool_id id);

/* How sure a statement makes us. */
enum detected {
	DETECTED_NOTHING,
	DETECTED_READING,	/* it looks at the books, as a status page
				 * may */
	DETECTED_WRITING,	/* it takes the lock, or writes */
};

/*
 * `sql` has SQL_MIGRATION among its effects. `bind` is the body of a Bind
 * behind its names, SPAN_NONE for a simple query or a Parse. `database` is
 * the name that Postgres knows. *ret_tool is set unless the answer is NOTHING.
 */
enum detected detect_statement(struct span sql, struct span bind,
    struct span database, const struct tool **ret_tool);
/* By its application_name; NULL: none that is known. */
const struct tool *detect_application(struct span application_name);
/*
 * The tables and views that the DDL in a text names, each with a NUL behind
 * it, as they are spelled between quotes and without their schemas; as many as
 * fit. What it writes is added to the `len` bytes that are there already.
 */
size_t detect_names(struct span sql, char *names, size_t len, size_t size);
/* Does one of them stand in this text? */
bool detect_mentions(struct span sql, struct span names);
/*
 * Is there a statement in the text with this effect (SQL_BLOCKS, SQL_DDL) that
 * is about more than the tool's own books?
 */
bool detect_does(struct span sql, uint32_t effect);

#endif
