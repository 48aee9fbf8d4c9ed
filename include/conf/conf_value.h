/* Settings as rows of a table: parse, print, copy and compare by type. */
#ifndef CONF_CONF_VALUE_H
#define CONF_CONF_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

/* What a field is, and what the user writes for it: see options.def. */
enum conf_type {
	CONF_BOOL, CONF_INT, CONF_OCTAL, CONF_DURATION, CONF_DURATION_MS,
	CONF_SIZE,
	CONF_TEXT,			/* never NULL */
	CONF_TEXT_OR_NONE,		/* NULL where the text is empty */
	CONF_COMMAND,			/* for words_split(), or empty */
	CONF_POOL_MODE, CONF_AUTH_TYPE, CONF_SSLMODE, CONF_LOG_FORMAT,
	CONF_MIGRATION_LOCK, CONF_ON_DRAIN_TIMEOUT, CONF_DDL_HOLD,
	CONF_BALANCE,			/* round-robin | disable: a bool */
	CONF_BINDING,			/* channel_binding */
};

/* One field of some struct. Text values belong to the struct. */
struct conf_field {
	const char *name;
	enum conf_type type;
	size_t at;			/* offset in the struct */
	const char *min, *max;		/* as the user would write them */
};

/*
 * Parses text into the field of `object`. False: the old value stays, and
 * `why` gets a fragment such as: expected a whole number from 0 to 3, not "x".
 */
bool conf_field_set(const struct conf_field *field, void *object,
    struct span text, struct buf *why);
/* The value as text that conf_field_set() would take. */
void conf_field_print(const struct conf_field *field, const void *object,
    struct buf *out);
/* "a whole number from 0 to 3": for errors and for the documentation. */
void conf_field_expect(const struct conf_field *field, struct buf *out);
/* `to` must hold no text in this field; false: out of memory. */
bool conf_field_copy(const struct conf_field *field, void *to,
    const void *from);
bool conf_field_equal(const struct conf_field *field, const void *a,
    const void *b);
void conf_field_finish(const struct conf_field *field, void *object);

/* A row of options.def. */
struct conf_option {
	struct conf_field field;
	const char *def;
	enum conf_when { CONF_RELOAD, CONF_RESTART } when;
	const char *help;
};

unsigned conf_option_count(void);
const struct conf_option *conf_option_at(unsigned index);
/* Its index; -1 = there is none of this name. */
int conf_option_find(struct span name);

/*
 * PgBouncer's settings that pgsluice does not have yet: a table of names and
 * of the values that ask for nothing, and so may stand in the file.
 */
enum conf_missing { CONF_UNKNOWN, CONF_NOT_YET, CONF_NOT_YET_BUT_OFF };
enum conf_missing conf_missing_find(struct span name, struct span value);

/*
 * The name that was probably meant: `name_at(arg, i)` gives the candidates,
 * NULL ends them. NULL: none is near.
 */
const char *conf_suggest(struct span name,
    const char *(*name_at)(const void *arg, unsigned index),
    const void *arg);
const char *conf_option_name_at(const void *arg, unsigned index);

#endif
