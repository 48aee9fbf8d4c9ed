/*
 * Session parameters.
 *
 * A client's parameters are a set of (name, value) pairs in which it differs
 * from a fresh server session; so are a server's. Sets are interned: two sets
 * with the same content are the same object. A thousand functions of one app
 * share one set, and the question asked before every transaction, "does this
 * server's session look like this client's?", is a comparison of pointers.
 *
 * A set is immutable; changing one pair gives another set. The pairs are kept
 * sorted by name (ASCII case folded, as Postgres compares parameter names),
 * so that equal sets have equal bytes, and a diff is one merge.
 */
#include "pool/vars.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

struct vars_pair {
	struct span name;
	struct span value;
};

struct vars {
	_Atomic unsigned refs;
	struct hash_node by_content;
	unsigned count;
	uint64_t scope;			/* vars_scope() */
	uint64_t reading;		/* vars_reading() */
	struct vars_pair pair[];	/* the texts follow in the block */
};

static struct {
	pthread_mutex_t lock;
	struct hash sets;
} interned = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int
name_compare(struct span a, struct span b)
{
	size_t shorter = a.len < b.len ? a.len : b.len;

	for (size_t i = 0; i < shorter; i++) {
		int x = a.at[i] >= 'A' && a.at[i] <= 'Z' ?
		    a.at[i] + 32 : a.at[i];
		int y = b.at[i] >= 'A' && b.at[i] <= 'Z' ?
		    b.at[i] + 32 : b.at[i];
		if (x != y)
			return x - y;
	}
	return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

static uint64_t
pairs_hash(const struct vars_pair *pair, unsigned count)
{
	uint64_t hash = count;

	for (unsigned i = 0; i < count; i++)
		hash = hash * 31 + span_hash_case(pair[i].name) * 7 +
		    span_hash(pair[i].value);
	return hash;
}

static bool
pairs_equal(const struct vars *vars, const struct vars_pair *pair,
    unsigned count)
{
	if (vars->count != count)
		return false;
	for (unsigned i = 0; i < count; i++)
		if (name_compare(vars->pair[i].name, pair[i].name) != 0 ||
		    !span_eq(vars->pair[i].value, pair[i].value))
			return false;
	return true;
}

uint64_t
vars_scope(const struct vars *vars)
{
	return vars->scope;
}

uint64_t
vars_reading(const struct vars *vars)
{
	return vars->reading;
}

/* A hash of those of the parameters, "a b c", that are in the set. */
static uint64_t
hash_of(const struct vars *vars, const char *names)
{
	struct span rest = span_of(names), name;
	uint64_t hash = 0;

	for (uint64_t i = 0; span_next(&rest, ' ', &name); i++) {
		struct span value = vars_get(vars, name);
		if (value.at != NULL)
			hash = hash * 31 + span_hash(value) + i;
	}
	return hash;
}

static uint64_t
find_scope(const struct vars *vars)
{
	return hash_of(vars, "search_path role session_authorization");
}

static uint64_t
find_reading(const struct vars *vars)
{
	return hash_of(vars, "client_encoding datestyle intervalstyle timezone "
	    "timezone_abbreviations standard_conforming_strings array_nulls "
	    "lc_monetary lc_numeric transform_null_equals xmloption");
}

static struct vars *
vars_build(const struct vars_pair *pair, unsigned count)
{
	size_t head = sizeof(struct vars) + count * sizeof(*pair);
	size_t text = 0;

	for (unsigned i = 0; i < count; i++)
		text += pair[i].name.len + pair[i].value.len;

	struct vars *vars = mem_zalloc(head + text);
	if (vars == NULL)
		return NULL;

	char *at = (char *)vars + head;
	vars->refs = 1;
	vars->count = count;
	for (unsigned i = 0; i < count; i++) {
		const struct span from[2] = { pair[i].name, pair[i].value };
		struct span to[2];
		for (int k = 0; k < 2; k++) {
			memcpy(at, from[k].at, from[k].len);
			to[k] = (struct span){ at, from[k].len };
			at += from[k].len;
		}
		vars->pair[i] = (struct vars_pair){ to[0], to[1] };
	}
	vars->scope = find_scope(vars);
	vars->reading = find_reading(vars);
	return vars;
}

/* The one set with these pairs, +1 reference. */
static struct vars *
vars_intern(const struct vars_pair *pair, unsigned count)
{
	uint64_t hash = pairs_hash(pair, count);
	struct vars *vars = NULL;

	pthread_mutex_lock(&interned.lock);
	for (struct hash_node *node = hash_find(&interned.sets, hash);
	    node != NULL; node = hash_next_equal(node)) {
		struct vars *have = container_of(node, struct vars, by_content);
		if (pairs_equal(have, pair, count)) {
			have->refs++;
			vars = have;
			break;
		}
	}
	if (vars == NULL) {
		vars = vars_build(pair, count);
		if (vars != NULL &&
		    !hash_add(&interned.sets, &vars->by_content, hash)) {
			mem_free(vars);
			vars = NULL;
		}
	}
	pthread_mutex_unlock(&interned.lock);
	return vars;
}

struct vars *
vars_none(void)
{
	return vars_intern(NULL, 0);
}

struct vars *
vars_ref(struct vars *vars)
{
	vars->refs++;
	return vars;
}

void
vars_unref(struct vars *vars)
{
	if (vars == NULL)
		return;

	/* Not the last one: no lock. The last one goes under the lock, where
	 * nobody can find the set and take a reference meanwhile. */
	unsigned refs = vars->refs;
	while (refs > 1)
		if (atomic_compare_exchange_weak(&vars->refs, &refs, refs - 1))
			return;
	pthread_mutex_lock(&interned.lock);
	if (--vars->refs == 0) {
		hash_remove(&interned.sets, &vars->by_content);
		mem_free(vars);
	}
	pthread_mutex_unlock(&interned.lock);
}

/* Where `name` is, or where it would stand. */
static unsigned
vars_find(const struct vars *vars, struct span name, bool *ret_found)
{
	unsigned at = 0;
	int order = 1;

	while (at < vars->count &&
	    (order = name_compare(vars->pair[at].name, name)) < 0)
		at++;
	*ret_found = at < vars->count && order == 0;
	return at;
}

struct vars *
vars_with(struct vars *vars, struct span name, struct span value)
{
	bool found;
	unsigned at = vars_find(vars, name, &found);

	if (found ? value.at != NULL && span_eq(vars->pair[at].value, value) :
	    value.at == NULL)
		return vars;

	struct vars_pair *pair =
	    mem_alloc((vars->count + 1) * sizeof(*pair));
	unsigned count = 0;
	if (pair == NULL)
		return NULL;
	for (unsigned i = 0; i < at; i++)
		pair[count++] = vars->pair[i];
	if (value.at != NULL)
		pair[count++] = (struct vars_pair){
		    found ? vars->pair[at].name : name, value };
	for (unsigned i = at + found; i < vars->count; i++)
		pair[count++] = vars->pair[i];

	struct vars *changed = vars_intern(pair, count);
	mem_free(pair);
	if (changed != NULL)
		vars_unref(vars);
	return changed;
}

struct span
vars_get(const struct vars *vars, struct span name)
{
	bool found;
	unsigned at = vars_find(vars, name, &found);

	return found ? vars->pair[at].value : SPAN_NONE;
}

unsigned
vars_count(const struct vars *vars)
{
	return vars->count;
}

void
vars_at(const struct vars *vars, unsigned i, struct span *ret_name,
    struct span *ret_value)
{
	check(i < vars->count);
	*ret_name = vars->pair[i].name;
	*ret_value = vars->pair[i].value;
}

static void
add_quoted(struct buf *out, struct span text, char quote)
{
	buf_add(out, &quote, 1);
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] == quote)
			buf_add(out, &quote, 1);
		buf_add(out, text.at + i, 1);
	}
	buf_add(out, &quote, 1);
}

/* A literal that means the same whatever standard_conforming_strings says:
 * with a backslash in it, an E'' string. */
static void
add_literal(struct buf *out, struct span text)
{
	if (memchr(text.at, '\\', text.len) == NULL) {
		add_quoted(out, text, '\'');
		return;
	}
	buf_add_text(out, " E'");
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] == '\'' || text.at[i] == '\\')
			buf_add(out, text.at + i, 1);
		buf_add(out, text.at + i, 1);
	}
	buf_add_text(out, "'");
}

/* A name may be qualified (app.user): each part is quoted by itself. */
static void
add_name(struct buf *out, struct span name)
{
	struct span part;
	const char *sep = "";

	while (span_next(&name, '.', &part)) {
		buf_add_text(out, sep);
		add_quoted(out, part, '"');
		sep = ".";
	}
}

/* Parameters whose value is a list take the words, each quoted by itself;
 * as one quoted text they would be a single, strange name. */
static bool
is_list(struct span name)
{
	static const char *const lists[] = {
		"search_path", "datestyle", "temp_tablespaces",
		"session_preload_libraries", "local_preload_libraries",
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (span_is_case(name, lists[i]))
			return true;
	return false;
}

/* Can SET name it? Else set_config() says what is wrong with it. */
static bool
is_word(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!((name.at[i] | 0x20) >= 'a' && (name.at[i] | 0x20) <=
		    'z') && name.at[i] != '_' && (i == 0 ||
		    !(name.at[i] >= '0' && name.at[i] <= '9')))
			return false;
	return name.len > 0;
}

static bool
is_settable(struct span name)
{
	struct span part;

	if (name.len == 0 || name.at[name.len - 1] == '.')
		return false;
	while (span_next(&name, '.', &part))
		if (!is_word(part))
			return false;
	return true;
}

static void
add_set(struct buf *out, struct span name, struct span value)
{
	if (is_list(name) || !is_settable(name)) {
		/* set_config() takes the text as a configuration file has
		 * it: quotes and commas inside keep their meaning. */
		buf_add_text(out, "SELECT pg_catalog.set_config(");
		add_literal(out, name);
		buf_add_text(out, ",");
		add_literal(out, value);
		buf_add_text(out, ",false);");
		return;
	}
	buf_add_text(out, "SET ");
	add_name(out, name);
	buf_add_text(out, " TO ");
	add_literal(out, value);
	buf_add_text(out, ";");
}

/* Who the session acts as decides what else it may set: that is left first
 * and taken last. */
static bool
is_identity(struct span name)
{
	return span_is_case(name, "role") ||
	    span_is_case(name, "session_authorization");
}

static void
leave_identity(const struct vars *have, struct buf *out)
{
	if (vars_get(have, SPAN("role")).at != NULL)
		buf_add_text(out, "RESET role;");
	if (vars_get(have, SPAN("session_authorization")).at != NULL)
		buf_add_text(out, "RESET session_authorization;");
}

static void
take_identity(const struct vars *want, struct buf *out)
{
	struct span user = vars_get(want, SPAN("session_authorization"));
	struct span role = vars_get(want, SPAN("role"));

	if (user.at != NULL)
		add_set(out, SPAN("session_authorization"), user);
	if (role.at != NULL)
		add_set(out, SPAN("role"), role);
}

void
vars_diff(const struct vars *have, const struct vars *want, struct buf *out)
{
	unsigned h = 0, w = 0;

	if (have == want)
		return;
	leave_identity(have, out);
	while (h < have->count || w < want->count) {
		int order = h == have->count ? 1 : w == want->count ? -1 :
		    name_compare(have->pair[h].name, want->pair[w].name);

		if (is_identity(order <= 0 ? have->pair[h].name :
		    want->pair[w].name)) {
			/* around all others */
		} else if (order < 0) {
			buf_add_text(out, "RESET ");
			add_name(out, have->pair[h].name);
			buf_add_text(out, ";");
		} else if (order > 0 || !span_eq(have->pair[h].value,
		    want->pair[w].value)) {
			add_set(out, want->pair[w].name, want->pair[w].value);
		}
		h += order <= 0;
		w += order >= 0;
	}
	take_identity(want, out);
}
