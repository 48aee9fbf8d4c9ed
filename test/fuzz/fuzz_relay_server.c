/*
 * Anything from a server, while a client waits for the replies to a pipeline;
 * or while nobody has asked anything, or the pooler itself has. Whatever it
 * is, the client gets whole messages, debts are counted right, and a server
 * that makes no sense costs its own connection only.
 *
 * Input: see relay.h. The first byte is the pool's mode, the size of the
 * pieces, and whether the client has a parameter of its own; the second is
 * what the client asks first, and so is the byte of a RECORD_OTHER.
 */
#include "relay.h"

static const char *const asked[] = {
	"",
	"P s1:SELECT 1; B s1; D @; E; S",
	"P :SELECT 1; B; D; E; S; P :SELECT 2; B; E; S",
	"Q SELECT 1; Q SELECT 2; F; Q COMMIT",
	"P s1:SELECT 1; C s1; P s1:SELECT 1; B s1; S; B s1; E; S",
	"P s1:a; P s2:b; P s3:c; P s4:d; P s5:e; B s1; B s2; S",
	"Q COPY t FROM STDIN; d one; S; c; S; Q SELECT 1",
	"P :COPY t FROM STDIN; B; E; d one; S; c; S",
	"P :COPY t FROM STDIN; B; E; P s1:SELECT 1; S; S",
	"P :DEALLOCATE ALL; B; D @; E; S; Q DEALLOCATE ALL; B s1; S",
	"Q DISCARD ALL; P s1:SELECT 1; B s1; S",
	"P :SELECT 1; B; E; H",
	"X",
	"S",
	"Q BEGIN",
	"E; C s1; P s1:SELECT 2; B; S; E; S",
};

#define ASKED (sizeof(asked) / sizeof(asked[0]))

/* Half a message is with the client when its server was lost in the middle:
 * then it has been let go of without another word. */
static void
settled(void)
{
	const struct client *client = rig_client();
	const struct server *server = rig_server();

	check_rest();
	check_whole(&rig.server, TYPES_TO_SERVER, NULL);
	if (rig.client.deaf)
		return;
	check_whole(&rig.client, TYPES_TO_CLIENT, NULL);
	if (rig.client.got.len > 0 && client != NULL &&
	    client->state != CLIENT_CLOSING && !stream_is_blocked(&client->s))
		check(server != NULL && server->client == client &&
		    server->relay.left > 0);
}

static void
log_in(const char *database, const char *time_zone)
{
	rig_log_in("me", database, time_zone);
	check_whole(&rig.client, "ERSKZ", NULL);
}

/* A client that has gone is replaced. */
static void
ask(unsigned number)
{
	if (rig.client.ended)
		log_in("transaction", NULL);
	if (rig.client.fd == -1 || rig.client.ended)
		return;
	buf_clear(&rig.script);
	compose(&rig.script, asked[number % ASKED], compose_request);
	far_write(&rig.client, rig.script.at, rig.script.len);
	rig_settle();
	settled();
}

/* False: the pooler takes no more. */
static bool
play(const struct record *record, size_t piece)
{
	static struct buf bytes;

	switch (record->type) {
	case RECORD_OTHER:
		if (record->body.len > 0)
			ask((uint8_t)record->body.at[0]);
		break;
	case RECORD_HANG_UP:
		far_close(&rig.server);
		rig_settle();
		settled();
		break;
	case RECORD_DEAF:
		rig.client.deaf = !rig.client.deaf;
		rig_settle();
		settled();
		break;
	default:
		record_compose(record, &bytes);
		return send_in_pieces(&rig.server, &bytes, piece, settled);
	}
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const modes[] = {
		"transaction", "session", "statement", "asking",
	};
	uint64_t began = fuzz_cpu_ms();
	struct span rest;
	struct record record;
	bool goes_on = true;

	if (len < 2)
		return 0;
	if (rig.worker == NULL)
		rig_start("max_prepared_statements = 3\n"
		    "server_check_delay = 0\n");
	rest = (struct span){ (const char *)data + 2, len - 2 };
	log_in(modes[data[0] & 3], (data[0] & 4) != 0 ? "Asia/Tokyo" : NULL);
	ask(data[1]);
	while (goes_on && record_next(&rest, &record))
		goes_on = play(&record, (size_t)1 + (data[0] >> 3) * 3u);
	rig.client.deaf = false;
	rig_settle();
	settled();
	check_end();
	rig_clear();
	fuzz_check_time(began);
	return 0;
}
