/* The table of endings (session/ending.def). */
#include "session/ending.h"

#include "base/check.h"
#include "stat/stat.h"

#define STAT_NONE -1

static const struct ending_row rows[END_COUNT] = {
#define X(name, severity, sqlstate, level, counter, text) \
	{ #name, ENDING_##severity, sqlstate, LOG_LEVEL_##level, \
	    (int)STAT_##counter, text },
#include "session/ending.def"
#undef X
};

const struct ending_row *
ending_row(enum ending ending)
{
	check(ending < END_COUNT);
	return &rows[ending];
}
