/* Ident maps: which proved names may log in as which users. */
#ifndef AUTH_IDENT_H
#define AUTH_IDENT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

struct ident;

/* Reads a text in pg_ident.conf's form; `file` is what the errors call it.
 * NULL: every error with file:line in ret_why, one a line. */
struct ident *ident_parse(struct span text, const char *file,
    struct buf *ret_why);
void ident_destroy(struct ident *ident);	/* takes NULL */

bool ident_has_map(const struct ident *ident, const char *map);
bool ident_allows(const struct ident *ident, const char *map,
    struct span system_name, struct span user);

#endif
