/*
 * What a server owes.
 *
 * Every message passed on to a server that will produce replies leaves an
 * entry here; the replies take the entries off again, in order. From the
 * entry a reply learns whether it is the client's (FORWARD), was asked for by
 * us (SWALLOW), and what becomes true by it (a statement is prepared now). An
 * entry that was never sent at all (LOCAL) stands for a reply that we give
 * ourselves, when all replies before it have been given.
 *
 * The rules by which entries vanish without a reply of their own, after an
 * error or inside COPY, are in relay_server.c, next to the messages.
 *
 * A ring that doubles. 16 entries serve all but deep pipelines.
 */
#include "session/owed.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "pool/stmt.h"

#define OWED_FIRST 16

bool
owed_init(struct owed *owed)
{
	memset(owed, 0, sizeof(*owed));
	owed->ring = mem_zalloc(OWED_FIRST * sizeof(*owed->ring));
	owed->mask = OWED_FIRST - 1;
	return owed->ring != NULL;
}

void
owed_finish(struct owed *owed)
{
	while (owed->count > 0) {
		owed_entry_clear(owed_head(owed));
		owed_pop(owed);
	}
	mem_free(owed->sql);
	mem_free(owed->ring);
	memset(owed, 0, sizeof(*owed));
}

static bool
owed_grow(struct owed *owed)
{
	uint32_t size = owed->mask + 1;
	struct owed_entry *ring = mem_zalloc(2 * size * sizeof(*ring));

	if (ring == NULL)
		return false;
	for (uint32_t i = 0; i < owed->count; i++)
		ring[i] = owed->ring[(owed->head + i) & owed->mask];
	mem_free(owed->ring);
	owed->ring = ring;
	owed->mask = 2 * size - 1;
	owed->head = 0;
	return true;
}

/* Keeps the counts of what is in the ring; `by` is 1 or -1. */
static void
owed_count(struct owed *owed, const struct owed_entry *entry, uint32_t by)
{
	if (entry->action == OWED_LOCAL)
		owed->local += by;
	if (entry->kind == OWED_SYNC)
		owed->syncs += by;
	if (entry->copies)
		owed->copies += by;
}

struct owed_entry *
owed_push(struct owed *owed, enum owed_kind kind, enum owed_action action)
{
	if (owed->count > owed->mask && !owed_grow(owed))
		return NULL;

	struct owed_entry *entry =
	    &owed->ring[(owed->head + owed->count) & owed->mask];
	*entry = (struct owed_entry){
		.kind = (uint8_t)kind, .action = (uint8_t)action,
	};
	owed->count++;
	owed_count(owed, entry, 1);
	if (action != OWED_LOCAL && kind < OWED_SYNC)
		owed->batch_open = true;
	if (action == OWED_FORWARD && kind >= OWED_SYNC) {
		entry->sql = owed->sql;
		owed->sql = NULL;
	}
	return entry;
}

struct owed_entry *
owed_at(const struct owed *owed, uint32_t i)
{
	check(i < owed->count);
	return &owed->ring[(owed->head + i) & owed->mask];
}

struct owed_entry *
owed_head(const struct owed *owed)
{
	return owed->count == 0 ? NULL : &owed->ring[owed->head];
}

void
owed_pop(struct owed *owed)
{
	check(owed->count > 0);
	owed_count(owed, &owed->ring[owed->head], (uint32_t)-1);
	owed->head = (owed->head + 1) & owed->mask;
	owed->count--;
}

void
owed_pop_last(struct owed *owed)
{
	owed_count(owed, owed_at(owed, owed->count - 1), (uint32_t)-1);
	owed->count--;
}

void
owed_remove(struct owed *owed, uint32_t i)
{
	owed_count(owed, owed_at(owed, i), (uint32_t)-1);
	for (; i + 1 < owed->count; i++)
		*owed_at(owed, i) = *owed_at(owed, i + 1);
	owed->count--;
}

static bool
entry_is_about(const struct owed_entry *entry, const char *name, size_t len)
{
	if (len == 0)
		return entry->unnamed;
	return entry->clears || (entry->change != NULL &&
	    entry->change->len == len &&
	    memcmp(entry->change->name, name, len) == 0);
}

bool
owed_is_uncertain(const struct owed *owed, const char *name, size_t len)
{
	bool earlier = false;

	/* Within one batch there is no doubt: an error skips the rest. */
	for (uint32_t i = owed->count; i-- > 0;) {
		const struct owed_entry *entry = owed_at(owed, i);
		bool about = entry_is_about(entry, name, len);

		if (about && (earlier ||
		    (entry->kind == OWED_QUERY && len > 0)))
			return true;
		if (about && len == 0)
			return false;
		earlier = earlier || entry->kind == OWED_SYNC;
	}
	return false;
}

bool
owed_is_pending(const struct owed *owed, const struct stmt *stmt)
{
	bool earlier = false;

	for (uint32_t i = owed->count; i-- > 0;) {
		const struct owed_entry *entry = owed_at(owed, i);

		if (earlier && entry->stmt == stmt &&
		    entry->kind != OWED_DESCRIBE)
			return true;
		earlier = earlier || entry->kind == OWED_SYNC;
	}
	return false;
}

bool
owed_has_ready(const struct owed *owed)
{
	for (uint32_t i = 0; i < owed->count; i++)
		if (owed_at(owed, i)->kind >= OWED_SYNC &&
		    owed_at(owed, i)->action == OWED_FORWARD)
			return true;
	return false;
}

bool
owed_is_clear(const struct owed *owed)
{
	return owed->count == owed->local;
}

bool
owed_is_ours(const struct owed *owed)
{
	for (uint32_t i = 0; i < owed->count; i++)
		if (owed_at(owed, i)->kind != OWED_QUERY ||
		    owed_at(owed, i)->action != OWED_SWALLOW)
			return false;
	return true;
}

bool
owed_is_brief(const struct owed *owed)
{
	const struct owed_entry *head = owed_head(owed);

	return head == NULL || head->leaves ||
	    (owed->count == 1 && head->probe);
}

bool
owed_has_local_bind(const struct owed *owed)
{
	for (uint32_t i = 0; owed->local > 0 && i < owed->count; i++)
		if (owed_at(owed, i)->kind == OWED_BIND &&
		    owed_at(owed, i)->action == OWED_LOCAL)
			return true;
	return false;
}

void
owed_set_copies(struct owed *owed, struct owed_entry *entry, bool copies)
{
	owed->copies += (uint32_t)copies - entry->copies;
	entry->copies = copies;
}

void
owed_note_copy_data(struct owed *owed)
{
	owed->copy_data = true;
	owed->copy_syncs = 0;
}

bool
owed_may_copy_in(const struct owed *owed)
{
	if (owed->copies == 0)
		return false;
	for (uint32_t i = owed->count; i-- > 0;) {
		if (owed_at(owed, i)->kind == OWED_COPY_DONE)
			return false;
		if (owed_at(owed, i)->copies)
			return true;
	}
	return false;
}

bool
owed_may_end(const struct owed *owed)
{
	for (uint32_t i = 0; i < owed->count; i++)
		if (owed_at(owed, i)->ends)
			return true;
	return false;
}

void
owed_entry_clear(struct owed_entry *entry)
{
	/* Nearly all hold nothing. */
	if (entry->stmt == NULL && entry->unnamed_was == NULL &&
	    entry->change == NULL && entry->sql == NULL)
		return;
	stmt_unref(entry->stmt);
	stmt_unref(entry->unnamed_was);
	if (entry->change != NULL)
		stmt_unref(entry->change->was);
	mem_free(entry->change);
	mem_free(entry->sql);
	entry->sql = NULL;
	entry->stmt = NULL;
	entry->unnamed_was = NULL;
	entry->change = NULL;
}
