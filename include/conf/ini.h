/* The ini dialect: files into settings, each with its file and line. */
#ifndef CONF_INI_H
#define CONF_INI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

#define INI_DEPTH_MAX 10		/* files that include one another */
#define INI_FILES_MAX 1000		/* files of one configuration */
#define INI_FILE_BYTES (16 * 1024 * 1024)
#define INI_LINE_BYTES (64 * 1024)
#define INI_NAME_BYTES 127		/* of a setting's name */
#define INI_SECTION_BYTES 49		/* what inih can hold */

/* Where something was written. The text lives as long as the struct ini. */
struct ini_place {
	const char *file;
	unsigned line;			/* 0 = the file as a whole */
};

/*
 * What the reader tells. `section` says whether it is known; the settings of
 * an unknown one are left out, so that it is complained of once.
 */
struct ini_events {
	bool (*section)(void *arg, const struct ini_place *place,
	    struct span name);
	void (*setting)(void *arg, const struct ini_place *place,
	    const char *section, const char *name, const char *value);
	void (*error)(void *arg, const struct ini_place *place,
	    const char *text);
	void *arg;
};

struct ini;

/* NULL: out of memory. */
struct ini *ini_create(const struct ini_events *events);
void ini_destroy(struct ini *ini);		/* takes NULL */

/* Each reads it all and reports every error; false when there was one. A
 * text has no %include, which is for files only. */
bool ini_read_file(struct ini *ini, const char *path);
bool ini_read_text(struct ini *ini, const char *name, struct span text);

#endif
