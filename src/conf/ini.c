/*
 * The ini dialect of PgBouncer, read with inih.
 *
 * inih is a small and careful library with limits that would hurt here, as
 * Debian builds it: a line over 199 bytes is cut and its tail is taken for a
 * new setting, without an error; " ;" ends a value; an indented line goes on
 * with the value above it; a section's name is cut at 49 bytes; and a colon
 * is as good as an equals sign. A connection string meets all of these. So
 * inih never sees the file. It is fed by the reader below:
 *
 *   file --- line_next() --- comments, blank lines: dropped
 *             (counts)       %include:  its lines take this one's place
 *                            [section]: checked, passed on
 *                            name = value:
 *                                |
 *                              hide()  the bytes that mean something to inih
 *                                |     become control characters, which a
 *                                |     file may not have
 *                              feed    "name=first part", " next part", ...:
 *                                |     short lines, in inih's own form for
 *                                |     values of several lines
 *                              inih
 *                                |
 *                            on_part() joins the parts, brings the hidden
 *                                      bytes back, hands the setting on
 *
 * Between two lines asked for inih calls on_part() exactly once for each
 * setting's line. That is checked, so an inih built with other limits makes
 * the file refused, not misread.
 */
#include "conf/ini.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

#define INI_MAGIC 0x1212aa01u
/* What fits into inih's line with a carriage return, a newline and a NUL. */
#define FED_BYTES 197

/* A file that was opened. They all stay until the end: places name them. */
struct ini_file {
	struct list node;		/* in ini.files */
	struct ini_file *includer;	/* NULL = the first one */
	unsigned depth;
	char *name;
	struct buf text;
	size_t at;			/* what is read of text */
	struct ini_place place;
};

struct ini {
	uint32_t magic;
	struct ini_events events;
	struct list files;
	unsigned file_count;
	struct ini_file *file;		/* being read; NULL = at the end */
	bool allow_include;
	bool failed, stopped;

	/* The setting that inih is being fed. */
	struct buf name, value;		/* hidden form */
	size_t fed;			/* how much of value */
	bool feeding, expecting;	/* parts left; a call of on_part due */
	enum { SECTION_NONE, SECTION_UNKNOWN, SECTION_KNOWN } section;

	/* The setting that comes back. */
	struct buf parts;
};

MEM_TYPE(ini_type, ini);
MEM_TYPE(ini_file_type, ini_file);

/* Left: what a setting may hold. Right: what inih gets instead. */
static const char hidden[][2] = {
	{ ';', 1 }, { '#', 2 }, { '=', 3 }, { ':', 4 }, { ' ', 5 },
	{ '\t', 6 }, { '[', 7 },
};
#define HIDDEN_COUNT (sizeof(hidden) / sizeof(hidden[0]))

static void
fail(struct ini *ini, const struct ini_place *place, const char *text)
{
	ini->failed = true;
	ini->events.error(ini->events.arg, place, text);
}

static void
fail_here(struct ini *ini, const char *text)
{
	fail(ini, &ini->file->place, text);
}

/* There is no going on from here: the rest is not read. */
static void
stop_here(struct ini *ini, const char *text)
{
	fail_here(ini, text);
	ini->stopped = true;
}

static void
hide(struct buf *out, struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.at[i];

		for (size_t k = 0; k < HIDDEN_COUNT; k++)
			if (c == hidden[k][0]) {
				c = hidden[k][1];
				break;
			}
		buf_add(out, &c, 1);
	}
}

static void
bring_back(struct buf *text)
{
	for (size_t i = 0; i < text->len; i++)
		if (text->at[i] > 0 && (size_t)text->at[i] <= HIDDEN_COUNT)
			text->at[i] = hidden[text->at[i] - 1][0];
}

static bool
has_control_character(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.at[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

/*
 * Files
 */

static void
file_destroy(struct ini_file *file)
{
	mem_free(file->name);
	/* Passwords stand in these files. */
	if (file->text.at != NULL)
		mem_wipe(file->text.at, file->text.cap);
	buf_finish(&file->text);
	mem_delete(&ini_file_type, file);
}

static struct ini_file *
file_push(struct ini *ini, struct span name)
{
	struct ini_file *file = mem_new(&ini_file_type);

	if (file == NULL)
		return NULL;
	file->name = mem_strndup(name.at, name.len);
	if (file->name == NULL) {
		file_destroy(file);
		return NULL;
	}
	file->place.file = file->name;
	file->includer = ini->file;
	file->depth = ini->file != NULL ? ini->file->depth + 1 : 1;
	list_append(&ini->files, &file->node);
	ini->file_count++;
	return file;
}

/* Reads fd to its end; returns an errno, 0 = read. */
static int
file_fill(struct ini_file *file, int fd)
{
	char block[16384];
	struct stat status;
	ssize_t got;

	/* In one piece where that is possible: a buffer that grows leaves
	 * copies of passwords behind. */
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
	    status.st_size <= INI_FILE_BYTES)
		buf_reserve(&file->text, (size_t)status.st_size);
	for (;;) {
		got = read(fd, block, sizeof(block));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		buf_add(&file->text, block, (size_t)got);
		if (file->text.failed)
			return ENOMEM;
		if (file->text.len > INI_FILE_BYTES)
			return EFBIG;
	}
	mem_wipe(block, sizeof(block));
	return got < 0 ? errno : 0;
}

static int
file_open(struct ini_file *file)
{
	int fd = open(file->name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int error;

	if (fd < 0)
		return errno;
	error = file_fill(file, fd);
	close(fd);
	return error;
}

static void
include(struct ini *ini, struct span name)
{
	struct ini_file *file;
	char text[512];
	int error;

	name = span_trim(name);
	if (!ini->allow_include) {
		fail_here(ini, "%include works in files only");
		return;
	}
	if (name.len == 0) {
		fail_here(ini, "%include: which file?");
		return;
	}
	if (ini->file->depth >= INI_DEPTH_MAX) {
		stop_here(ini, "%include: too deep (does the file include "
		    "itself?)");
		return;
	}
	if (ini->file_count >= INI_FILES_MAX) {
		stop_here(ini, "%include: too many files");
		return;
	}
	file = file_push(ini, name);
	if (file == NULL) {
		stop_here(ini, "out of memory");
		return;
	}
	error = file_open(file);
	if (error != 0) {
		snprintf(text, sizeof(text), "%%include %.*s: %s",
		    SPAN_ARG(name), strerror(error));
		fail_here(ini, text);
		return;
	}
	ini->file = file;
}

/* The next line of the files, trimmed; false at the end of them all. */
static bool
line_next(struct ini *ini, struct span *ret)
{
	for (; ini->file != NULL; ini->file = ini->file->includer) {
		struct ini_file *file = ini->file;
		struct span rest = buf_span(&file->text);
		const char *end;

		if (file->at == rest.len)
			continue;
		rest.at += file->at;
		rest.len -= file->at;
		end = memchr(rest.at, '\n', rest.len);
		if (end != NULL)
			rest.len = (size_t)(end - rest.at);
		file->at += rest.len + (end != NULL ? 1 : 0);
		file->place.line++;
		/* A byte order mark, as Windows editors leave it. */
		if (file->place.line == 1 && rest.len >= 3 &&
		    memcmp(rest.at, "\xef\xbb\xbf", 3) == 0) {
			rest.at += 3;
			rest.len -= 3;
		}
		*ret = span_trim(rest);
		return true;
	}
	return false;
}

/*
 * Lines
 */

/* "[name]" to inih; true: `line` has something for it. */
static bool
section_begin(struct ini *ini, struct span text, char *line, size_t size)
{
	struct span name;

	ini->section = SECTION_UNKNOWN;
	if (text.len < 2 || text.at[text.len - 1] != ']') {
		fail_here(ini, "a section is written [name]");
		return false;
	}
	name = span_trim((struct span){ text.at + 1, text.len - 2 });
	if (name.len > INI_SECTION_BYTES ||
	    memchr(name.at, ']', name.len) != NULL ||
	    memchr(name.at, ';', name.len) != NULL) {
		fail_here(ini, "this cannot be a section's name");
		return false;
	}
	if (!ini->events.section(ini->events.arg, &ini->file->place, name)) {
		ini->failed = true;
		return false;
	}
	ini->section = SECTION_KNOWN;
	snprintf(line, size, "[%.*s]", SPAN_ARG(name));
	return true;
}

/*
 * Splits "name = value". A name in double quotes may hold anything, `""`
 * being a quote in it; the quotes are taken off.
 */
static bool
setting_split(struct ini *ini, struct span text, struct buf *name,
    struct span *ret_value)
{
	size_t at = 0;

	if (text.at[0] == '"') {
		for (at = 1;; at++) {
			if (at == text.len) {
				fail_here(ini, "the name's closing quote is "
				    "missing");
				return false;
			}
			if (text.at[at] == '"' && (++at == text.len ||
			    text.at[at] != '"'))
				break;
			hide(name, (struct span){ text.at + at, 1 });
		}
	} else {
		while (at < text.len && strchr("= \t\"", text.at[at]) == NULL)
			at++;
		hide(name, (struct span){ text.at, at });
	}
	while (at < text.len && (text.at[at] == ' ' || text.at[at] == '\t'))
		at++;
	if (at == text.len || text.at[at] != '=') {
		fail_here(ini, "expected: name = value (a name with spaces or "
		    "other signs goes into double quotes)");
		return false;
	}
	*ret_value = span_trim((struct span){ text.at + at + 1,
	    text.len - at - 1 });
	return true;
}

static bool
setting_begin(struct ini *ini, struct span text)
{
	struct span value;

	buf_clear(&ini->name);
	buf_clear(&ini->value);
	if (!setting_split(ini, text, &ini->name, &value))
		return false;
	if (ini->name.len == 0 || ini->name.len > INI_NAME_BYTES) {
		fail_here(ini, ini->name.len == 0 ?
		    "the setting's name is missing" : "the name is too long");
		return false;
	}
	hide(&ini->value, value);
	if (ini->name.failed || ini->value.failed) {
		stop_here(ini, "out of memory");
		return false;
	}
	ini->fed = 0;
	ini->feeding = true;
	return true;
}

/* The next part of the setting, as a line for inih. */
static void
setting_feed(struct ini *ini, char *line)
{
	bool is_first = ini->fed == 0;
	size_t head = is_first ? ini->name.len + 1 : 1;
	size_t part = ini->value.len - ini->fed;

	if (part > FED_BYTES - head)
		part = FED_BYTES - head;
	if (is_first)
		memcpy(line, ini->name.at, ini->name.len);
	line[head - 1] = is_first ? '=' : ' ';
	if (part > 0)
		memcpy(line + head, ini->value.at + ini->fed, part);
	line[head + part] = '\0';
	if (is_first)
		buf_clear(&ini->parts);
	ini->fed += part;
	ini->feeding = ini->fed < ini->value.len;
	ini->expecting = true;
}

/* What to do with a line; true: there is something for inih. */
static bool
line_take(struct ini *ini, struct span text, char *line, size_t size)
{
	if (text.len == 0 || text.at[0] == ';' || text.at[0] == '#')
		return false;
	if (text.len > INI_LINE_BYTES) {
		fail_here(ini, "the line is too long");
		return false;
	}
	if (has_control_character(text)) {
		fail_here(ini, "the line has a control character");
		return false;
	}
	if (text.at[0] == '%') {
		if (span_starts_case(text, "%include") && (text.len == 8 ||
		    text.at[8] == ' ' || text.at[8] == '\t'))
			include(ini, (struct span){ text.at + 8,
			    text.len - 8 });
		else
			fail_here(ini, "the only directive is %include");
		return false;
	}
	if (text.at[0] == '[')
		return section_begin(ini, text, line, size);
	if (ini->section == SECTION_NONE)
		fail_here(ini, "a setting outside of any section");
	if (ini->section != SECTION_KNOWN)
		return false;
	if (!setting_begin(ini, text))
		return false;
	setting_feed(ini, line);
	return true;
}

/* inih asks for a line. `size` is its own limit. */
static char *
on_line(char *line, int size, void *arg)
{
	struct ini *ini = arg;
	struct span text;

	check_magic(ini, INI_MAGIC);
	if (ini->expecting || size <= FED_BYTES) {
		if (ini->file != NULL)
			stop_here(ini, "the inih library here cannot be used: "
			    "it lost a line");
		return NULL;
	}
	if (ini->feeding) {
		setting_feed(ini, line);
		return line;
	}
	while (!ini->stopped && line_next(ini, &text))
		if (line_take(ini, text, line, (size_t)size))
			return line;
	return NULL;
}

/* inih hands back a setting, or a part of one. */
static int
on_part(void *arg, const char *section, const char *name, const char *value)
{
	struct ini *ini = arg;

	check_magic(ini, INI_MAGIC);
	ini->expecting = false;
	buf_add_text(&ini->parts, value);
	if (ini->feeding)
		return 1;
	bring_back(&ini->name);
	bring_back(&ini->parts);
	buf_add(&ini->name, "", 1);
	buf_add(&ini->parts, "", 1);
	(void)name;		/* cut at 49 bytes when there are parts */
	if (ini->name.failed || ini->parts.failed)
		stop_here(ini, "out of memory");
	else
		ini->events.setting(ini->events.arg, &ini->file->place,
		    section, ini->name.at, ini->parts.at);
	return 1;
}

static bool
read_all(struct ini *ini)
{
	if (ini_parse_stream(on_line, ini, on_part, ini) != 0 &&
	    !ini->failed) {
		struct ini_place nowhere = { "the configuration", 0 };

		fail(ini, &nowhere, "the inih library does not understand it");
	}
	return !ini->failed;
}

bool
ini_read_file(struct ini *ini, const char *path)
{
	struct ini_place place = { path, 0 };
	struct ini_file *file;
	int error;

	check_magic(ini, INI_MAGIC);
	file = file_push(ini, span_of(path));
	error = file != NULL ? file_open(file) : ENOMEM;
	if (error != 0) {
		fail(ini, &place, strerror(error));
		return false;
	}
	ini->allow_include = true;
	ini->file = file;
	return read_all(ini);
}

bool
ini_read_text(struct ini *ini, const char *name, struct span text)
{
	struct ini_place place = { name, 0 };
	struct ini_file *file;

	check_magic(ini, INI_MAGIC);
	file = file_push(ini, span_of(name));
	if (file != NULL)
		buf_add_span(&file->text, text);
	if (file == NULL || file->text.failed) {
		fail(ini, &place, strerror(ENOMEM));
		return false;
	}
	ini->allow_include = false;
	ini->file = file;
	return read_all(ini);
}

struct ini *
ini_create(const struct ini_events *events)
{
	struct ini *ini = mem_new(&ini_type);

	if (ini == NULL)
		return NULL;
	ini->magic = INI_MAGIC;
	ini->events = *events;
	list_init(&ini->files);
	return ini;
}

static void
wipe_and_finish(struct buf *buf)
{
	if (buf->at != NULL)
		mem_wipe(buf->at, buf->cap);
	buf_finish(buf);
}

void
ini_destroy(struct ini *ini)
{
	if (ini == NULL)
		return;
	check_magic(ini, INI_MAGIC);
	list_each(node, &ini->files)
		file_destroy(container_of(node, struct ini_file, node));
	wipe_and_finish(&ini->name);
	wipe_and_finish(&ini->value);
	wipe_and_finish(&ini->parts);
	mem_delete(&ini_type, ini);
}
