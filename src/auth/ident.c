/*
 * Ident maps, in pg_ident.conf's form:
 *
 *	map   system-name        user
 *	staff anna               anna_db
 *	staff /^(.*)@corp\.com$  \1
 *	ops   root               all
 *
 * The system name is what a certificate's CN or the kernel's uid has proved. A
 * "/" before it makes it a POSIX extended regular expression, which matches
 * anywhere unless it is anchored, and whose first group may stand in the user
 * as \1. The user `all`, not quoted, is everybody.
 */
#include <regex.h>
#include <string.h>

#include "auth/ident.h"
#include "auth/lines.h"
#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

#define IDENT_MAGIC 0x1de2a001u
#define REGEX_MAX 1024			/* bytes of an expression */
#define NAME_MAX_BYTES 1024		/* of a name matched against one */

struct ident_line {
	struct list node;		/* in ident.lines */
	char *map;
	char *system_name;		/* unless it is an expression */
	bool has_regex;
	regex_t regex;
	char *user;			/* NULL: any */
};

struct ident {
	uint32_t magic;
	struct list lines;
};

MEM_TYPE(ident_mem, ident);
MEM_TYPE(ident_line_mem, ident_line);

static void
ident_line_destroy(struct ident_line *line)
{
	if (line->has_regex)
		regfree(&line->regex);
	mem_free(line->map);
	mem_free(line->system_name);
	mem_free(line->user);
	mem_delete(&ident_line_mem, line);
}

void
ident_destroy(struct ident *ident)
{
	struct list *node;

	if (ident == NULL)
		return;
	check_magic(ident, IDENT_MAGIC);
	while ((node = list_pop(&ident->lines)) != NULL)
		ident_line_destroy(container_of(node, struct ident_line,
		    node));
	mem_delete(&ident_mem, ident);
}

/* The line's three words and no more. */
static bool
ident_read_words(struct lines *lines, struct word ret[3])
{
	struct word more;
	int i;

	for (i = 0; i < 3; i++) {
		if (!lines_next_word(lines, &ret[i])) {
			if (!lines->line_failed)
				lines_complain(lines, "map, system name and "
				    "user should stand here");
			return false;
		}
		if (ret[i].goes_on) {
			lines_complain(lines, "one name is expected, not a "
			    "list");
			return false;
		}
		if (ret[i].text.len == 0) {
			lines_complain(lines, "a name is empty");
			return false;
		}
	}
	if (lines_next_word(lines, &more))
		lines_complain(lines, "too many words");
	return !lines->line_failed;
}

/* The part of `user` before \1, and the one behind it. */
static bool
split_at_group(struct span user, struct span *ret_before,
    struct span *ret_after)
{
	const char *at = user.len != 0 ?
	    memmem(user.at, user.len, "\\1", 2) : NULL;

	if (at == NULL)
		return false;
	ret_before->at = user.at;
	ret_before->len = (size_t)(at - user.at);
	ret_after->at = at + 2;
	ret_after->len = user.len - ret_before->len - 2;
	return true;
}

static bool
ident_line_set_regex(struct ident_line *line, struct lines *lines,
    struct span regex)
{
	char why[128];
	int error;

	if (regex.len > REGEX_MAX) {
		lines_complain(lines, "the expression is too long");
		return false;
	}
	error = regcomp(&line->regex, regex.at, REG_EXTENDED);
	if (error != 0) {
		regerror(error, &line->regex, why, sizeof(why));
		lines_complain(lines, "bad expression: %s", why);
		return false;
	}
	line->has_regex = true;
	return true;
}

static bool
ident_copy(char **to, struct lines *lines, struct span text)
{
	*to = mem_strndup(text.at, text.len);
	if (*to == NULL)
		lines_complain(lines, "out of memory");
	return *to != NULL;
}

static bool
ident_line_set(struct ident_line *line, struct lines *lines,
    const struct word words[3])
{
	struct span system_name = words[1].text, user = words[2].text;
	struct span before, after;

	if (!ident_copy(&line->map, lines, words[0].text))
		return false;
	if (system_name.at[0] == '/') {
		system_name.at++;
		system_name.len--;
		if (!ident_line_set_regex(line, lines, system_name))
			return false;
		if (line->regex.re_nsub == 0 &&
		    split_at_group(user, &before, &after)) {
			lines_complain(lines, "\\1 needs an expression with "
			    "a group");
			return false;
		}
	} else if (!ident_copy(&line->system_name, lines, system_name)) {
		return false;
	}
	if (words[2].quoted)
		return ident_copy(&line->user, lines, user);
	if (user.at[0] == '/' || user.at[0] == '+') {
		lines_complain(lines, "an expression or a group in the place "
		    "of the user is not supported");
		return false;
	}
	return span_is(user, "all") || ident_copy(&line->user, lines, user);
}

static void
ident_read_line(struct ident *ident, struct lines *lines)
{
	struct ident_line *line;
	struct word words[3];

	if (!ident_read_words(lines, words))
		return;
	line = mem_new(&ident_line_mem);
	if (line == NULL) {
		lines_complain(lines, "out of memory");
		return;
	}
	if (ident_line_set(line, lines, words))
		list_append(&ident->lines, &line->node);
	else
		ident_line_destroy(line);
}

struct ident *
ident_parse(struct span text, const char *file, struct buf *ret_why)
{
	struct ident *ident = mem_new(&ident_mem);
	struct lines lines;

	lines_begin(&lines, file, text, ret_why);
	if (ident == NULL) {
		lines_complain(&lines, "out of memory");
		return NULL;
	}
	ident->magic = IDENT_MAGIC;
	list_init(&ident->lines);
	while (lines_next(&lines))
		ident_read_line(ident, &lines);
	if (lines.failed) {
		ident_destroy(ident);
		ident = NULL;
	}
	lines_finish(&lines);
	return ident;
}

bool
ident_has_map(const struct ident *ident, const char *map)
{
	const struct list *node;

	check_magic(ident, IDENT_MAGIC);
	for (node = ident->lines.next; node != &ident->lines;
	    node = node->next)
		if (strcmp(container_of(node, struct ident_line, node)->map,
		    map) == 0)
			return true;
	return false;
}

/* Is `user` what the line's user becomes with `group` in the place of \1? */
static bool
user_is_expanded(struct span pattern, struct span group, struct span user)
{
	struct span before, after;

	if (!split_at_group(pattern, &before, &after))
		return span_eq(pattern, user);
	return user.len == before.len + group.len + after.len &&
	    memcmp(user.at, before.at, before.len) == 0 &&
	    memcmp(user.at + before.len, group.at, group.len) == 0 &&
	    memcmp(user.at + before.len + group.len, after.at,
	    after.len) == 0;
}

static bool
ident_line_allows(const struct ident_line *line, const char *system_name,
    struct span user)
{
	struct span group = SPAN(""), pattern = span_of(line->user);
	regmatch_t found[2];

	if (!line->has_regex)
		return strcmp(line->system_name, system_name) == 0 &&
		    (line->user == NULL || span_eq(pattern, user));
	if (regexec(&line->regex, system_name, 2, found, 0) != 0)
		return false;
	if (line->user == NULL)
		return true;
	if (found[1].rm_so >= 0) {
		group.at = system_name + found[1].rm_so;
		group.len = (size_t)(found[1].rm_eo - found[1].rm_so);
	}
	return user_is_expanded(pattern, group, user);
}

bool
ident_allows(const struct ident *ident, const char *map,
    struct span system_name, struct span user)
{
	const struct ident_line *line;
	const struct list *node;
	char name[NAME_MAX_BYTES];

	check_magic(ident, IDENT_MAGIC);
	/* A NUL would let "root\0.example" pass for "root". */
	if (system_name.len == 0 || system_name.len >= sizeof(name) ||
	    memchr(system_name.at, '\0', system_name.len) != NULL ||
	    user.len == 0)
		return false;
	memcpy(name, system_name.at, system_name.len);
	name[system_name.len] = '\0';
	for (node = ident->lines.next; node != &ident->lines;
	    node = node->next) {
		line = container_of(node, struct ident_line, node);
		if (strcmp(line->map, map) == 0 &&
		    ident_line_allows(line, name, user))
			return true;
	}
	return false;
}
