/*
 * The end of a process that has found a bug in itself. The line goes out
 * through the log like any other, so that it stands where the operator looks;
 * abort() then leaves a core (if allowed) and the supervisor restarts us.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"

void
check_failed(const char *cond, const char *file, int line, const char *func)
{
	static atomic_flag failing = ATOMIC_FLAG_INIT;

	/* A check that fails while this one is being logged adds nothing. */
	if (!atomic_flag_test_and_set(&failing))
		log_fatal("bug: check failed: %s (%s:%d, %s)",
		    cond, file, line, func);
	abort();
}
