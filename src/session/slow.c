/*
 * Slow queries.
 *
 * What a client waits for has two parts, and what to do about them differs:
 *
 *   request            server lent                    ReadyForQuery
 *      |------- wait -------|----------- server -----------|
 *        pool too small,       slow statement, locks, or a
 *        transactions long     client that reads slowly
 *
 * Only the first query of a link can have waited. One that is pipelined
 * begins, for its server, when the one before it has ended.
 *
 * By then a query's text is long gone: it was passed on as it came. So where
 * the operator wants to read it (log_statement_text) a copy goes with what is
 * owed for it (owed_entry.sql); nobody else pays for that.
 */
#include "session/slow.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "session/client.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"

/* Bytes of a text that a line shows; escaped they still fit in one. */
#define SLOW_TEXT_MAX 1000

static char *
slow_copy(struct span sql)
{
	static const char more[] = "...";
	size_t len = sql.len;
	char *copy;

	if (len <= SLOW_TEXT_MAX)
		return mem_strndup(sql.at, len);
	/* Not in the middle of a character. */
	for (len = SLOW_TEXT_MAX; len > SLOW_TEXT_MAX - 4 &&
	    ((unsigned char)sql.at[len] & 0xc0) == 0x80; len--)
		continue;
	copy = mem_alloc(len + sizeof(more));
	if (copy != NULL) {
		memcpy(copy, sql.at, len);
		memcpy(copy + len, more, sizeof(more));
	}
	return copy;
}

void
slow_keep_text(struct client *client, struct span sql)
{
	const struct conf_options *o = &client->worker->setup->conf->o;
	struct owed *owed = &client->server->owed;

	if (o->log_min_duration_us > 0 && o->log_statement_text &&
	    owed->sql == NULL)
		owed->sql = slow_copy(sql);
}

void
slow_log_query(struct client *client, uint64_t wait_us, uint64_t server_us,
    const char *sql)
{
	char prefix[512];

	stat_add(&client->pool->shard[client->worker->index].stat,
	    STAT_slow_query_count, 1);
	log_line(LOG_LEVEL_LOG, client_prefix(client, prefix, sizeof(prefix)),
	    "slow query: %.3f ms (wait %.3f ms, server %.3f ms)%s%s",
	    (double)(wait_us + server_us) / 1e3, (double)wait_us / 1e3,
	    (double)server_us / 1e3, sql != NULL ? ": " : "",
	    sql != NULL ? sql : "");
}
