/*
 * The log.
 *
 * A line is built whole in one buffer on the stack and leaves in one write(),
 * so that lines of many threads never mix and none is lost in a buffer when
 * the process dies. There is no lock and no allocation: a line can be logged
 * from any thread, out of memory, and from a failed check.
 *
 *	format --> message --escape--> line --write--> file, stderr
 *	                          \--------syslog()--> syslog
 *
 * Reopening without a lock: the file keeps one descriptor number for good,
 * and dup3() puts another file behind it in one step. Whoever writes at that
 * moment writes to the old one or to the new one.
 *
 * What clients can choose (names, query texts) reaches the log, so nothing in
 * a line can be taken for the end of it, for a second one, or for a command
 * to the terminal that shows it. Well-formed UTF-8 stays readable, except for
 * the characters that reorder or hide text.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define LOG_MESSAGE_MAX	4096		/* before it is escaped */
#define LOG_LINE_MAX	8192
#define LOG_IDENT_MAX	64

static const struct log_level_row {
	const char *name;
	int priority;			/* syslog's */
	int verbose;			/* logged from this setting on */
} log_levels[] = {
	[LOG_LEVEL_FATAL]   = { "FATAL",   LOG_CRIT,    0 },
	[LOG_LEVEL_ERROR]   = { "ERROR",   LOG_ERR,     0 },
	[LOG_LEVEL_WARNING] = { "WARNING", LOG_WARNING, 0 },
	[LOG_LEVEL_LOG]     = { "LOG",     LOG_INFO,    0 },
	[LOG_LEVEL_DEBUG]   = { "DEBUG",   LOG_DEBUG,   1 },
	[LOG_LEVEL_NOISE]   = { "NOISE",   LOG_DEBUG,   2 },
};

static const struct {
	const char *name;
	int facility;
} log_facilities[] = {
	{ "auth", LOG_AUTH }, { "authpriv", LOG_AUTHPRIV },
	{ "cron", LOG_CRON }, { "daemon", LOG_DAEMON },
	{ "ftp", LOG_FTP }, { "kern", LOG_KERN }, { "lpr", LOG_LPR },
	{ "mail", LOG_MAIL }, { "news", LOG_NEWS },
	{ "syslog", LOG_SYSLOG }, { "user", LOG_USER },
	{ "uucp", LOG_UUCP }, { "local0", LOG_LOCAL0 },
	{ "local1", LOG_LOCAL1 }, { "local2", LOG_LOCAL2 },
	{ "local3", LOG_LOCAL3 }, { "local4", LOG_LOCAL4 },
	{ "local5", LOG_LOCAL5 }, { "local6", LOG_LOCAL6 },
	{ "local7", LOG_LOCAL7 },
};

/* The settings in force. Each stands alone, so that a line logged during a
 * reload sees some old and some new ones, and none half changed. */
static struct {
	_Atomic int file;		/* descriptor, -1 = never had one */
	_Atomic bool to_file;
	_Atomic bool to_stderr;
	_Atomic bool to_syslog;
	_Atomic int format;		/* enum log_format */
	_Atomic int verbose;
	_Atomic uint64_t lost;
} log_state = { .file = -1, .to_stderr = true };

/* The line under construction. What does not fit is cut, with "..." */
struct line {
	char at[LOG_LINE_MAX];
	size_t len;
	size_t max;			/* room that texts may use */
	bool cut;
};

static void
line_add(struct line *line, const char *at, size_t len)
{
	if (line->cut || len > line->max - line->len) {
		line->cut = true;
		return;
	}
	memcpy(line->at + line->len, at, len);
	line->len += len;
}

static void
line_add_text(struct line *line, const char *text)
{
	line_add(line, text, strlen(text));
}

/*
 * Length of the well-formed UTF-8 character at `at` (RFC 3629: no overlong
 * form, no surrogate, up to U+10FFFF), 0 if there is none.
 */
static size_t
utf8_read(const unsigned char *at, size_t len, uint32_t *ret_code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t need = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
	uint32_t code = at[0] & (0x7fu >> need);
	size_t i;

	if (at[0] < 0xc2 || at[0] > 0xf4 || need > len)
		return 0;
	for (i = 1; i < need; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	if (code < least[need] || code > 0x10ffff ||
	    (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return need;
}

/* C1 controls, line and paragraph separators, what turns the direction of
 * writing around, what has no width, and what is no character at all. */
static bool
utf8_is_tricky(uint32_t code)
{
	return code < 0xa0 || code == 0xad || code == 0x61c ||
	    (code >= 0x200b && code <= 0x200f) ||
	    (code >= 0x2028 && code <= 0x202e) ||
	    (code >= 0x2060 && code <= 0x206f) || code == 0xfeff ||
	    (code >= 0xfff0 && code <= 0xfffb) ||
	    (code & 0xfffe) == 0xfffe || code >= 0xe0000;
}

/* One byte that may not stand in a line as it is. */
static void
line_add_byte_escaped(struct line *line, unsigned char byte, bool json)
{
	static const char names[] = "\aa\bb\tt\nn\vv\ff\rr\\\\";
	char text[8];
	const char *name;

	for (name = names; *name != '\0'; name += 2)
		if ((unsigned char)*name == byte &&
		    (!json || (byte != '\a' && byte != '\v'))) {
			line_add(line, (char[]){ '\\', name[1] }, 2);
			return;
		}
	if (json && byte == '"')
		line_add(line, "\\\"", 2);
	else if (json && byte >= 0x80)
		/* No character, so no \u: shown like in the text form. */
		line_add(line, text, (size_t)snprintf(text, sizeof(text),
		    "\\\\x%02x", byte));
	else
		line_add(line, text, (size_t)snprintf(text, sizeof(text),
		    json ? "\\u%04x" : "\\x%02x", byte));
}

static void
line_add_escaped(struct line *line, const char *text, size_t len, bool json)
{
	const unsigned char *at = (const unsigned char *)text;
	const unsigned char *end = at + len;
	uint32_t code;
	size_t n;

	for (; at < end; at += n) {
		n = 1;
		if (*at >= ' ' && *at < 0x7f) {
			if (*at == '\\' || (json && *at == '"'))
				line_add_byte_escaped(line, *at, json);
			else
				line_add(line, (const char *)at, 1);
			continue;
		}
		if (*at >= 0x80) {
			n = utf8_read(at, (size_t)(end - at), &code);
			if (n != 0 && !utf8_is_tricky(code)) {
				line_add(line, (const char *)at, n);
				continue;
			}
			n = 1;
		}
		line_add_byte_escaped(line, *at, json);
	}
}

/* The time of day, whose text is the same for all lines of a second. */
static void
line_add_time(struct line *line, enum log_format format)
{
	static _Thread_local struct {
		uint64_t second;
		int format;
		char head[32];
		char tail[32];
	} cache;
	uint64_t now_us = clock_wall_us();
	time_t second = (time_t)(now_us / 1000000);
	bool json = format == LOG_FORMAT_JSON;
	struct tm tm;
	char ms[8];

	if (cache.second != now_us / 1000000 ||
	    cache.format != (int)format || cache.head[0] == '\0') {
		localtime_r(&second, &tm);
		cache.head[strftime(cache.head, sizeof(cache.head),
		    json ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M:%S",
		    &tm)] = '\0';
		cache.tail[strftime(cache.tail, sizeof(cache.tail),
		    json ? "%z" : " %Z", &tm)] = '\0';
		cache.second = now_us / 1000000;
		cache.format = (int)format;
	}
	line_add_text(line, cache.head);
	line_add(line, ms, (size_t)snprintf(ms, sizeof(ms), ".%03u",
	    (unsigned)(now_us / 1000 % 1000)));
	line_add_text(line, cache.tail);
}

/* Reserves room for what ends a line; line_end() puts it there. */
static void
line_begin(struct line *line, size_t end_len)
{
	line->len = 0;
	line->cut = false;
	line->max = sizeof(line->at) - end_len - 3;
}

static void
line_end(struct line *line, const char *end)
{
	bool cut = line->cut;

	line->cut = false;
	line->max = sizeof(line->at);
	if (cut)
		line_add_text(line, "...");
	line_add_text(line, end);
}

static void
line_build_text(struct line *line, enum log_level level, const char *prefix,
    const char *message, size_t len)
{
	char head[32];

	line_begin(line, 1);
	line_add_time(line, LOG_FORMAT_TEXT);
	line_add(line, head, (size_t)snprintf(head, sizeof(head),
	    " [%ld] %s ", (long)getpid(), log_levels[level].name));
	if (prefix != NULL)
		line_add_escaped(line, prefix, strlen(prefix), false);
	line_add_escaped(line, message, len, false);
	line_end(line, "\n");
}

static void
line_build_json(struct line *line, enum log_level level, const char *prefix,
    const char *message, size_t len)
{
	char head[64];
	size_t prefix_len = prefix != NULL ? strlen(prefix) : 0;

	line_begin(line, 3);
	line_add_text(line, "{\"time\":\"");
	line_add_time(line, LOG_FORMAT_JSON);
	line_add(line, head, (size_t)snprintf(head, sizeof(head),
	    "\",\"pid\":%ld,\"level\":\"%s\"", (long)getpid(),
	    log_levels[level].name));
	/* The blank that sets a prefix apart in a text line has no use. */
	while (prefix_len > 0 && prefix[prefix_len - 1] == ' ')
		prefix_len--;
	if (prefix_len > LOG_LINE_MAX / 8)
		prefix_len = LOG_LINE_MAX / 8;
	if (prefix_len > 0) {
		line_add_text(line, ",\"session\":\"");
		line_add_escaped(line, prefix, prefix_len, true);
		line_add_text(line, "\"");
	}
	line_add_text(line, ",\"message\":\"");
	line_add_escaped(line, message, len, true);
	line_end(line, "\"}\n");
}

/* One write; the rest of a line that was taken in part is tried once more,
 * so that the next one starts on a line of its own. */
static void
log_write(int fd, const struct line *line)
{
	size_t done = 0;
	int tries = 0;
	ssize_t n;

	while (done < line->len && tries < 3) {
		n = write(fd, line->at + done, line->len - done);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno == EINTR)
			continue;
		tries++;
	}
	if (done < line->len)
		atomic_fetch_add(&log_state.lost, 1);
}

static void
log_to_syslog(enum log_level level, const char *prefix, const char *message,
    size_t len)
{
	struct line line;

	line_begin(&line, 1);
	if (prefix != NULL)
		line_add_escaped(&line, prefix, strlen(prefix), false);
	line_add_escaped(&line, message, len, false);
	line_end(&line, "");
	syslog(log_levels[level].priority, "%.*s", (int)line.len, line.at);
}

bool
log_wants(enum log_level level)
{
	return log_levels[level].verbose <= atomic_load_explicit(
	    &log_state.verbose, memory_order_relaxed);
}

static void
log_message(enum log_level level, const char *prefix, const char *message,
    size_t len)
{
	bool to_file = atomic_load(&log_state.to_file);
	bool to_stderr = atomic_load(&log_state.to_stderr);
	struct line line;

	if (to_file || to_stderr) {
		if (atomic_load(&log_state.format) == LOG_FORMAT_JSON)
			line_build_json(&line, level, prefix, message, len);
		else
			line_build_text(&line, level, prefix, message, len);
	}
	if (to_file)
		log_write(atomic_load(&log_state.file), &line);
	if (to_stderr)
		log_write(STDERR_FILENO, &line);
	if (atomic_load(&log_state.to_syslog))
		log_to_syslog(level, prefix, message, len);
}

void
log_line(enum log_level level, const char *prefix, const char *fmt, ...)
{
	int saved_errno = errno;
	char message[LOG_MESSAGE_MAX];
	va_list args;
	int len;

	if (!log_wants(level))
		return;
	va_start(args, fmt);
	len = vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (len < 0)
		len = snprintf(message, sizeof(message),
		    "(a message that cannot be printed: %s)", fmt);
	if ((size_t)len >= sizeof(message)) {
		len = (int)sizeof(message) - 1;
		memcpy(message + len - 3, "...", 3);
	}
	log_message(level, prefix, message, (size_t)len);
	errno = saved_errno;
}

uint64_t
log_lost_count(void)
{
	return atomic_load(&log_state.lost);
}

/* Opens the file, or opens it again, behind the same descriptor number. */
static bool
log_open_file(const char *path)
{
	int fd = open(path,
	    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	int kept = atomic_load(&log_state.file);

	if (fd < 0)
		return false;
	if (kept < 0) {
		atomic_store(&log_state.file, fd);
	} else {
		int rc = dup3(fd, kept, O_CLOEXEC);
		int why = errno;

		close(fd);
		if (rc < 0) {
			errno = why;
			return false;
		}
	}
	return true;
}

static int
log_find_facility(const char *name)
{
	size_t i;

	for (i = 0; name != NULL &&
	    i < sizeof(log_facilities) / sizeof(log_facilities[0]); i++)
		if (strcasecmp(name, log_facilities[i].name) == 0)
			return log_facilities[i].facility;
	return -1;
}

bool
log_knows_facility(const char *name)
{
	return log_find_facility(name) >= 0;
}

/*
 * syslog() goes on using the text it was given. Two places take turns: the
 * one being written is never the one in use.
 */
static void
log_open_syslog(const char *ident, const char *facility)
{
	static char idents[2][LOG_IDENT_MAX];
	static unsigned turn;
	int code = log_find_facility(facility);

	turn ^= 1;
	snprintf(idents[turn], sizeof(idents[turn]), "%s",
	    ident != NULL ? ident : "pgsluice");
	openlog(idents[turn], LOG_PID, code >= 0 ? code : LOG_DAEMON);
}

bool
log_setup(const struct log_settings *settings)
{
	if (settings->file != NULL && !log_open_file(settings->file))
		return false;
	if (settings->to_syslog)
		log_open_syslog(settings->syslog_ident,
		    settings->syslog_facility);
	tzset();
	atomic_store(&log_state.to_file, settings->file != NULL);
	atomic_store(&log_state.to_stderr, settings->to_stderr);
	atomic_store(&log_state.to_syslog, settings->to_syslog);
	atomic_store(&log_state.format, (int)settings->format);
	atomic_store(&log_state.verbose, settings->verbose);
	return true;
}

bool
log_limit_pass(struct log_limit *limit, uint32_t per_second,
    uint32_t *ret_left_out)
{
	uint64_t now = clock_us() / 1000000;
	uint64_t seen = atomic_load(&limit->second);
	uint32_t left_out = 0;
	bool pass;

	/* Threads that meet here at the turn of a second may let a line more
	 * pass, or one less. None is counted twice. */
	if (now > seen &&
	    atomic_compare_exchange_strong(&limit->second, &seen, now))
		atomic_store(&limit->passed, 0);
	pass = atomic_load(&limit->passed) < per_second &&
	    atomic_fetch_add(&limit->passed, 1) < per_second;
	if (pass)
		left_out = atomic_exchange(&limit->left_out, 0);
	else
		atomic_fetch_add(&limit->left_out, 1);
	if (ret_left_out != NULL)
		*ret_left_out = left_out;
	return pass;
}
