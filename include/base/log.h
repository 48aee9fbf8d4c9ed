/* The log: levels, text or JSON, rate limit. Safe from any thread. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* As PgBouncer prints them: FATAL ERROR WARNING LOG DEBUG NOISE. */
enum log_level {
	LOG_LEVEL_FATAL,
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_LOG,
	LOG_LEVEL_DEBUG,		/* verbose >= 1 */
	LOG_LEVEL_NOISE,		/* verbose >= 2 */
};

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_settings {
	const char *file;		/* NULL = none; appended to */
	bool to_stderr;
	bool to_syslog;
	const char *syslog_ident;
	const char *syslog_facility;
	enum log_format format;
	int verbose;			/* 0..3 */
};

/*
 * Takes copies. False: the file could not be opened (errno), the old target
 * stays. Called again at RELOAD, where it re-opens the file. From the main
 * thread only; others may log meanwhile. Before the first call lines go to
 * stderr.
 */
bool log_setup(const struct log_settings *settings);
/* "daemon", "local0", ...: may it stand in syslog_facility? */
bool log_knows_facility(const char *name);
bool log_wants(enum log_level level);

/*
 * One line. `prefix` is the session's ("C-0x...: db/user@addr:port "), or
 * NULL. Control characters and anything that is not printable in the
 * arguments come out escaped: names are the client's to choose. errno is kept,
 * and may be printed with %m.
 * Text form: "2026-11-23 12:00:00.123 UTC [pid] LOG prefix message".
 */
void log_line(enum log_level level, const char *prefix, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Lines that could not be written (disk full, pipe closed), since start. */
uint64_t log_lost_count(void);

#define log_fatal(...)	log_line(LOG_LEVEL_FATAL, NULL, __VA_ARGS__)
#define log_error(...)	log_line(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_info(...)	log_line(LOG_LEVEL_LOG, NULL, __VA_ARGS__)
#define log_debug(...)	log_line(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)

/*
 * Rate limit: at most `per_second` lines a second pass a limiter; the first
 * of a second is told how many were left out before it (ret_left_out may be
 * NULL). All zeroes is fresh.
 */
struct log_limit {
	_Atomic uint64_t second;
	_Atomic uint32_t passed;
	_Atomic uint32_t left_out;
};

bool log_limit_pass(struct log_limit *limit, uint32_t per_second,
    uint32_t *ret_left_out);

#endif
