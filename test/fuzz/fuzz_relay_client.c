/*
 * Anything from a client that has logged in, and a server that answers as
 * Postgres would: a model of one, in this file. Its luck (errors, notices, how
 * late it answers) is drawn from the input.
 *
 * The model knows what has been prepared with it. A statement of ours that is
 * bound and is not there would be the pooler's mistake, whatever the client
 * did: that is what undoing names after errors, and waiting until a name is
 * certain, are for.
 *
 * Input: see relay.h. The first byte is the pool's mode, the size of the
 * pieces, and whether the client has a parameter of its own; the second seeds
 * the luck.
 */
#include "relay.h"

#include "base/span.h"

#define PREPARED_MAX 64

/* What a statement does, as far as the model cares. */
enum effect { PLAIN, BEGINS, ENDS, COPIES, SETS, RESETS, CLEARS, DISCARDS };

struct prepared {
	uint64_t id;			/* of PGSLUICE_id; 0 = free */
	enum effect effect;
};

static struct model {
	struct buf out;
	struct prepared prepared[PREPARED_MAX];
	unsigned login;			/* which server this is */
	uint32_t luck;
	bool late;			/* answers only when it is its turn */
	bool tracked;			/* names are the pooler's to keep */
	char status;
	bool skipping, copy_in, copy_extended;
	bool has_unnamed, ended;
	enum effect unnamed, bound;
} model;

static unsigned
dice(unsigned sides)
{
	model.luck = model.luck * 1664525u + 1013904223u;
	return (model.luck >> 16) % sides;
}

static enum effect
effect_of(struct span sql)
{
	static const struct {
		const char *prefix;
		enum effect effect;
	} effects[] = {
		{ "BEGIN", BEGINS }, { "COMMIT", ENDS }, { "ROLLBACK", ENDS },
		{ "COPY", COPIES }, { "SET", SETS }, { "RESET", RESETS },
		{ "DEALLOCATE ALL", CLEARS }, { "DISCARD ALL", DISCARDS },
	};

	for (size_t i = 0; i < sizeof(effects) / sizeof(effects[0]); i++)
		if (span_starts_case(sql, effects[i].prefix))
			return effects[i].effect;
	return PLAIN;
}

/* 0: not a name of ours. */
static uint64_t
id_of(struct span name)
{
	static const size_t prefix = sizeof(STMT_PREFIX) - 1;
	uint64_t id = 0;

	if (!span_starts_case(name, STMT_PREFIX) ||
	    !span_parse_u64((struct span){ name.at + prefix,
	    name.len - prefix }, &id))
		return 0;
	return id;
}

static struct prepared *
prepared_find(uint64_t id)
{
	for (size_t i = 0; i < PREPARED_MAX; i++)
		if (model.prepared[i].id == id)
			return &model.prepared[i];
	return NULL;
}

/*
 * Answers.
 */

static void
answer(const char *script)
{
	compose(&model.out, script, compose_reply);
}

static void
answer_ready(void)
{
	char script[] = "Z ?";

	script[2] = model.status;
	answer(script);
}

static void
answer_tag(enum effect effect)
{
	switch (effect) {
	case CLEARS:
		answer("C DEALLOCATE ALL");
		memset(model.prepared, 0, sizeof(model.prepared));
		model.has_unnamed = false;
		break;
	case DISCARDS:
		answer("S TimeZone=UTC; C DISCARD ALL");
		memset(model.prepared, 0, sizeof(model.prepared));
		model.has_unnamed = false;
		break;
	case SETS:
		answer("S TimeZone=Asia/Tokyo; C SET");
		break;
	case RESETS:
		answer("S TimeZone=UTC; C RESET");
		break;
	default:
		answer(dice(4) == 0 ? "D; D; C SELECT 2" : "C SELECT 0");
	}
	if (effect == BEGINS)
		model.status = 'T';
	if (effect == ENDS)
		model.status = 'I';
}

/* False: it failed. */
static bool
answer_luck(void)
{
	if (dice(16) == 0)
		answer("N 00000 hm");
	if (dice(32) == 0)
		answer("A news");
	return dice(8) != 0;
}

static void
answer_error(const char *script)
{
	answer(script);
	if (model.status == 'T')
		model.status = 'E';
	model.copy_in = false;
}

static void
fail_extended(const char *script)
{
	answer_error(script);
	model.skipping = true;
}

static void
fail_simple(const char *script)
{
	answer_error(script);
	answer_ready();
}

/*
 * Requests.
 */

static void
take_query(struct span sql)
{
	enum effect effect = effect_of(sql);

	model.has_unnamed = false;
	if (model.status == 'E' && effect != ENDS) {
		fail_simple("E 25P02 aborted");
	} else if (!answer_luck()) {
		fail_simple("E 42601 no");
	} else if (effect == COPIES) {
		answer("G");
		model.copy_in = true;
		model.copy_extended = false;
	} else {
		answer_tag(effect);
		answer_ready();
	}
}

static void
take_parse(struct span name, struct span sql)
{
	uint64_t id = id_of(name);
	struct prepared *room = id == 0 ? NULL : prepared_find(0);

	if (name.len == 0)
		model.has_unnamed = false;
	if (model.status == 'E' && effect_of(sql) != ENDS) {
		fail_extended("E 25P02 aborted");
	} else if (id != 0 && prepared_find(id) != NULL) {
		char script[128];
		snprintf(script, sizeof(script), "E 42P05 prepared statement "
		    "\"%.*s\" already exists", SPAN_ARG(name));
		fail_extended(script);
	} else if (!answer_luck()) {
		fail_extended("E 42601 no");
	} else {
		answer("1");
		if (room != NULL)
			*room = (struct prepared){ id, effect_of(sql) };
		if (name.len == 0) {
			model.unnamed = effect_of(sql);
			model.has_unnamed = true;
		}
	}
}

/* What a Bind or Describe names; false: nothing that is there. */
static bool
find_named(struct span name, enum effect *ret_effect)
{
	uint64_t id = id_of(name);
	struct prepared *prepared = id == 0 ? NULL : prepared_find(id);

	check(id == 0 || prepared != NULL || !model.tracked);
	*ret_effect = prepared != NULL ? prepared->effect :
	    name.len == 0 ? model.unnamed : PLAIN;
	return name.len > 0 || model.has_unnamed;
}

static void
take_bind(struct span name)
{
	enum effect effect;

	if (!find_named(name, &effect)) {
		fail_extended("E 26000 no such statement");
	} else if (model.status == 'E' && effect != ENDS) {
		fail_extended("E 25P02 aborted");
	} else if (!answer_luck()) {
		fail_extended("E 22P02 no");
	} else {
		answer("2");
		model.bound = effect;
	}
}

static void
take_describe(uint8_t what, struct span name)
{
	enum effect effect;

	if (what == 'S' && !find_named(name, &effect))
		fail_extended("E 26000 no such statement");
	else if (!answer_luck())
		fail_extended("E 34000 no");
	else
		answer(what == 'S' ? "t; n" : dice(2) == 0 ? "T" : "n");
}

static void
take_execute(void)
{
	if (!answer_luck()) {
		fail_extended("E 22012 no");
	} else if (model.bound == COPIES) {
		answer("G");
		model.copy_in = model.copy_extended = true;
	} else if (dice(8) == 0) {
		answer(dice(2) == 0 ? "I" : "D; s");
	} else {
		answer_tag(model.bound);
	}
}

static void
take_close(uint8_t what, struct span name)
{
	uint64_t id = id_of(name);
	struct prepared *prepared = id == 0 ? NULL : prepared_find(id);

	if (what == 'S' && prepared != NULL)
		*prepared = (struct prepared){ 0, PLAIN };
	if (what == 'S' && name.len == 0)
		model.has_unnamed = false;
	answer("3");
}

static void
take_sync(void)
{
	model.skipping = false;
	answer_ready();
}

/* While it reads COPY data; false: the message is one like others. */
static void
take_in_copy(uint8_t type)
{
	switch (type) {
	case 'H': case 'S': case 'd':
		return;
	case 'c':
		model.copy_in = false;
		answer("C COPY 1");
		if (!model.copy_extended)
			answer_ready();
		return;
	default:
		/* A request in the data of a simple query is eaten, and the
		 * next one is looked at: no rule of the protocol's makes a
		 * batch of them. What is prepared is anybody's guess then. */
		if (type != 'f' && !model.copy_extended)
			model.tracked = false;
		if (model.copy_extended)
			fail_extended("E 57014 no");
		else
			fail_simple("E 57014 no");
	}
}

static void
take(const struct frame *frame, struct span bytes)
{
	struct body body = body_of(bytes);
	struct span name;
	uint8_t what;

	check(!model.ended);
	if (frame->type == 'X') {
		model.ended = true;
		return;
	}
	if (model.copy_in) {
		take_in_copy(frame->type);
		return;
	}
	if (model.skipping && frame->type != 'S')
		return;
	switch (frame->type) {
	case 'Q':
		take_query(body_text(&body));
		break;
	case 'P':
		name = body_text(&body);
		take_parse(name, body_text(&body));
		break;
	case 'B':
		body_text(&body);
		take_bind(body_text(&body));
		break;
	case 'D': case 'C':
		what = body_u8(&body);
		if (frame->type == 'D')
			take_describe(what, body_text(&body));
		else
			take_close(what, body_text(&body));
		break;
	case 'E':
		take_execute();
		break;
	case 'F':
		answer(answer_luck() ? "V" : "E 42883 no");
		answer_ready();
		break;
	case 'S':
		take_sync();
		break;
	default:
		break;			/* COPY data that comes late; Flush */
	}
}

/*
 * Turns.
 */

static void
model_begin(void)
{
	const struct client *client = rig_client();
	struct model fresh = {
		.out = model.out, .luck = model.luck, .late = model.late,
		.tracked = client != NULL && client_tracks_statements(client),
		.login = rig.logins, .status = 'I',
	};

	model = fresh;
	/* What was said to the one before is not for this one. */
	buf_clear(&model.out);
}

/* Reads what has come and answers it, until nothing comes any more. */
static void
model_turn(void)
{
	for (;;) {
		if (model.login != rig.logins)
			model_begin();
		buf_clear(&model.out);
		check_whole(&rig.server, TYPES_TO_SERVER, take);
		if (model.out.len == 0 || rig.server.ended)
			return;
		far_write(&rig.server, model.out.at, model.out.len);
		rig_settle();
	}
}

static void
settled(void)
{
	check_rest();
	check_whole(&rig.client, TYPES_TO_CLIENT, NULL);
	if (!model.late)
		model_turn();
}

static void
play(const struct record *record, size_t piece)
{
	static struct buf bytes;

	switch (record->type) {
	case RECORD_OTHER:
		model_turn();
		if (record->body.len > 0)
			model.late = record->body.at[0] & 1;
		break;
	case RECORD_HANG_UP:
		far_close(&rig.client);
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
		send_in_pieces(&rig.client, &bytes, piece, settled);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const modes[] = {
		"transaction", "session", "statement", "transaction",
	};
	uint64_t began = fuzz_cpu_ms();
	struct span rest = { (const char *)data, len };
	struct record record;

	if (len < 2)
		return 0;
	if (rig.worker == NULL)
		rig_start("max_prepared_statements = 3\n"
		    "max_packet_size = 16384\n");
	rest = (struct span){ rest.at + 2, rest.len - 2 };
	model.luck = data[1];
	model.late = false;
	rig_log_in("me", modes[data[0] & 3], (data[0] & 4) != 0 ?
	    "Asia/Tokyo" : NULL);
	buf_clear(&rig.client.got);
	model_begin();
	while (record_next(&rest, &record))
		play(&record, (size_t)1 + (data[0] >> 3) * 3u);
	model.late = false;
	rig.client.deaf = false;
	rig_settle();
	settled();
	check_end();
	model_turn();
	rig_clear();
	fuzz_check_time(began);
	return 0;
}
