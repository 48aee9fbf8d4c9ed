/* Rules in pg_hba.conf's form, and ident maps. */
#ifndef AUTH_HBA_H
#define AUTH_HBA_H

#include <stdbool.h>

#include "auth/login.h"
#include "base/buf.h"
#include "base/span.h"

struct sockaddr;
struct hba;

struct hba *hba_load(const char *path, const char *ident_path_or_null,
    struct buf *ret_why);	/* NULL: errors with file:line */
/* The same for texts; the files' names are for the errors, and `@file` is
 * looked for in the folder that `file` names. */
struct hba *hba_parse(struct span text, const char *file,
    struct span ident_text, const char *ident_file_or_null,
    struct buf *ret_why);
struct hba *hba_ref(struct hba *hba);
void hba_unref(struct hba *hba);

struct hba_question {
	const struct sockaddr *address;	/* NULL or AF_UNIX: local */
	bool over_tls;
	bool replication;		/* asked for as a startup parameter;
					 * only the keyword matches it then */
	struct span database, user;
};

struct hba_answer {
	enum login_method method;	/* LOGIN_REJECT when no rule matches */
	unsigned line;			/* 0 = no rule */
	const char *map;		/* ident map's name, or NULL; lives as
					 * long as the rules */
};
void hba_match(const struct hba *hba, const struct hba_question *question,
    struct hba_answer *ret);
/* May somebody proved to be `system_name` log in as `user` by this map?
 * (map NULL: the names must be equal) */
bool hba_map_allows(const struct hba *hba, const char *map,
    struct span system_name, struct span user);

#endif
