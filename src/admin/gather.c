/*
 * Gathering.
 *
 * Sessions belong to workers, and only a session's worker may look at it. So
 * whoever wants to know something of all of them, or have something done to
 * them, sends itself round:
 *
 *   console's worker          worker 0   worker 1   worker 2
 *        gather_start -mail->    visit      visit      visit
 *                                  |          |          |   the last one
 *        done  <------------------mail-------------------+   through
 *
 * Each part has its own buffer, so nothing is shared and nothing locked. The
 * mails are members of the gather: once it is made, nothing can fail any more
 * that would leave the console waiting. Mailboxes keep their order, so a
 * gather that does nothing proves that what was mailed to the workers before
 * it has arrived at all of them (config.c).
 */
#include "admin/gather.h"

#include "base/check.h"
#include "base/mem.h"
#include "session/client.h"
#include "session/worker.h"

void
gather_destroy(struct gather *gather)
{
	if (gather == NULL)
		return;
	for (unsigned i = 0; i < gather->part_count; i++)
		buf_finish(&gather->part[i].out);
	mem_free(gather);
}

static void
gather_back(struct loop *loop, struct loop_mail *mail)
{
	struct gather *gather = container_of(mail, struct gather, back);
	struct client *client = worker_find_client(
	    process.worker[gather->asker], gather->client);

	(void)loop;
	if (client != NULL && client->state != CLIENT_CONSOLE)
		client = NULL;
	gather->done(client, gather);
	gather_destroy(gather);
}

static void
gather_read(struct loop *loop, struct loop_mail *mail)
{
	struct gather_part *part =
	    container_of(mail, struct gather_part, mail);
	struct gather *gather = part->gather;

	(void)loop;
	gather->visit(process.worker[part->worker], part);
	if (--gather->left > 0)
		return;
	gather->back.read = gather_back;
	loop_post(process.worker[gather->asker]->loop, &gather->back);
}

struct gather *
gather_create(struct client *client)
{
	unsigned count = process.worker_count;
	struct gather *gather = mem_zalloc(sizeof(*gather) +
	    count * sizeof(gather->part[0]));

	if (gather == NULL)
		return NULL;
	stream_pause(&client->s, PAUSE_ANSWER);
	gather->asker = client->worker->index;
	gather->client = client->id;
	gather->left = count;
	gather->part_count = count;
	for (unsigned i = 0; i < count; i++) {
		gather->part[i].gather = gather;
		gather->part[i].worker = i;
		gather->part[i].mail.read = gather_read;
	}
	return gather;
}

void
gather_start(struct gather *gather)
{
	/* The last part to be read may end the gather before this returns:
	 * the count is not to be read from it. */
	unsigned count = gather->part_count;

	check(gather->visit != NULL && gather->done != NULL);
	for (unsigned i = 0; i < count; i++)
		loop_post(process.worker[i]->loop, &gather->part[i].mail);
}

uint64_t
gather_sum(const struct gather *gather)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < gather->part_count; i++)
		sum += gather->part[i].count;
	return sum;
}

bool
gather_has_failed(const struct gather *gather)
{
	for (unsigned i = 0; i < gather->part_count; i++)
		if (gather->part[i].out.failed)
			return true;
	return false;
}
