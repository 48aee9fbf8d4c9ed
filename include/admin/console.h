/* The admin console: what main/ needs of it. */
#ifndef ADMIN_CONSOLE_H
#define ADMIN_CONSOLE_H

#include <stdbool.h>

/* Opens the console's door in struct process. Before the workers run. */
void console_install(void);
/*
 * A stats_period is over: SHOW STATS reckons its averages from here. Logs
 * the line of log_stats if told to. Any one thread.
 */
void admin_stats_tick(bool log_stats);
/* PAUSE and RESUME without a database, for signals. Any thread. */
void console_pause_all(void);
void console_resume_all(void);

#endif
