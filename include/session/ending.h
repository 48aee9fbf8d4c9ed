/* The ways a session can end: one table, one closer (session/client.h). */
#ifndef SESSION_ENDING_H
#define SESSION_ENDING_H

#include "base/log.h"

enum ending {
#define X(name, severity, sqlstate, level, counter, text) END_##name,
#include "session/ending.def"
#undef X
	END_COUNT
};

enum ending_severity { ENDING_NONE, ENDING_ERROR, ENDING_FATAL };

struct ending_row {
	const char *name;		/* as in ending.def */
	enum ending_severity severity;
	const char *sqlstate;
	enum log_level level;
	int counter;			/* enum stat_counter, or -1 */
	const char *text;
};

const struct ending_row *ending_row(enum ending ending);

#endif
