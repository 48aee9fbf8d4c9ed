/*
 * Users and their secrets, from two sources.
 *
 * The auth_file, in PgBouncer's dialect:
 *
 *	; a comment
 *	"name" "secret"  what follows is not looked at
 *
 * A quote inside of quotes is written twice. A name that comes again replaces
 * the one before. The table is built once and never changed afterwards, so
 * any thread reads it without a lock; a reload builds another one.
 *
 * And the answers to auth_query, cached for the process. PgBouncer asks at
 * every login, which for an app whose instances live for a second means an
 * extra query a login; here an answer is good for half a minute. That is the
 * longest that a changed password keeps the old one alive, and a new one is
 * not refused even so long: a login that fails with a cached answer may have
 * it asked for again (users_cache_refresh), at most once in two seconds for a
 * user, or guesses would become queries. "No such user" is forgotten sooner,
 * for whoever has just created one tries it at once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "auth/lines.h"
#include "auth/users.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"

#define USERS_MAGIC 0x05e25a01u
#define USERS_FILE_MAX (256u * 1024 * 1024)	/* bytes */
#define NAME_MAX_BYTES 127		/* Postgres's own limit is 63 */

#define CACHE_KNOWN_US 30000000u
#define CACHE_UNKNOWN_US 5000000u
#define CACHE_REFRESH_US 2000000u
#define CACHE_MAX 16384			/* entries; least used goes */

struct user {
	struct hash_node node;		/* in users.by_name */
	struct list order;		/* in users.all */
	char *name;
	struct secret secret;
};

struct users {
	uint32_t magic;
	atomic_uint refs;
	struct hash by_name;
	struct list all;		/* as they stand in the file */
};

MEM_TYPE(user_mem, user);
MEM_TYPE(users_mem, users);

struct users *
users_create(void)
{
	struct users *users = mem_new(&users_mem);

	if (users == NULL)
		return NULL;
	users->magic = USERS_MAGIC;
	atomic_init(&users->refs, 1);
	list_init(&users->all);
	return users;
}

struct users *
users_ref(struct users *users)
{
	check_magic(users, USERS_MAGIC);
	atomic_fetch_add(&users->refs, 1);
	return users;
}

static void
user_destroy(struct user *user)
{
	secret_finish(&user->secret);
	mem_free(user->name);
	mem_delete(&user_mem, user);
}

void
users_unref(struct users *users)
{
	struct list *node;

	if (users == NULL)
		return;
	check_magic(users, USERS_MAGIC);
	if (atomic_fetch_sub(&users->refs, 1) != 1)
		return;
	while ((node = list_pop(&users->all)) != NULL)
		user_destroy(container_of(node, struct user, order));
	hash_finish(&users->by_name);
	mem_delete(&users_mem, users);
}

static struct user *
users_seek(const struct users *users, struct span name)
{
	struct hash_node *node = hash_find(&users->by_name, span_hash(name));
	struct user *user;

	for (; node != NULL; node = hash_next_equal(node)) {
		user = container_of(node, struct user, node);
		if (span_is(name, user->name))
			return user;
	}
	return NULL;
}

/* Takes the secret over; wiped when there is no memory. */
static bool
users_put(struct users *users, struct span name, struct secret *secret)
{
	struct user *user = users_seek(users, name);

	if (user != NULL) {
		secret_finish(&user->secret);
		user->secret = *secret;
		return true;
	}
	user = mem_new(&user_mem);
	if (user == NULL) {
		secret_finish(secret);
		return false;
	}
	user->secret = *secret;
	user->name = mem_strndup(name.at, name.len);
	if (user->name == NULL ||
	    !hash_add(&users->by_name, &user->node, span_hash(name))) {
		user_destroy(user);
		return false;
	}
	list_append(&users->all, &user->order);
	return true;
}

/* A NUL would end it early, and make it somebody else's. */
static bool
name_is_good(struct span name)
{
	return name.len != 0 && name.len <= NAME_MAX_BYTES &&
	    memchr(name.at, '\0', name.len) == NULL;
}

bool
users_add(struct users *users, struct span name, struct span secret)
{
	struct secret parsed;

	check_magic(users, USERS_MAGIC);
	check(atomic_load(&users->refs) == 1);
	return name_is_good(name) && secret_parse(secret, &parsed) &&
	    users_put(users, name, &parsed);
}

const struct secret *
users_find(const struct users *users, struct span name)
{
	const struct user *user;

	check_magic(users, USERS_MAGIC);
	user = users_seek(users, name);
	return user != NULL ? &user->secret : NULL;
}

unsigned
users_count(const struct users *users)
{
	check_magic(users, USERS_MAGIC);
	return (unsigned)users->by_name.count;
}

void
users_each(const struct users *users,
    void (*each)(void *arg, struct span name), void *arg)
{
	const struct list *node;

	check_magic(users, USERS_MAGIC);
	for (node = users->all.next; node != &users->all; node = node->next)
		each(arg, span_of(
		    container_of(node, struct user, order)->name));
}

/* ---- the auth_file ---- */

static struct span
skip_blanks(struct span s)
{
	while (s.len > 0 && (s.at[0] == ' ' ||
	    (s.at[0] >= '\t' && s.at[0] <= '\r'))) {
		s.at++;
		s.len--;
	}
	return s;
}

/* Cuts "..." off *rest; its text is added to `ret`. */
static const char *
cut_quoted(struct span *rest, struct buf *ret, size_t max)
{
	size_t i;

	*rest = skip_blanks(*rest);
	if (rest->len == 0 || rest->at[0] != '"')
		return "a quote should stand here";
	for (i = 1; i < rest->len; i++) {
		if (rest->at[i] == '"') {
			i++;
			if (i == rest->len || rest->at[i] != '"') {
				rest->at += i;
				rest->len -= i;
				return ret->failed ? "out of memory" : NULL;
			}
		}
		if (ret->len == max)
			return "longer than it may be";
		buf_add(ret, rest->at + i, 1);
	}
	return "a quote is not closed";
}

/* One line; NULL or what is wrong with it. Both bufs are scratch. */
static const char *
users_read_line(struct users *users, struct span line, struct buf *name,
    struct buf *secret)
{
	struct secret parsed;
	const char *wrong;

	line = skip_blanks(line);
	if (line.len == 0 || line.at[0] == ';')
		return NULL;
	buf_clear(name);
	buf_clear(secret);
	if ((wrong = cut_quoted(&line, name, NAME_MAX_BYTES)) != NULL ||
	    (wrong = cut_quoted(&line, secret, SECRET_TEXT_MAX)) != NULL)
		return wrong;
	if (!name_is_good(buf_span(name)))
		return "the user's name is empty or holds a NUL byte";
	if (!secret_parse(buf_span(secret), &parsed))
		return "malformed secret";
	return users_put(users, buf_span(name), &parsed) ? NULL :
	    "out of memory";
}

static bool
users_read(struct users *users, struct span text, const char *file,
    struct buf *ret_why)
{
	struct buf name = { 0 }, secret = { 0 };
	const char *wrong, *end;
	unsigned line_number = 0;
	struct span line;
	bool good = true;

	/* All the room at once: growing would leave copies of secrets. */
	if (!buf_reserve(&name, NAME_MAX_BYTES) ||
	    !buf_reserve(&secret, SECRET_TEXT_MAX)) {
		lines_add_error(ret_why, file, 0, "out of memory");
		good = false;
	}
	while (good && text.len > 0) {
		line = text;
		end = memchr(text.at, '\n', text.len);
		if (end != NULL)
			line.len = (size_t)(end - text.at);
		text.at += line.len + (end != NULL);
		text.len -= line.len + (end != NULL);
		line_number++;
		wrong = users_read_line(users, line, &name, &secret);
		if (wrong != NULL)
			lines_add_error(ret_why, file, line_number, "%s",
			    wrong);
	}
	mem_wipe(secret.at, secret.cap);
	buf_finish(&secret);
	buf_finish(&name);
	return good && ret_why->len == 0;
}

struct users *
users_parse(struct span text, const char *file, struct buf *ret_why)
{
	struct users *users = users_create();
	struct buf why = { 0 };

	if (users == NULL)
		lines_add_error(&why, file, 0, "out of memory");
	else if (!users_read(users, text, file, &why)) {
		users_unref(users);
		users = NULL;
	}
	buf_add_span(ret_why, buf_span(&why));
	buf_finish(&why);
	return users;
}

struct users *
users_load(const char *path, bool any_mode, struct buf *ret_why)
{
	struct users *users = NULL;
	struct buf text = { 0 };
	mode_t mode;

	if (!lines_read_file(path, USERS_FILE_MAX, &text, &mode, ret_why))
		;
	else if (!any_mode && (mode & S_IROTH) != 0)
		lines_add_error(ret_why, path, 0, "may be read by everybody "
		    "on this machine; chmod o-r it");
	else
		users = users_parse(buf_span(&text), path, ret_why);
	mem_wipe(text.at, text.cap);
	buf_finish(&text);
	return users;
}

/* ---- cached answers ---- */

struct cached_user {
	struct hash_node node;		/* in cache.index */
	struct list line;		/* in cache.line */
	char *database, *user;
	bool is_known;			/* else: no such user */
	struct secret secret;
	uint64_t answered_us;
};

MEM_TYPE(cached_user_mem, cached_user);

static struct {
	pthread_mutex_t mutex;
	struct hash index;
	struct list line;		/* most recently used first */
} cache = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static uint64_t
cache_hash(struct span database, struct span user)
{
	return span_hash(database) * 31 + span_hash(user);
}

/* The mutex is held in these three. */
static struct cached_user *
cache_seek(struct span database, struct span user)
{
	struct hash_node *node;
	struct cached_user *entry;

	node = hash_find(&cache.index, cache_hash(database, user));
	for (; node != NULL; node = hash_next_equal(node)) {
		entry = container_of(node, struct cached_user, node);
		if (span_is(database, entry->database) &&
		    span_is(user, entry->user))
			return entry;
	}
	return NULL;
}

static void
cached_user_destroy(struct cached_user *entry)
{
	secret_finish(&entry->secret);
	mem_free(entry->database);
	mem_free(entry->user);
	mem_delete(&cached_user_mem, entry);
}

static void
cache_drop(struct cached_user *entry)
{
	hash_remove(&cache.index, &entry->node);
	list_remove(&entry->line);
	cached_user_destroy(entry);
}

static uint64_t
cached_user_age_us(const struct cached_user *entry)
{
	uint64_t now_us = clock_now_us();

	/* The answer may have come in between, on another thread. */
	return now_us > entry->answered_us ? now_us - entry->answered_us : 0;
}

bool
users_cached(struct span database, struct span user, struct secret *ret,
    bool *ret_known)
{
	struct cached_user *entry;
	bool found = false;

	pthread_mutex_lock(&cache.mutex);
	entry = cache_seek(database, user);
	if (entry != NULL && cached_user_age_us(entry) >=
	    (entry->is_known ? CACHE_KNOWN_US : CACHE_UNKNOWN_US)) {
		cache_drop(entry);
		entry = NULL;
	}
	if (entry != NULL && secret_copy(ret, &entry->secret)) {
		list_remove(&entry->line);
		list_push(&cache.line, &entry->line);
		*ret_known = entry->is_known;
		found = true;
	}
	pthread_mutex_unlock(&cache.mutex);
	return found;
}

/* No memory: nothing is cached, and the next login asks again. */
void
users_cache(struct span database, struct span user,
    const struct secret *secret_or_null)
{
	struct cached_user *entry = mem_new(&cached_user_mem), *old;

	if (entry == NULL)
		return;
	entry->is_known = secret_or_null != NULL;
	entry->answered_us = clock_now_us();
	entry->database = mem_strndup(database.at, database.len);
	entry->user = mem_strndup(user.at, user.len);
	if (entry->database == NULL || entry->user == NULL ||
	    (entry->is_known &&
	    !secret_copy(&entry->secret, secret_or_null))) {
		cached_user_destroy(entry);
		return;
	}
	pthread_mutex_lock(&cache.mutex);
	old = cache_seek(database, user);
	if (old == NULL && cache.index.count >= CACHE_MAX)
		old = container_of(cache.line.prev, struct cached_user, line);
	if (old != NULL)
		cache_drop(old);
	if (hash_add(&cache.index, &entry->node, cache_hash(database, user)))
		list_push(&cache.line, &entry->line);
	else
		cached_user_destroy(entry);
	pthread_mutex_unlock(&cache.mutex);
}

bool
users_cache_refresh(struct span database, struct span user)
{
	struct cached_user *entry;
	bool stale;

	pthread_mutex_lock(&cache.mutex);
	entry = cache_seek(database, user);
	stale = entry != NULL &&
	    cached_user_age_us(entry) >= CACHE_REFRESH_US;
	if (stale)
		cache_drop(entry);
	pthread_mutex_unlock(&cache.mutex);
	return stale;
}

void
users_cache_clear(void)
{
	struct list *node;

	pthread_mutex_lock(&cache.mutex);
	while ((node = list_first(&cache.line)) != NULL)
		cache_drop(container_of(node, struct cached_user, line));
	hash_finish(&cache.index);
	pthread_mutex_unlock(&cache.mutex);
}
