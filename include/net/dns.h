/* Names to addresses, off the loop, with a TTL cache for the process. */
#ifndef NET_DNS_H
#define NET_DNS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/loop.h"
#include "net/stream.h"

#define DNS_ADDRESSES 8

struct dns_answer {
	unsigned count;			/* 0 = failed, `why` says it */
	union stream_address address[DNS_ADDRESSES];
	socklen_t length[DNS_ADDRESSES];
	char why[128];
};

struct dns_request {
	struct loop_job job;		/* private */
	char host[256];
	unsigned port;
	struct dns_answer answer;
	void (*done)(struct dns_request *request);
};

/*
 * Resolves host (a name, an address, "/dir" or "@abstract" for a unix
 * socket, "" = the default unix directory) and port. True: the answer is in
 * request->answer already (literal or cached). False: `done` follows on the
 * loop's thread; the request must live until then.
 * A failure keeps the last good answer in use; failures are cached too.
 */
bool dns_resolve(struct loop *loop, struct dns_request *request,
    const char *host, unsigned port);
void dns_configure(uint64_t max_ttl_us, uint64_t failed_ttl_us,
    const char *default_unix_dir);
/* Each cached name, for SHOW DNS_HOSTS; ttl_us is what is left of it. `each`
 * runs under the cache's lock: it must not ask for anything here. */
void dns_each(void (*each)(void *arg, const char *host, int64_t ttl_us,
    const struct dns_answer *answer), void *arg);
void dns_counts(unsigned *ret_names, unsigned *ret_pending);
/* Forgets everything: tests, and a clean exit. Nothing may be pending. */
void dns_clear(void);

#endif
