/*
 * A plan: the bytes that one operation sends, and every message that has to
 * come back for them, in order.
 *
 * The operations in checker_ops.c are written with these few verbs. A verb
 * adds the bytes of one message; plan_want*() adds what Postgres answers to
 * it. While `mute` is on the server is known to skip what it gets (after an
 * error in an extended batch, until the Sync), so bytes are added and no
 * reply is expected.
 *
 *	steps:	| Query BEGIN | Query INSERT | Query COMMIT |
 *	wants:	| C Z(T)      | C Z(T)       | C Z(I)       |
 *	                                       ^ group 0 is acknowledged here
 *
 * A step's bytes are sent when the wants of the one before are all there.
 */
#include "checker.h"

#include <stdlib.h>
#include <string.h>

void
plan_reset(struct plan *p, enum op op)
{
	p->op = op;
	p->out.len = 0;
	p->words.len = 0;
	bytes_add(&p->words, "", 1);
	p->want_count = 0;
	p->step_count = 0;
	p->group_count = 0;
	p->row_count = 0;
	p->mark_count = 0;
	p->block = 'I';
	p->mute = false;
}

void
plan_free(struct plan *p)
{
	bytes_free(&p->out);
	bytes_free(&p->words);
	free(p->wants);
	free(p->steps);
	free(p->groups);
	free(p->rows);
	free(p->marks);
}

static void
begin(struct plan *p, char type)
{
	p->marks = array_grow(p->marks, p->mark_count, &p->mark_cap,
	    sizeof(*p->marks));
	p->marks[p->mark_count++] = p->out.len;
	p->last_start = message_begin(&p->out, type);
}

static void
end(struct plan *p)
{
	message_end(&p->out, p->last_start);
}

/* A message of one type with at most one text in it. */
void
plan_message(struct plan *p, char type, const char *text)
{
	begin(p, type);
	if (text != NULL)
		put_text(&p->out, text);
	end(p);
}

void
plan_query(struct plan *p, const char *sql)
{
	plan_message(p, 'Q', sql);
}

/* oid 0: one parameter or none, its type left to the server. */
void
plan_parse(struct plan *p, const char *name, uint32_t oid, const char *sql)
{
	begin(p, 'P');
	put_text(&p->out, name);
	put_text(&p->out, sql);
	put_u16(&p->out, oid != 0);
	if (oid != 0)
		put_u32(&p->out, oid);
	end(p);
}

void
plan_bind(struct plan *p, const char *portal, const char *name,
    unsigned count, const struct bytes *params)
{
	unsigned i;

	begin(p, 'B');
	put_text(&p->out, portal);
	put_text(&p->out, name);
	put_u16(&p->out, 0);
	put_u16(&p->out, count);
	for (i = 0; i < count; i++) {
		put_u32(&p->out, (uint32_t)params[i].len);
		bytes_add(&p->out, params[i].at, params[i].len);
	}
	put_u16(&p->out, 0);
	end(p);
}

void
plan_describe(struct plan *p, char kind, const char *name)
{
	begin(p, 'D');
	bytes_add(&p->out, &kind, 1);
	put_text(&p->out, name);
	end(p);
}

void
plan_execute(struct plan *p, const char *portal, uint32_t max_rows)
{
	begin(p, 'E');
	put_text(&p->out, portal);
	put_u32(&p->out, max_rows);
	end(p);
}

void
plan_close(struct plan *p, char kind, const char *name)
{
	begin(p, 'C');
	bytes_add(&p->out, &kind, 1);
	put_text(&p->out, name);
	end(p);
}

/* FunctionCall of quote_literal(text), which is 1283 in every Postgres. */
void
plan_call_quote(struct plan *p, const char *text)
{
	begin(p, 'F');
	put_u32(&p->out, 1283);
	put_u16(&p->out, 0);
	put_u16(&p->out, 1);
	put_u32(&p->out, (uint32_t)strlen(text));
	bytes_add(&p->out, text, strlen(text));
	put_u16(&p->out, 0);
	end(p);
}

void
plan_copy_data(struct plan *p, const char *data, size_t len)
{
	begin(p, 'd');
	bytes_add(&p->out, data, len);
	end(p);
}

void
plan_sync(struct plan *p)
{
	plan_message(p, 'S', NULL);
	p->mute = false;
}

/* Ends a step; one that awaits nothing is sent with the one before. */
void
plan_step(struct plan *p, unsigned delay_us)
{
	size_t n = p->step_count;

	p->steps = array_grow(p->steps, n, &p->step_cap, sizeof(*p->steps));
	if (n > 0 && p->steps[n - 1].want_end == p->want_count) {
		p->steps[n - 1].out_end = p->out.len;
		return;
	}
	p->steps[n] = (struct step){ p->out.len, p->want_count, delay_us };
	p->step_count++;
}

size_t
plan_words(struct plan *p, const char *words)
{
	size_t at = p->words.len;

	bytes_add(&p->words, words, strlen(words) + 1);
	return at;
}

/* What comes back may be written to; it is good until the next want. */
struct want *
plan_want(struct plan *p, char type, enum check check)
{
	static struct want muted;
	struct want *w;

	if (p->mute) {
		w = &muted;
	} else {
		p->wants = array_grow(p->wants, p->want_count, &p->want_cap,
		    sizeof(*p->wants));
		w = &p->wants[p->want_count++];
	}
	*w = (struct want){
		.type = type, .check = check, .repeat = 1,
		.statement = -1, .group = -1, .setting = -1
	};
	return w;
}

void
plan_want_types(struct plan *p, const char *types)
{
	for (; *types != '\0'; types++)
		plan_want(p, *types, CHECK_TYPE);
}

void
plan_want_tag(struct plan *p, const char *tag)
{
	size_t words = plan_words(p, tag);

	plan_want(p, 'C', CHECK_TAG)->words = words;
}

/*
 * The error ends what the server looks at: the rest of a Query never runs,
 * the rest of a batch is skipped until the Sync.
 */
void
plan_want_error(struct plan *p, const char *codes)
{
	size_t words = plan_words(p, codes);

	plan_want(p, 'E', CHECK_CODE)->words = words;
	if (p->block == 'T')
		p->block = 'E';
	p->mute = true;
}

/* Call it right after the Sync or Query that it answers. */
void
plan_want_ready(struct plan *p)
{
	struct want *w;

	p->mute = false;
	w = plan_want(p, 'Z', CHECK_READY);
	w->status = p->block;
	w->resume = p->last_start;
}

unsigned
plan_group(struct plan *p)
{
	p->groups = array_grow(p->groups, p->group_count, &p->group_cap,
	    sizeof(*p->groups));
	p->groups[p->group_count] = (struct group){ SIZE_MAX, false };
	return (unsigned)p->group_count++;
}

/* A nonce for the ledger, which stands or falls with its group. */
uint64_t
plan_row(struct plan *p, unsigned group)
{
	uint64_t nonce = nonce_next();

	p->rows = array_grow(p->rows, p->row_count, &p->row_cap,
	    sizeof(*p->rows));
	p->rows[p->row_count++] = (struct row){ nonce, group };
	return nonce;
}

/*
 * The message added last may commit the group, and the reply wanted last
 * says that it did.
 */
void
plan_commits(struct plan *p, unsigned group)
{
	p->groups[group].commit_at = p->out.len;
	p->wants[p->want_count - 1].group = (int)group;
}

/* The plan makes sure that this group can never be committed. */
void
plan_fails(struct plan *p, unsigned group)
{
	p->groups[group].commit_at = SIZE_MAX;
}
