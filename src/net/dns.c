/*
 * Names to addresses.
 *
 * What needs no look-up (an address, a unix socket, a name that is cached) is
 * answered at once. Everything else is getaddrinfo() on a helper thread: it
 * reads files, talks to name servers and may take half a minute.
 *
 *   dns_resolve -- literal, cached ------------------> true, answer is there
 *        |
 *        +-- name is being looked up already --.
 *        |                                     v
 *        +-- look-up starts --> entry.waiters: all who asked
 *                                    |   helper thread: getaddrinfo
 *                                    +-- answer into the cache, then mail to
 *                                        each waiter's own loop --> done()
 *
 * The cache is the process's, behind one mutex that is never held over a
 * system call. An entry keeps the last good answer for as long as it lives: a
 * name server that is down must not take down what was running. Entries are
 * never dropped; names come from the configuration, so there are few.
 */
#include "net/dns.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/span.h"

struct entry {
	struct hash_node by_name;
	char *host;
	struct dns_answer answer;	/* port 0; the last good one, if any */
	uint64_t expires_us;		/* of clock_now_us() */
	bool is_pending;		/* a look-up is under way */
	bool is_known;			/* answer says something */
	struct loop_mail *waiters;	/* jobs' mails of dns_requests */
};

/* A look-up on its way; outlives nothing and is owned by nobody else. */
struct lookup {
	struct loop_job job;
	struct entry *entry;
};

MEM_TYPE(entry_type, entry);
MEM_TYPE(lookup_type, lookup);

static struct {
	pthread_mutex_t lock;
	struct hash entries;
	unsigned pending;
	uint64_t max_ttl_us, failed_ttl_us;
	char unix_dir[108];
} dns = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.max_ttl_us = 15000000,
	.failed_ttl_us = 15000000,
	.unix_dir = "/tmp",
};

static void
answer_fail(struct dns_answer *answer, const char *why)
{
	answer->count = 0;
	snprintf(answer->why, sizeof(answer->why), "%s", why);
}

static void
answer_set_port(struct dns_answer *answer, unsigned port)
{
	for (unsigned i = 0; i < answer->count; i++) {
		union stream_address *address = &answer->address[i];

		if (address->any.sa_family == AF_INET)
			address->v4.sin_port = htons((uint16_t)port);
		else if (address->any.sa_family == AF_INET6)
			address->v6.sin6_port = htons((uint16_t)port);
	}
}

/*
 * Without a look-up
 */

/* Postgres's name for a socket in a directory. "@x" is the abstract socket
 * "@x/.s.PGSQL.5432", as libpq has it: the @ becomes a NUL. */
static void
resolve_unix(struct dns_answer *answer, const char *dir, unsigned port)
{
	struct sockaddr_un *local = &answer->address[0].local;
	int len;

	memset(local, 0, sizeof(*local));
	local->sun_family = AF_UNIX;
	len = snprintf(local->sun_path, sizeof(local->sun_path),
	    "%s/.s.PGSQL.%u", dir, port);
	if (len < 0 || (size_t)len >= sizeof(local->sun_path)) {
		answer_fail(answer, "the unix socket's path is too long");
		return;
	}
	answer->length[0] = (socklen_t)(offsetof(struct sockaddr_un,
	    sun_path) + (size_t)len + 1);
	if (dir[0] == '@') {
		local->sun_path[0] = '\0';
		answer->length[0]--;
	}
	answer->count = 1;
}

static bool
resolve_literal(struct dns_request *request)
{
	struct dns_answer *answer = &request->answer;
	union stream_address *address = &answer->address[0];
	char dir[sizeof(dns.unix_dir)];

	if (request->host[0] == '/' || request->host[0] == '@') {
		resolve_unix(answer, request->host, request->port);
		return true;
	}
	if (request->host[0] == '\0') {
		pthread_mutex_lock(&dns.lock);
		memcpy(dir, dns.unix_dir, sizeof(dir));
		pthread_mutex_unlock(&dns.lock);
		if (dir[0] == '\0')
			answer_fail(answer, "no host is given, and there is "
			    "no unix_socket_dir");
		else
			resolve_unix(answer, dir, request->port);
		return true;
	}
	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, request->host, &address->v4.sin_addr) == 1) {
		address->v4.sin_family = AF_INET;
		answer->length[0] = sizeof(address->v4);
	} else if (inet_pton(AF_INET6, request->host,
	    &address->v6.sin6_addr) == 1) {
		address->v6.sin6_family = AF_INET6;
		answer->length[0] = sizeof(address->v6);
	} else {
		return false;
	}
	answer->count = 1;
	answer_set_port(answer, request->port);
	return true;
}

/*
 * Looking up, on a helper thread
 */

static void
lookup_ask(const char *host, struct dns_answer *answer)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list, *info;
	int error;

	memset(answer, 0, sizeof(*answer));
	error = getaddrinfo(host, NULL, &hints, &list);
	if (error != 0) {
		answer_fail(answer, gai_strerror(error));
		return;
	}
	for (info = list; info != NULL && answer->count < DNS_ADDRESSES;
	    info = info->ai_next) {
		if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
			continue;
		memcpy(&answer->address[answer->count], info->ai_addr,
		    info->ai_addrlen);
		answer->length[answer->count] = info->ai_addrlen;
		answer->count++;
	}
	freeaddrinfo(list);
	if (answer->count == 0)
		answer_fail(answer, "the name has no address");
}

/* On the waiter's own thread. */
static void
request_read(struct loop *loop, struct loop_mail *mail)
{
	struct dns_request *request = container_of(mail, struct dns_request,
	    job.mail);

	(void)loop;
	request->done(request);
}

static void
lookup_work(struct loop_job *job)
{
	struct lookup *lookup = container_of(job, struct lookup, job);
	struct entry *entry = lookup->entry;
	struct loop_mail *waiters, *next;
	struct dns_answer fresh, answer;

	lookup_ask(entry->host, &fresh);
	pthread_mutex_lock(&dns.lock);
	if (fresh.count > 0 || entry->answer.count == 0)
		entry->answer = fresh;
	answer = entry->answer;
	entry->is_known = true;
	entry->expires_us = clock_now_us() + (fresh.count > 0 ?
	    dns.max_ttl_us : dns.failed_ttl_us);
	entry->is_pending = false;
	dns.pending--;
	waiters = entry->waiters;
	entry->waiters = NULL;
	pthread_mutex_unlock(&dns.lock);

	for (; waiters != NULL; waiters = next) {
		struct dns_request *request = container_of(waiters,
		    struct dns_request, job.mail);

		next = waiters->next;
		request->answer = answer;
		answer_set_port(&request->answer, request->port);
		/* From here on the request is its loop's again. */
		loop_post(request->job.loop, &request->job.mail);
	}
}

static void
lookup_done(struct loop_job *job)
{
	mem_delete(&lookup_type, container_of(job, struct lookup, job));
}

/*
 * The cache; these are called with the lock held.
 */

static struct entry *
entry_find(struct span host)
{
	struct hash_node *node = hash_find(&dns.entries,
	    span_hash_case(host));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct entry *entry = container_of(node, struct entry,
		    by_name);

		if (span_is_case(host, entry->host))
			return entry;
	}
	return NULL;
}

static struct entry *
entry_add(struct span host)
{
	struct entry *entry = mem_new(&entry_type);

	if (entry == NULL)
		return NULL;
	entry->host = mem_strndup(host.at, host.len);
	if (entry->host != NULL && hash_add(&dns.entries, &entry->by_name,
	    span_hash_case(host)))
		return entry;
	mem_free(entry->host);
	mem_delete(&entry_type, entry);
	return NULL;
}

enum found { FOUND, WAITS, STARTS, NO_MEMORY };

static enum found
cache_ask(struct loop *loop, struct dns_request *request,
    struct lookup *lookup)
{
	struct span host = span_of(request->host);
	struct entry *entry = entry_find(host);

	if (entry == NULL)
		entry = entry_add(host);
	if (entry == NULL)
		return NO_MEMORY;
	if (entry->is_known && clock_now_us() < entry->expires_us) {
		request->answer = entry->answer;
		return FOUND;
	}
	if (!entry->is_pending && lookup == NULL)
		return NO_MEMORY;
	request->job.loop = loop;
	request->job.mail.read = request_read;
	request->job.mail.next = entry->waiters;
	entry->waiters = &request->job.mail;
	if (entry->is_pending)
		return WAITS;
	entry->is_pending = true;
	dns.pending++;
	lookup->entry = entry;
	return STARTS;
}

bool
dns_resolve(struct loop *loop, struct dns_request *request, const char *host,
    unsigned port)
{
	struct lookup *lookup;
	enum found found;
	int len;

	memset(&request->answer, 0, sizeof(request->answer));
	request->port = port;
	len = snprintf(request->host, sizeof(request->host), "%s", host);
	if (len < 0 || (size_t)len >= sizeof(request->host)) {
		answer_fail(&request->answer, "the name is too long");
		return true;
	}
	if (resolve_literal(request))
		return true;

	lookup = mem_new(&lookup_type);
	pthread_mutex_lock(&dns.lock);
	found = cache_ask(loop, request, lookup);
	pthread_mutex_unlock(&dns.lock);
	if (found == STARTS) {
		lookup->job.work = lookup_work;
		lookup->job.done = lookup_done;
		loop_job_start(loop, &lookup->job);
		return false;
	}
	mem_delete(&lookup_type, lookup);
	if (found == FOUND)
		answer_set_port(&request->answer, port);
	if (found == NO_MEMORY)
		answer_fail(&request->answer, "out of memory");
	return found != WAITS;
}

void
dns_configure(uint64_t max_ttl_us, uint64_t failed_ttl_us,
    const char *default_unix_dir)
{
	pthread_mutex_lock(&dns.lock);
	dns.max_ttl_us = max_ttl_us;
	dns.failed_ttl_us = failed_ttl_us;
	snprintf(dns.unix_dir, sizeof(dns.unix_dir), "%s", default_unix_dir);
	pthread_mutex_unlock(&dns.lock);
}

void
dns_each(void (*each)(void *arg, const char *host, int64_t ttl_us,
    const struct dns_answer *answer), void *arg)
{
	uint64_t now_us = clock_now_us();
	struct hash_node *node = NULL;

	pthread_mutex_lock(&dns.lock);
	while ((node = hash_walk(&dns.entries, node)) != NULL) {
		struct entry *entry = container_of(node, struct entry,
		    by_name);

		if (entry->is_known)
			each(arg, entry->host, (int64_t)entry->expires_us -
			    (int64_t)now_us, &entry->answer);
	}
	pthread_mutex_unlock(&dns.lock);
}

void
dns_counts(unsigned *ret_names, unsigned *ret_pending)
{
	pthread_mutex_lock(&dns.lock);
	*ret_names = (unsigned)dns.entries.count;
	*ret_pending = dns.pending;
	pthread_mutex_unlock(&dns.lock);
}

void
dns_clear(void)
{
	struct hash_node *node;

	pthread_mutex_lock(&dns.lock);
	check(dns.pending == 0);
	while ((node = hash_walk(&dns.entries, NULL)) != NULL) {
		struct entry *entry = container_of(node, struct entry,
		    by_name);

		hash_remove(&dns.entries, node);
		mem_free(entry->host);
		mem_delete(&entry_type, entry);
	}
	hash_finish(&dns.entries);
	pthread_mutex_unlock(&dns.lock);
}
